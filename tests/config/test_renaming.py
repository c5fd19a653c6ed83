"""Options that were renamed: what has an old name still works, says the new one, and is recorded under it."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_same_tensors, newest_tensors, run_cli, sets
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from amgen import config, sampling
from amgen.config import renaming
from amgen.core.errors import UserError
from amgen.model import checkpoints, export
from amgen.training.main import train

TABLE = {"kind": "snapshots", "path": "cells.csv", "dimension": 2}
RUN = [
    "data.dimension=2",
    "data.mass_from_counts=true",
    "data.standardize=whiten",
    "dynamics.kind=unbalanced",
    "action.width=8",
    "action.depth=1",
    "training.batch_size=16",
    "training.warmup_images=32",
    "training.log_every=32",
    "training.sample_every=0",
    "training.decay=0",
    "sampling.steps=2",
]


@pytest.fixture
def renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that moved to another section, a section with a new name, and a value with a new name."""
    monkeypatch.setattr(renaming, "RENAMED", {"training.rounds": "sampling.steps", "pictures": "data", "data.turn": "data.flip"})
    monkeypatch.setattr(renaming, "RENAMED_VALUES", {"data.resize": {"cut": "crop"}})


def renamed_options(options: dict[str, object]) -> tuple[dict[str, object], list[str]]:
    lines: list[str] = []
    return renaming.with_new_names(options, "x.yaml", lines.append), lines


@pytest.mark.usefixtures("renamed")
def test_options_sections_and_values_get_their_new_names() -> None:
    options, lines = renamed_options({"training": {"rounds": 3, "images": 5}, "pictures": {"turn": True, "resize": "cut"}})
    assert options == {"training": {"images": 5}, "sampling": {"steps": 3}, "data": {"flip": True, "resize": "crop"}}
    assert [line.split(": use")[0] for line in lines] == [
        "x.yaml: training.rounds is now called sampling.steps",
        "x.yaml: pictures is now called data",
        "x.yaml: data.turn is now called data.flip",
        "x.yaml: data.resize=cut is now called data.resize=crop",
    ]


@pytest.mark.usefixtures("renamed")
def test_new_names_are_left_alone() -> None:
    given = {"sampling": {"steps": 3}, "data": {"flip": True, "resize": "crop"}, "seed": 1}
    options, lines = renamed_options(given)
    assert (options, lines) == (given, [])


@pytest.mark.usefixtures("renamed")
def test_overrides_get_their_new_names() -> None:
    lines: list[str] = []
    given = [("training.rounds", 4), ("pictures.turn", True), ("data.resize", "cut"), ("pictures", {"flip": False}), ("data.flip", True)]
    found = [renaming.renamed_override(key, value, lines.append) for key, value in given]
    assert found == [("sampling.steps", 4), ("data.flip", True), ("data.resize", "crop"), ("data", {"flip": False}), ("data.flip", True)]
    assert len(lines) == 4


@pytest.mark.parametrize("wrong", [{"data": 5}, {"data": None}, {"data": ["whiten"]}, {"data": {"whiten": ["common"]}}, {}])
def test_what_is_no_section_is_left_to_the_checks(wrong: dict[str, object]) -> None:
    options, _ = renamed_options(wrong)
    assert options == (wrong if wrong != {"data": {"whiten": ["common"]}} else {"data": {"standardize": ["common"]}})


def test_both_names_at_once_are_refused() -> None:
    with pytest.raises(UserError, match=r"x.yaml: data.whiten is the old name of data.standardize, and both are given: remove data.whiten"):
        renamed_options({"data": {"whiten": "none", "standardize": "none"}})


def test_every_new_name_is_an_option() -> None:
    for new in renaming.RENAMED.values():
        assert config.run.fields(new.split(".")), new
    for key, values in renaming.RENAMED_VALUES.items():
        accepted = {value for field in config.run.fields(key.split(".")) for value in field.annotation.__args__}  # type: ignore[union-attr]
        assert accepted >= set(values.values())
        assert not accepted & values.keys()


@pytest.mark.parametrize(("old", "new"), [("none", "none"), ("common", "global"), ("columns", "columns"), ("full", "whiten")])
def test_a_file_with_old_names(old: str, new: str, tmp_path: Path) -> None:
    """It loads, the resolved options have the new names alone, and there is a line for each."""
    file = tmp_path / "old.yaml"
    data = {**TABLE, "whiten": old, "counts": True}
    file.write_text(
        json.dumps({"data": data, "path": {"kind": "snapshots"}, "dynamics": {"kind": "unbalanced"}, "action": {"kind": "mlp"}})
    )
    lines: list[str] = []
    options = config.load(str(file), say=lines.append)
    assert options.data.standardize == new  # type: ignore[union-attr]
    assert options.data.mass_from_counts  # type: ignore[union-attr]
    assert "whiten:" not in options.to_yaml()
    assert " counts:" not in options.to_yaml()
    assert len(lines) == 2
    assert config.load(str(file)) == options
    # An override by either name is stronger than the file.
    for name in ("whiten", "standardize"):
        assert config.load(str(file), [f"data.{name}=none"]).data.standardize == "none"  # type: ignore[union-attr]


def test_the_command_line_says_the_new_name() -> None:
    outcome = run_cli("train", "cells", "--dry-run", *sets(["data.path=cells.csv", "data.whiten=full"]))
    assert outcome.code == 0
    assert "standardize: whiten" in outcome.out
    assert (
        outcome.err
        == "amgen: --set: data.whiten=full is now called data.standardize=whiten: use the new name (the old one is still read)\n"
    )
    assert run_cli("train", "cells", "--dry-run", *sets(["data.standardize=whiten"])).err == ""


def test_options_are_found_by_their_old_names() -> None:
    assert run_cli("config", "data.counts").out == run_cli("config", "data.mass_from_counts").out


def with_old_names(options: dict[str, object]) -> dict[str, object]:
    """Undo the renaming, as a run of an earlier version was recorded."""
    data = dict(options["data"])  # type: ignore[call-overload]
    data["whiten"] = {"global": "common", "whiten": "full"}.get(data["standardize"], data.pop("standardize"))
    data.pop("standardize", None)
    data["counts"] = data.pop("mass_from_counts")
    return {**options, "data": data}


def rewrite(file: Path) -> None:
    """Give the configuration in a weights file old names."""
    with safe_open(file, framework="pt") as opened:
        contents = json.loads(opened.metadata()["amgen"])
    contents["config"] = with_old_names(contents["config"])
    save_file(load_file(file), file, metadata={"amgen": json.dumps(contents)})


def test_a_run_with_old_names_is_sampled_exported_and_resumed(tmp_path: Path) -> None:
    table = tmp_path / "cells.npz"
    points = np.random.default_rng(0).normal(size=(60, 2))
    np.savez(table, times=np.repeat([0.0, 1.0, 2.0], [10, 20, 30]), points=points)
    options = config.load("cells", [*RUN, f"data.path={table}", "training.images=64"])
    longer = config.load("cells", [*RUN, f"data.path={table}", "training.images=128"])
    for name in ("new", "old"):
        train(options, tmp_path / name)
    exported = tmp_path / "old.safetensors"
    export.export(export.read_weights(tmp_path / "old"), exported)
    expected = sampling.load(tmp_path / "new").generate(4).images

    folder = checkpoints.latest(tmp_path / "old")
    assert folder is not None
    for file in [exported, *(file for file in folder.glob("*.safetensors") if file.stem not in ("optimizer", "neighbourhood"))]:
        rewrite(file)
    manifest = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir() if file.name != "manifest.json"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    record = tmp_path / "old" / "config.yaml"
    record.write_text(json.dumps(with_old_names(json.loads(json.dumps(config.read_yaml(str(record)))))))
    assert '"counts": true' in record.read_text()

    for place in (tmp_path / "old", exported):
        model = sampling.load(place)
        assert model.config.data.standardize == "whiten"  # type: ignore[union-attr]
        assert torch.equal(model.generate(4).images, expected)
    for name in ("new", "old"):
        train(longer, tmp_path / name)
    assert_same_tensors(newest_tensors(tmp_path / "old"), newest_tensors(tmp_path / "new"))
    assert "mass_from_counts: true" in record.read_text()
    assert " counts:" not in record.read_text()
