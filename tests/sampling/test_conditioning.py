"""One rule for the class of an image, whether it is generated, encoded or scored, and the names of classes."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import TINY, run_cli, sets
from PIL import Image

from amgen import config, sampling
from amgen.config import Config, DataConfig
from amgen.core.errors import UserError
from amgen.data import ImageDataset, open_dataset
from amgen.evaluation.likelihood import evaluate, ode_options
from amgen.model.build import build_action
from amgen.model.classes import class_name, class_numbers, find_label
from amgen.sampling import Model, Request
from amgen.sampling.conditioning import labels_of
from amgen.sampling.inversion import encode_all
from amgen.training.main import train

ANIMALS = ["ant", "bee", "cat"]
CLASSES = ["action.classes=10", "action.label_dropout=0.2"]


def pictures_in(folder: Path, classes: Sequence[str], each: int = 4) -> Path:
    """A folder with some 8x8 images of each class."""
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(each):
            Image.fromarray(rng.integers(256, size=(8, 8), dtype=np.uint8)).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images of three classes with names, `animals/run`, beside its data, `animals/data`."""
    folder = tmp_path_factory.mktemp("animals")
    pictures_in(folder / "data", ANIMALS)
    overrides = [*TINY, "action.classes=3", "action.label_dropout=0.2", f"data.path={folder / 'data'}"]
    train(config.load("digits", overrides), folder / "run")
    return folder


def untrained(*overrides: str) -> tuple[Model, ImageDataset]:
    options = config.load("digits", [*TINY, *CLASSES, *overrides])
    action = build_action(options).requires_grad_(False).eval()
    return sampling.assemble(options, action, "action", 0, Path()), open_dataset(options.data)


def test_the_rule() -> None:
    """The class asked for; else that of the given points; else that of the start image; else i modulo the number of classes."""
    model, digits = untrained()
    options, indices = model.config, [3, 1796, 1797, 12]
    source = [int(digits.labels[index]) for index in (3, 1796, 0, 12)]  # image i is made from image i modulo their number
    codes = torch.arange(2000) % 7

    def found(**arguments: object) -> list[int]:
        labels = labels_of(options, indices, Request(**arguments))  # type: ignore[arg-type]
        assert labels is not None
        return labels.tolist()

    assert found() == [3, 6, 7, 2]
    assert found(between=(14, 5)) == [4, 4, 4, 4]
    assert found(images=digits) == source != [3, 6, 7, 2]
    assert found(images=digits, classes=codes) == [index % 7 for index in indices]
    assert found(images=digits, classes=codes, label=9) == [9, 9, 9, 9]
    assert labels_of(config.load("digits"), indices, Request(images=digits)) is None


@pytest.mark.parametrize("path", ["super-resolution", "in-painting"])
def test_what_is_completed_keeps_its_class(path: str) -> None:
    model, digits = untrained(f"path.kind={path}")
    indices = range(100, 164)
    batch = sampling.initial_state(model, model.config.sampling, indices, Request(images=digits))
    assert batch.labels is not None
    assert batch.labels.tolist() == digits.labels[100:164].tolist()
    assert batch.dynamics.label is not None
    assert batch.dynamics.label.tolist() == batch.labels.tolist()
    samples = model.generate(12, steps=1, solver="euler")
    assert samples.labels is not None
    assert samples.labels.tolist() == digits.labels[:12].tolist()
    assert torch.equal(samples.truths, digits.images(range(12)))  # type: ignore[arg-type]


def test_what_is_encoded_keeps_its_class() -> None:
    model, digits = untrained()
    options = model.options({"solver": "euler", "steps": 1})
    indices = [5, 40, 41]
    for label, expected in ((None, digits.labels[indices].tolist()), (2, [2, 2, 2])):
        (found,) = encode_all(model, options, digits, indices, Request(label=label))
        assert found.labels is not None
        assert found.labels.tolist() == expected


def test_the_stand_in_of_an_unreadable_image_has_its_own_class(tmp_path: Path) -> None:
    """Image 3 of ant, the last, is replaced by image 0 of bee."""
    folder = pictures_in(tmp_path, ANIMALS)
    (folder / "ant" / "3.png").write_bytes(b"none")
    dataset = open_dataset(DataConfig(path=str(folder), on_error="skip"))
    options = config.load("digits", ["action.classes=3", "coupling.kind=independent"])
    labels = labels_of(options, range(5), Request(images=dataset))
    assert labels is not None
    assert labels.tolist() == [0, 0, 0, 1, 1]


def test_images_of_other_classes_are_refused(tmp_path: Path) -> None:
    """For generating, encoding and likelihood alike; one class for all images is accepted."""
    model, _ = untrained("path.kind=super-resolution")
    plain, _ = untrained()
    folder = pictures_in(tmp_path, ANIMALS)
    message = re.escape("this model knows 10 classes, but") + ".* has 3: give images of the same classes"
    with pytest.raises(UserError, match=message):
        model.generate(2, start=str(folder))
    with pytest.raises(UserError, match=message):
        next(encode_all(plain, plain.options({}), open_dataset(DataConfig(path=str(folder))), [0], Request()))
    with pytest.raises(UserError, match=message):
        evaluate(plain, ode_options(plain, {"solver": "euler", "steps": 1}), 2, data=str(folder))
    samples = model.generate(2, start=str(folder), label=4, solver="euler", steps=1)
    assert samples.labels is not None
    assert samples.labels.tolist() == [4, 4]


def named(*classes: str) -> Config:
    return config.load("digits", [f"action.classes={len(classes)}", f"data.classes={json.dumps(classes)}", "coupling.kind=independent"])


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    """Folders are sorted, and the classes of a run need not be; of other names, the number counts."""
    dataset = open_dataset(DataConfig(path=str(pictures_in(tmp_path, ANIMALS, 1))))
    assert class_numbers(named("cat", "ant", "bee"), dataset).tolist() == [1, 2, 0]
    assert class_numbers(named("x", "y", "z"), dataset).tolist() == [0, 1, 2]
    labels = labels_of(named("cat", "ant", "bee"), range(3), Request(images=dataset))
    assert labels is not None
    assert labels.tolist() == [1, 2, 0]


def test_classes_are_found_by_name_or_number() -> None:
    options = named("10", "9", "cat")
    assert [find_label(options, text) for text in ("cat", "2", 2, "10", "9", "0", None)] == [2, 2, 2, 0, 1, 0, None]
    assert class_name(options, 2) == "cat"
    for text, message in (
        ("cta", "unknown class 'cta' (did you mean 'cat'?): choose 10, 9, cat, or a number from 0 to 2"),
        ("3", "label=3: this model knows the classes 0 to 2"),
        ("-1", "unknown class '-1'"),
        ("9" * 5000, f"unknown class '{'9' * 80}'"),
    ):
        with pytest.raises(UserError, match="^" + re.escape(message)):
            find_label(options, text)
    for text, named_as in (("cat", "'cat'"), ("3", "3")):
        with pytest.raises(UserError, match=f"label={named_as}: this model was trained without classes"):
            find_label(config.load("digits"), text)


def test_names_that_do_not_fit_the_data_are_refused(tmp_path: Path) -> None:
    folder = pictures_in(tmp_path, ANIMALS, 1)
    for names, message in ((["a", "b"], "names 2 classes, but"), (["bee", "ant", "cat"], "in another order"), (["a", "a", "b"], "twice")):
        with pytest.raises(UserError, match=message):
            open_dataset(DataConfig(path=str(folder), classes=names)).record()
    assert open_dataset(DataConfig(path=str(folder), classes=["a", "b", "c"])).record() == {"classes": ["a", "b", "c"]}
    assert open_dataset(DataConfig(path=str(folder))).record() == {"classes": ANIMALS}
    assert open_dataset(DataConfig(path=str(folder / "ant"))).record() == {}


def test_class_names_are_kept_with_the_run(animals: Path, tmp_path: Path) -> None:
    """Recorded in config.yaml and the weights; asked for by name, printed, refused with the nearest one."""
    run = animals / "run"
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["classes"] == ANIMALS
    model = sampling.load(run)
    assert model.config.images.classes == ANIMALS
    assert torch.equal(model.sample(2, label="cat", steps=1), model.sample(2, label=2, steps=1))
    outcome = run_cli("sample", run, "-n", "2", "--label", "cat", "--format", "npz", "--out", tmp_path / "cats")
    assert outcome.code == 0, outcome.err
    assert "label 2 (cat)" in outcome.out
    (shard,) = (tmp_path / "cats").glob("*.npz")
    with np.load(shard) as arrays:
        assert arrays["labels"].tolist() == [2, 2]
    assert json.loads((tmp_path / "cats" / "sampling.json").read_text())["label"] == 2
    outcome = run_cli("encode", run, "-n", "5", "--label", "bee", "--solver", "euler", "--out", tmp_path / "noise.npz")
    assert "label 1 (bee)" in outcome.out, outcome.err
    for command in (["sample"], ["encode"], ["eval-fid", "--features", "pixels"]):
        outcome = run_cli(command[0], run, *command[1:], "--label", "cta")
        assert (outcome.code, "unknown class 'cta' (did you mean 'cat'?)" in outcome.err) == (2, True), outcome.err
        assert outcome.err.count("\n") == 1


def test_a_folder_of_completed_images_knows_what_they_were_made_from(animals: Path, tmp_path: Path) -> None:
    """Labels are those of the source images, in a folder that refuses images made from others at the same place."""
    data = Path(shutil.copytree(animals / "data", tmp_path / "data"))
    overrides = [*TINY, "action.classes=3", "path.kind=super-resolution", f"data.path={data}"]
    train(config.load("digits", overrides), tmp_path / "run")
    command = ("sample", tmp_path / "run", "-n", "14", "--format", "npz", "--out", tmp_path / "out")
    assert run_cli(*command).code == 0
    (shard,) = (tmp_path / "out").glob("*.npz")
    with np.load(shard) as arrays:
        assert arrays["labels"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 0, 0]
    Image.new("L", (8, 8), 100).save(data / "ant" / "0.png")
    outcome = run_cli(*command)
    assert (outcome.code, "holds images made with start_sha256=" in outcome.err) == (2, True), outcome.err


def test_a_run_without_class_names_is_resumed_and_gets_them(animals: Path, tmp_path: Path) -> None:
    """As one of an earlier version."""
    run = Path(shutil.copytree(animals / "run", tmp_path / "run"))
    options = yaml.safe_load((run / "config.yaml").read_text())
    del options["data"]["classes"]
    (run / "config.yaml").write_text(yaml.safe_dump(options))
    overrides = [*TINY, "action.classes=3", "action.label_dropout=0.2", f"data.path={animals / 'data'}", "training.images=112"]
    outcome = run_cli("train", "digits", "--run-dir", run, *sets(overrides))
    assert outcome.code == 0, outcome.err
    assert "resuming from" in outcome.out
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["classes"] == ANIMALS
