"""Evaluation of models: scores do not depend on processes and batches, and reports hold all conditions."""

import csv
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TINY, amgen_process, run_cli
from PIL import Image

from amgen import config, sampling
from amgen.config import METRICS, DataConfig
from amgen.core.errors import UserError
from amgen.core.processes import Processes
from amgen.data import open_dataset
from amgen.evaluation import sweep
from amgen.evaluation.arguments import parse_sweep
from amgen.evaluation.evaluator import Evaluator
from amgen.evaluation.features import FeatureExtractor, make_extractor
from amgen.evaluation.frechet import frechet_distance
from amgen.evaluation.metric_options import MetricOptions, select_metrics
from amgen.evaluation.moments import Moments
from amgen.evaluation.reference import Reference, cache_file, read_statistics, reference_from_images
from amgen.evaluation.report import Evaluation, file_name, table
from amgen.evaluation.scores import Score
from amgen.model import checkpoints
from amgen.reporting.collect import collect
from amgen.training.main import train
from amgen.visualization.grids import image_grid

ALONE = Processes()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the cache of the tests apart from the user's."""
    monkeypatch.setenv("AMGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def evaluator(name: str = "digits", metrics: Sequence[str] = ("fid",), **options: int) -> Evaluator:
    extractor = make_extractor(name, 1, 8)
    return Evaluator(extractor, reference_from_images(open_dataset(DataConfig()), extractor, ALONE), MetricOptions(metrics, **options))


def by_name(evaluation: Evaluation) -> dict[str, Score]:
    return {score.name: score for score in evaluation.scores}


@pytest.mark.parametrize("name", ["digits", "pixels"])
def test_report_carries_its_conditions(name: str, trained: Path) -> None:
    model = sampling.load(trained)
    measure = evaluator(name)
    evaluation = measure(model, model.options({"solver": "heun", "steps": 3}), 50)
    label = measure.extractor.distance_name
    assert label != "FID"
    assert (evaluation.generated, evaluation.real, evaluation.sampling["NFE"]) == (50, 1797, 6)
    scores = by_name(evaluation)
    assert list(scores) == [label, f"{label} at infinite n", f"{label} at n = 50 a side"]
    stored = json.loads(json.dumps(evaluation.to_dict()))
    assert stored["features"]["name"] == name
    matched = stored["scores"][2]["details"]
    assert matched["ratio"] == pytest.approx(matched["generated"] / matched["floor"])
    lines = "\n".join(evaluation.lines())
    assert f"{label} {evaluation.principal.value:.4g} +- " in lines
    assert "50 generated against 1,797 real images" in lines
    assert "warning: distances of 50 images are biased upwards" in lines
    assert "do not determine a covariance of 64 dimensions" in lines
    assert sum(evaluation.seconds.values()) > 0


def test_value_is_the_distance_of_what_was_sampled(trained: Path) -> None:
    """The report agrees with sampling and measuring by hand, whatever the batch."""
    model = sampling.load(trained)
    options = config.change(model.config.sampling, {"batch_size": 20})
    evaluation = evaluator()(model, options, 30, sampling.Request(seed=4))
    images = torch.cat([batch.images for batch in sampling.generate_all(model, options, range(30), sampling.Request(seed=4))])
    extractor = make_extractor("digits", 1, 8)
    real = extractor(open_dataset(model.config.data).images(range(1797)))
    assert evaluation.principal.value == pytest.approx(frechet_distance(extractor(images), real), rel=1e-4)
    other = evaluator()(model, config.change(options, {"batch_size": 7}), 30, sampling.Request(seed=4))
    assert other.principal.value == pytest.approx(evaluation.principal.value, rel=1e-6)


def test_all_metrics_of_the_data_itself(trained: Path) -> None:
    """A model that generates the training images: no distance, full precision and recall, and nearness that shows copies."""
    model = sampling.load(trained)
    measure = evaluator(metrics=METRICS, kid_subset_size=500, kid_subsets=10)
    real = measure.reference.features
    assert real is not None
    copies = iter([real[:1797]])
    measure.extractor.__class__ = type("Copies", (type(measure.extractor),), {"__call__": lambda self, images: next(copies)})
    scores = by_name(measure(model, model.options({"batch_size": 1797}), 1797))
    label = "(digits features)"
    assert scores[f"FD {label}"].value == pytest.approx(0, abs=1e-4)
    assert abs(scores[f"KID {label}"].value) < 3 * scores[f"KID {label}"].standard_error  # type: ignore[operator]
    assert scores[f"precision {label}"].value == scores[f"recall {label}"].value == 1
    assert 7 < scores[f"IS {label}"].value < 10  # ten digits, recognised by a classifier that was taught to doubt
    nearness = scores[f"nearness to training images {label}"]
    assert nearness.value > 0.99
    assert [pair[0] for pair in nearness.details["pairs"]] == [pair[1] for pair in nearness.details["pairs"]]


def test_metrics_that_cannot_be_computed_are_refused_before_generation(trained: Path) -> None:
    model = sampling.load(trained)

    def refused(message: str, num: int, *metrics: str, **options: int) -> None:
        with pytest.raises(UserError, match=message):
            evaluator("digits", metrics, **options)(model, model.config.sampling, num)

    refused("need at least 8 generated and 4 real images, not 7 and 7", 7, "fid")
    refused("KID subsets of 1000 images need at least 1000 images on each side, not 60: set the size of a subset to 30", 60, "kid")
    refused("kid_subset_size=1: the estimate needs at least 2", 60, "kid", kid_subset_size=1)
    refused("mean over 10 parts: generate at least 10 images, not 9", 9, "is")
    with pytest.raises(UserError, match="metrics=is needs features with classes, and features=pixels have none"):
        evaluator("pixels", ["is"])
    pixels = make_extractor("pixels", 1, 8)
    moments = Reference({"description": "m.npz", "n": None}, Moments(torch.zeros(64), torch.eye(64)))
    with pytest.raises(UserError, match="metrics=kid needs the features of the real images, and m.npz holds mean and covariance only"):
        Evaluator(pixels, moments, MetricOptions(("kid",)))
    assert select_metrics("all", pixels, moments) == ("fid",)
    with pytest.raises(UserError, match="unknown metric 'kidd'"):
        select_metrics("fid,kidd", pixels, moments)


def test_features_that_are_not_finite_are_named(trained: Path) -> None:
    model = sampling.load(trained)
    measure = evaluator()

    def spoilt(self: FeatureExtractor, images: torch.Tensor) -> torch.Tensor:
        features = torch.randn(len(images), 64)
        features[2, 5] = torch.nan
        return features

    measure.extractor.__class__ = type("Spoilt", (type(measure.extractor),), {"__call__": spoilt})
    with pytest.raises(UserError, match="features=digits of image 2 are not finite"):
        measure(model, model.options({"batch_size": 8}), 8)


def test_weighted_images_count_by_their_weight(tmp_path: Path) -> None:
    """Unbalanced dynamics: an untrained action with one class made heavy; both sides are resampled by weight."""
    masses = "data.masses={end: [100, 1, 1, 1, 1, 1, 1, 1, 1, 1]}"
    train(config.load("digits-unbalanced", [*TINY, masses]), tmp_path / "run")
    model = sampling.load(tmp_path / "run")
    evaluation = evaluator()(model, model.config.sampling, 60)
    assert any("effective sample size" in warning for warning in evaluation.warnings)
    assert [score.standard_error for score in evaluation.scores] == [None, None]
    extractor = make_extractor("digits", 1, 8)
    assert select_metrics("all", extractor, evaluator().reference, weighted=True) == ("fid", "is", "nearest")
    with pytest.raises(UserError, match="metrics=kid needs images of equal weight"):
        evaluator(metrics=["kid"])(model, model.config.sampling, 60)
    # By hand: zeros make up 100/109 of the reference.
    measure = evaluator()
    seen: list[Any] = []
    subset = Reference.subset
    Reference.subset = lambda self, positions: seen.append(list(positions)) or subset(self, positions)  # type: ignore[method-assign, func-returns-value]
    try:
        measure(model, model.config.sampling, 60)
    finally:
        Reference.subset = subset  # type: ignore[method-assign]
    assert measure.reference.dataset is not None
    zeros = (measure.reference.dataset.labels[seen[0]] == 0).double().mean()
    assert float(zeros) == pytest.approx(100 / 109, abs=0.01)


def test_reference_is_computed_once(cache: Path) -> None:
    dataset, extractor = open_dataset(DataConfig()), make_extractor("digits", 1, 8)
    calls: list[int] = []

    class Counting(type(extractor)):  # type: ignore[misc]
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            calls.append(len(images))
            return super().__call__(images)

    counting = Counting(None, torch.device("cpu"))
    first = reference_from_images(dataset, counting, ALONE, 40)
    assert sum(calls) == 40
    again = reference_from_images(dataset, counting, ALONE, 40)
    assert sum(calls) == 40
    assert torch.equal(first.features, again.features)  # type: ignore[arg-type]
    assert first.indices == again.indices
    assert torch.equal(extractor(dataset.images(first.indices)), first.features)  # type: ignore[arg-type]
    # Another number, data, or set of weights is another reference; a damaged file is made again.
    reference_from_images(dataset, counting, ALONE, 41)
    assert sum(calls) == 81
    counting.checksum = "other weights"
    reference_from_images(dataset, counting, ALONE, 40)
    assert sum(calls) == 121
    file = cache_file(first.about)
    file.write_bytes(file.read_bytes()[:1000])
    assert torch.equal(reference_from_images(dataset, extractor, ALONE, 40).features, first.features)  # type: ignore[arg-type]
    before = sorted(cache.iterdir())
    reference_from_images(dataset, counting, ALONE, 12, cache=False)
    assert sorted(cache.iterdir()) == before
    with pytest.raises(UserError, match="1,798 real images are requested, and the embedded digits has 1,797"):
        reference_from_images(dataset, extractor, ALONE, 1798)


class Corners(FeatureExtractor):
    """Mean squares of the first channel over the quarters of an image: four numbers of images of any size and number of channels."""

    name, distance_name, preparation, dimension, checksum = "corners", "FD (corners)", "none", 4, ""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images[:, :1].float().square(), 2).flatten(1)


def test_every_option_of_images_is_in_the_key_or_declared_to_be_no_part_of_it() -> None:
    """An option that is added is in the key of cached features unless it is marked."""
    prepared = set(DataConfig().preparation())
    assert prepared == {"kind", "size", "channels", "resize", "convert", "background", "on_error"}
    assert set(DataConfig.model_fields) - prepared == {"path", "flip", "root", "download", "memory_mb", "workers", "masses", "classes"}


@pytest.fixture
def transparent(tmp_path: Path) -> DataConfig:
    """Two images of 12x8 pixels, noise in red, more and more transparent from left to right, and how to prepare them."""
    (tmp_path / "images").mkdir()
    for index in range(2):
        pixels = np.zeros((8, 12, 4), np.uint8)
        pixels[..., 0] = np.random.default_rng(index).integers(0, 256, (8, 12))
        pixels[..., 3] = np.linspace(255, 0, 12)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
    return DataConfig(path=str(tmp_path / "images"), size=4, channels=3, resize="crop", convert=True, memory_mb=0)


@pytest.mark.parametrize("change", [{"background": 0}, {"resize": "stretch"}, {"size": 6}, {"channels": 1}], ids=str)
def test_other_preparation_is_another_reference(change: dict[str, Any], transparent: DataConfig) -> None:
    """The features are those of the images as they are prepared now, and not those that the cache holds of another preparation."""
    extractor, changed = Corners(), open_dataset(config.change(transparent, change))
    first = reference_from_images(open_dataset(transparent), extractor, ALONE).features
    second = reference_from_images(changed, extractor, ALONE).features
    assert first is not None
    assert second is not None
    assert torch.equal(second, extractor(changed.images(range(2))))
    assert float((second - first).abs().max()) > 1


def test_images_that_are_refused_now_are_not_taken_from_the_cache(transparent: DataConfig) -> None:
    gray = config.change(transparent, {"channels": 1})
    reference_from_images(open_dataset(gray), Corners(), ALONE)
    with pytest.raises(UserError, match="is RGB but data.channels=1 asks for gray"):
        reference_from_images(open_dataset(config.change(gray, {"convert": False})), Corners(), ALONE)
    (Path(transparent.path) / "2.png").write_text("not an image")
    skipping = config.change(transparent, {"on_error": "skip"})
    reference_from_images(open_dataset(skipping), Corners(), ALONE)
    with pytest.raises(UserError, match="cannot read the image .*2.png"):
        reference_from_images(open_dataset(config.change(skipping, {"on_error": "stop"})), Corners(), ALONE)


def test_images_of_equal_size_are_told_apart(tmp_path: Path) -> None:
    """Uncompressed files have equal names and sizes, whatever they show."""
    extractor, found = make_extractor("pixels", 1, 8), []
    for name, value in {"dark": 10, "light": 200}.items():
        (tmp_path / name).mkdir()
        for index in range(4):
            Image.new("L", (8, 8), value + index).save(tmp_path / name / f"{index}.bmp")
        found.append(reference_from_images(open_dataset(DataConfig(path=str(tmp_path / name))), extractor, ALONE).features)
    assert float((found[1] - found[0]).mean()) > 1


def test_exported_weights_are_scored(trained: Path, tmp_path: Path) -> None:
    """As the same weights in their run are, to the last digit; other weights of the run score otherwise."""
    assert run_cli("export", trained, "--ema", "0.99", "--out", tmp_path / "model.safetensors").code == 0
    found = []
    for name, *arguments in (("run", trained, "--ema", "0.99"), ("file", tmp_path / "model.safetensors"), ("other", trained, "--raw")):
        file = tmp_path / f"{name}.json"
        outcome = run_cli("eval-fid", *arguments, "--features", "digits", "--num", "10", "--json", file)
        assert outcome.code == 0, outcome.err
        found.append(json.loads(file.read_text()))
    assert found[1]["scores"] == found[0]["scores"]
    assert (found[1]["model"]["weights"], found[1]["model"]["images_trained"]) == ("ema-0.99", 96)
    assert found[2]["scores"][0]["value"] != found[0]["scores"][0]["value"]


def scored(value: float, **changes: Any) -> Evaluation:
    """An evaluation by hand."""
    conditions: dict[str, Any] = {"generated": 10, "real": 5, "reference": "r", "features": None, "sampling": {"NFE": 3, "seed": 0}}
    model = {"checkpoint": "runs/x/checkpoints/step-00000007", "weights": "ema-0.99", "images_trained": 7}
    return Evaluation(scores=[Score("FID", value)], model=model, seconds={}, **{**conditions, **changes})


def test_best_weights_are_compared_under_equal_conditions() -> None:
    """By the conditions; an adaptive solver needs another NFE for other weights."""
    one = scored(2.0, metric_options={"metrics": ["fid"]})
    assert Evaluation.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert one.comparable(scored(3.0, metric_options={"metrics": ["fid"]}))
    assert one.comparable(scored(3.0, metric_options={"metrics": ["fid"]}, sampling={"NFE": 44, "seed": 0, "label": None}))
    assert one.comparable(scored(3.0))  # of an older version, which saved no metric options
    for change in (
        {"generated": 11},
        {"real": 6},
        {"reference": "s"},
        {"features": {"name": "pixels"}},
        {"sampling": {"NFE": 3, "seed": 1}},
        {"sampling": {"NFE": 3, "seed": 0, "tolerance": 0.1}},
        {"metric_options": {"metrics": ["kid"]}},
    ):
        assert not one.comparable(scored(3.0, **{"metric_options": {"metrics": ["fid"]}, **change})), change
    assert not one.comparable(Evaluation.from_dict({**one.to_dict(), "scores": [{"name": "KID", "value": 1.0}]}))


def test_the_best_weights_are_kept_though_an_adaptive_solver_needs_another_number_of_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores 5, 50 and 40 after 32, 64 and 96 images, at another NFE each."""
    original, given = Evaluator.__call__, iter([(5.0, 20), (50.0, 26), (40.0, 32)])

    def call(*arguments: Any) -> Evaluation:
        found = original(*arguments)
        found.scores[0].value, found.sampling["NFE"] = next(given)
        return found

    monkeypatch.setattr(Evaluator, "__call__", call)
    adaptive = ["sampling.solver=adaptive-heun", "sampling.tolerance=0.1"]
    options = [*TINY, *adaptive, "evaluation.every=32", "evaluation.features=digits", "evaluation.num=10"]
    train(config.load("digits", options), tmp_path / "run")
    assert sampling.load(tmp_path / "run" / "checkpoints" / "best").images == 32


def test_reports_are_named_by_their_conditions() -> None:
    """The same again has the same name; what came out, and the place of the weights, do not matter."""
    one = scored(2.0)
    moved = Evaluation.from_dict({**one.to_dict(), "model": {**one.model, "checkpoint": "elsewhere/step-00000007"}})
    for same in (scored(3.0, sampling={"NFE": 9, "seed": 0}), moved):
        assert file_name([same]) == file_name([one])
    changes: list[dict[str, Any]] = [
        {"generated": 11},
        {"real": 6},
        {"reference": "s"},
        {"sampling": {"NFE": 3, "seed": 1}},
        {"metric_options": {"metrics": ["kid"]}},
        {"model": {**one.model, "weights": "action"}},
        {"model": {**one.model, "weights_sha256": "1"}},
        {"model": {**one.model, "weights_sha256": "2"}},
    ]
    assert len({file_name([Evaluation.from_dict({**one.to_dict(), **change})]) for change in [*changes, {}]}) == len(changes) + 1
    assert re.fullmatch(r"bpd-000000007-[0-9a-f]{10}\.json", file_name([one]))
    assert re.fullmatch(r"sweep-a-b-000000007-[0-9a-f]{10}\.json", file_name([scored(1.0, features={"name": "a:b"})] * 2))


def test_no_report_takes_the_place_of_another(trained: Path, tmp_path: Path) -> None:
    """Each of these says something else, and the page shows all; the first one again takes its own place."""
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    variants: list[list[str]] = [[], ["--raw"], ["--metrics", "fid,is"], ["--sweep", "steps=1,2"]]
    for arguments in [*variants, variants[0]]:
        outcome = run_cli("eval-fid", run, "--features", "digits", "-n", "10", "--batch-size", "10", *arguments)
        assert outcome.code == 0, outcome.err
    assert len(list((run / "eval").iterdir())) == len(variants)
    for arguments in ([], ["--probes", "1"]):
        outcome = run_cli("eval-bpd", run, "-n", "2", "--solver", "euler", "--steps", "2", "--batch-size", "2", *arguments)
        assert outcome.code == 0, outcome.err
    assert len(list((run / "eval").iterdir())) == len(variants) + 2
    assert len(collect(run).evaluations) == len(variants) + 1 + 2


def test_images_of_one_class_are_scored_against_that_class(tmp_path: Path) -> None:
    """By hand: images generated as class 3 against the 183 real threes. Where the data has no such class, the label is refused."""
    train(config.load("digits", [*TINY, "action.classes=10", "training.images=16"]), tmp_path / "run")
    outcome = run_cli("eval-fid", tmp_path / "run", "--features", "digits", "-n", "20", "--label", "3", "--json", tmp_path / "e.json")
    assert outcome.code == 0, outcome.err
    found = Evaluation.from_dict(json.loads((tmp_path / "e.json").read_text()))
    model, extractor, dataset = sampling.load(tmp_path / "run"), make_extractor("digits", 1, 8), open_dataset(DataConfig())
    threes = (dataset.labels == 3).nonzero()[:, 0].tolist()
    request = sampling.Request(label=3)
    images = torch.cat([batch.images for batch in sampling.generate_all(model, model.config.sampling, range(20), request)])
    expected = frechet_distance(extractor(images), extractor(dataset.images(threes)))
    assert found.principal.value == pytest.approx(expected, rel=1e-4)
    assert (found.real, found.reference) == (len(threes), "the embedded digits, class 3")
    assert f"reference: {len(threes)} real images of the embedded digits, class 3" in outcome.out
    with pytest.raises(UserError, match="label=3 is generated, but the real images .the embedded digits. are not of that class only"):
        evaluator()(model, model.config.sampling, 20, request)
    (tmp_path / "one").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "one" / "0.png")
    reference_from_images(dataset, extractor, ALONE).write(tmp_path / "all.npz")
    for arguments, message in (
        (["--label", "10"], "label=10: this model knows the classes 0 to 9"),
        (["--label", "3", "--data", str(tmp_path / "all.npz")], "holds statistics, which have no single images to choose from"),
        (["--label", "3", "--data", str(tmp_path / "one")], "has 1 classes where the model knows 10"),
        (["--label", "3", "--real", "184"], "the embedded digits, class 3 has 183"),
    ):
        outcome = run_cli("eval-fid", tmp_path / "run", "--features", "digits", *arguments)
        assert (outcome.code, outcome.err.count("\n"), message in outcome.err) == (2, 1, True), outcome.err


def test_values_of_a_sweep() -> None:
    assert parse_sweep(["tolerance=1e-3,0.1", "solver=dopri5"]) == [
        {"tolerance": 1e-3, "solver": "dopri5"},
        {"tolerance": 0.1, "solver": "dopri5"},
    ]


def test_statistics_files(tmp_path: Path, trained: Path) -> None:
    """Ours come back whole; others' mu and sigma give the same distance; wrong ones are refused in a line."""
    outcome = run_cli("reference-stats", "digits", "--features", "digits", "--out", tmp_path / "stats.npz")
    assert outcome.code == 0, outcome.err
    assert "1,797 images of the embedded digits, features digits, 64 dimensions" in outcome.out
    extractor = make_extractor("digits", 1, 8)
    direct, ours = reference_from_images(open_dataset(DataConfig()), extractor, ALONE), read_statistics(tmp_path / "stats.npz", extractor)
    assert torch.equal(direct.features, ours.features)  # type: ignore[arg-type]
    assert ours.count == 1797
    np.savez(tmp_path / "published.npz", mu=direct.moments.mean.numpy(), sigma=direct.moments.covariance.numpy())
    model = sampling.load(trained)
    published = read_statistics(tmp_path / "published.npz", extractor)
    values = [Evaluator(extractor, reference)(model, model.config.sampling, 20).principal.value for reference in (direct, ours, published)]
    assert values == pytest.approx([values[0]] * 3, rel=1e-9)
    evaluation = Evaluator(extractor, published)(model, model.config.sampling, 20)
    assert "reference: real images of " in "\n".join(evaluation.lines())

    def refused(message: str, **arrays: Any) -> None:
        np.savez(tmp_path / "wrong.npz", **arrays)
        with pytest.raises(UserError, match=message):
            read_statistics(tmp_path / "wrong.npz", extractor)

    refused("holds no 'mu' but m", m=np.zeros(3))
    refused(r"holds mu \(3,\) and sigma \(3, 3\): features=digits have 64 dimensions", mu=np.zeros(3), sigma=np.eye(3))
    refused("numbers that are not finite", mu=np.full(64, np.nan), sigma=np.eye(64))
    refused(r"sigma with the negative eigenvalue -1, so it is not a covariance", mu=np.zeros(64), sigma=np.diag([-1.0, *[1.0] * 63]))
    refused(r"sigma that is not symmetric \(by 1\), so it is not a covariance", mu=np.zeros(64), sigma=np.triu(np.ones((64, 64))))
    with pytest.raises(UserError, match="made with features name 'digits', not 'pixels'"):
        read_statistics(tmp_path / "stats.npz", make_extractor("pixels", 1, 8))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "stats.npz").read_bytes()[:500])
    for name in ("cut.npz", "absent.npz"):
        with pytest.raises(UserError, match="cannot read the statistics"):
            read_statistics(tmp_path / name, extractor)


def test_two_processes_agree_with_one(trained: Path, tmp_path: Path) -> None:
    """Every score to 1e-6 of its value, on another batch size too."""
    arguments = ["eval-fid", str(trained), "--features", "digits", "-n", "120", "--metrics", "all", "--kid-subset-size", "50"]
    outcome = run_cli(*arguments, "--json", tmp_path / "a.json")
    assert outcome.code == 0, outcome.err
    process = amgen_process(*arguments, "--batch-size", "17", "--json", tmp_path / "b.json", processes=2)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    one, two = (json.loads((tmp_path / name).read_text())["scores"] for name in ("a.json", "b.json"))
    assert [score["name"] for score in one] == [score["name"] for score in two]
    for first, second in zip(one, two, strict=True):
        assert second["value"] == pytest.approx(first["value"], rel=1e-6), first["name"]
        if first["standard_error"] is None:
            assert second["standard_error"] is None
        else:
            assert second["standard_error"] == pytest.approx(first["standard_error"], rel=1e-6), first["name"]


@pytest.fixture
def plots(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The axes of each plot."""
    found: list[Any] = []
    original = sweep.new_figure

    def new_figure(*arguments: Any) -> Any:
        figure, axes = original(*arguments)
        found.append(axes)
        return figure, axes

    monkeypatch.setattr(sweep, "new_figure", new_figure)
    return found


def curves(axes: Any) -> dict[str, tuple[list[float], list[float], list[float]]]:
    """Return x, y and the length of the error bars of each curve of a plot, by its name."""
    found = {}
    for container in axes.containers:
        line, _, (bars,) = container.lines
        ends = [segment[:, 1] for segment in bars.get_segments()]
        found[container.get_label()] = (line.get_xdata().tolist(), line.get_ydata().tolist(), [float(end[1] - end[0]) / 2 for end in ends])
    return found


def test_sweeps(trained: Path, tmp_path: Path, plots: list[Any]) -> None:
    outcome = run_cli(
        "eval-fid", trained, "--features", "digits", "--num", "20", "--sweep", "steps=2,3", "--sweep", "solver=euler,heun",
        "--json", tmp_path / "s.json", "--csv", tmp_path / "s.csv", "--plot", tmp_path / "s.png",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    stored = json.loads((tmp_path / "s.json").read_text())["evaluations"]
    assert [(entry["sampling"]["steps"], entry["sampling"]["solver"], entry["sampling"]["NFE"]) for entry in stored] == [
        (2, "euler", 2), (2, "heun", 4), (3, "euler", 3), (3, "heun", 6),
    ]  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "s.csv").read_text().splitlines()))
    values = [float(row["FD (digits features)"]) for row in rows]
    assert values == [entry["scores"][0]["value"] for entry in stored]
    for row, value in zip(rows, values, strict=True):
        beaten = any(int(other["NFE"]) <= int(row["NFE"]) and there < value for other, there in zip(rows, values, strict=True))
        assert row["pareto"] == str(not beaten)
    [axes] = plots
    assert (axes.get_xlabel(), axes.get_xscale()) == ("gradient evaluations per image (NFE)", "log")
    assert axes.get_ylabel() == "FD (digits features)"
    for name, places, costs in (("euler", (0, 2), [2, 3]), ("heun", (1, 3), [4, 6])):
        x, y, errors = curves(axes)[name]
        scores = [stored[place]["scores"][0] for place in places]
        assert (x, y) == (costs, [score["value"] for score in scores])
        assert errors == pytest.approx([score["standard_error"] for score in scores])
    with Image.open(tmp_path / "s.png") as image:
        assert (image.format, image.size) == ("PNG", (900, 600))  # 6 x 4 inches
    assert "4/4  steps 3, solver heun  NFE 6  FD (digits features)" in outcome.out


def test_sweeps_over_checkpoints(tmp_path: Path, plots: list[Any]) -> None:
    train(config.load("digits", [*TINY, "training.checkpoint_every=32", "training.keep_last=3"]), tmp_path / "run")
    steps = [checkpoints.step_of(folder) for folder in checkpoints.all_checkpoints(tmp_path / "run")]
    arguments = ["eval-fid", tmp_path / "run", "--features", "digits", "--num", "10", "--json", tmp_path / "c.json"]
    outcome = run_cli(*arguments, "--checkpoints", "all", "--plot", tmp_path / "c.svg")
    assert outcome.code == 0, outcome.err
    stored = json.loads((tmp_path / "c.json").read_text())["evaluations"]
    assert plots[0].get_xlabel() == "images trained on"
    [(x, y, _)] = curves(plots[0]).values()
    assert (x, y) == ([16 * step for step in steps], [entry["scores"][0]["value"] for entry in stored])
    assert "<svg" in (tmp_path / "c.svg").read_text()
    assert [entry["model"]["images_trained"] for entry in stored] == [16 * step for step in steps]
    outcome = run_cli(*arguments, "--checkpoints", f"{steps[0]},7777")
    assert (outcome.code, f"has no checkpoint of step 7777: choose all, or some of {steps[0]}" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweep", "stepz=1"], "did you mean 'steps'"),
        (["--sweep", "steps=1,"], "expected values such as steps=A,B"),
        (["--sweep", "steps=0,1"], "steps=0: expected a number greater than 0"),
        (["--sweep", "steps=1,2", "--sweep", "steps=3"], "steps is given twice"),
        (["--metrics", "fidd"], "unknown metric 'fidd'"),
        (["--sweep", "tolerance=1e-2,1e-3"], "--sweep tolerance: the solver ab2 takes a fixed number of --steps"),
        (["--sweep", "steps=1,2", "--solver", "dopri5"], "--sweep steps: the solver dopri5 chooses its own steps by --tolerance"),
        (["--sweep", "solver=heun,bosh3", "--sweep", "steps=1,2"], "--sweep steps: the solver bosh3 chooses its own steps"),
        (["--sweep", "rho=1,2"], "--sweep rho: it is the exponent of --step-grid polynomial, and the steps are uniform"),
        (["--tolerance", "0.1"], "--tolerance 0.1: the solver ab2 takes a fixed number of --steps"),
        (["--raw", "--ema", "0.99"], "--raw and --ema each say which weights to use: give one of them"),
        (["--ema", "0.99", "--raw"], "--raw and --ema each say which weights to use: give one of them"),
        (["--label", "3"], "label=3: this model was trained without classes"),
        (["--resize", "squash"], "resize='squash': expected 'forbid', 'crop' or 'stretch'"),
        (["--plot", "plot.txt"], "expected a file name that ends in .png, .pdf, .svg"),
        (["--data", "absent.npz"], "cannot read the statistics absent.npz"),
        (["--data", "absent"], "does not exist"),
        (["--real", "5000"], "5,000 real images are requested"),
        (["--num", "0"], "--num 0: expected at least 1"),
        (["--neighbours", "pairs.png"], "shows the result of metrics=nearest: add it"),
        (["--held-out", "digits"], "held-out images are for metrics=nearest: add it"),
    ],
)
def test_mistakes_cost_one_line(trained: Path, arguments: list[str], message: str) -> None:
    outcome = run_cli("eval-fid", trained, "--features", "digits", *arguments)
    assert (outcome.code, outcome.err.count("\n"), message in outcome.err) == (2, 1, True), outcome.err


def test_lines_of_a_plot() -> None:
    settings = [
        {"solver": "euler", "steps": 1, "guidance": 2},
        {"solver": "euler", "steps": 2, "guidance": 2},
        {"solver": "heun", "steps": 1},
    ]
    assert sweep._lines(settings, trained=False) == {"euler, guidance 2": [0, 1], "heun": [2]}


def test_pareto_of_a_score_that_should_be_high() -> None:
    def scored(value: float, nfe: int) -> Evaluation:
        score = Score("precision", value, lower_is_better=False)
        return Evaluation([score], 1, 1, "", None, {"images_trained": 0}, {"NFE": nfe}, {})

    neither = Evaluation([Score("nearness", 0.5, lower_is_better=None)], 1, 1, "", None, {"images_trained": 0}, {"NFE": 1}, {})
    assert table([neither], [{}])[0]["pareto"] is False
    rows = table([scored(0.5, 4), scored(0.4, 8), scored(0.6, 8)], [{}, {}, {}])
    assert [row["pareto"] for row in rows] == [True, False, True]


def test_held_out_images_and_pairs(trained: Path, tmp_path: Path) -> None:
    """Held-out images that are the training images look like copies, so nothing is nearer than they."""
    outcome = run_cli(
        "eval-fid", trained, "--features", "digits", "--num", "40", "--metrics", "nearest", "--held-out", "digits",
        "--json", tmp_path / "n.json", "--neighbours", tmp_path / "pairs.png",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    (score,) = json.loads((tmp_path / "n.json").read_text())["scores"]
    assert score["value"] < 0.05
    assert "biased" not in outcome.out
    pairs = score["details"]["pairs"]
    assert len(pairs) == 16
    model, dataset = sampling.load(trained), open_dataset(DataConfig())
    images = torch.cat([batch.images for batch in sampling.generate_all(model, model.config.sampling, range(40), sampling.Request())])
    features = make_extractor("digits", 1, 8)
    distances = torch.cdist(features(images), features(dataset.images(range(1797))))
    assert [pair[1] for pair in pairs] == distances.argmin(dim=1)[[pair[0] for pair in pairs]].tolist()
    assert [pair[0] for pair in pairs] == distances.amin(dim=1).argsort()[:16].tolist()
    expected = image_grid(images[[pair[0] for pair in pairs]], dataset.images([pair[1] for pair in pairs]), columns=8)
    with Image.open(tmp_path / "pairs.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_restored_images_are_compared_with_the_truth(tmp_path: Path) -> None:
    train(config.load("digits", [*TINY, "path.kind=super-resolution"]), tmp_path / "run")
    model = sampling.load(tmp_path / "run")
    dataset = open_dataset(model.config.data)
    evaluation = evaluator()(model, model.options({"batch_size": 8}), 20, sampling.Request(images=dataset))
    scores = by_name(evaluation)
    assert {"PSNR", "SSIM", "PSNR (bilinear)", "SSIM (bicubic)", "FD (digits features) of bilinear"} <= set(scores)
    request = sampling.Request(images=dataset)
    batch = sampling.generate(model, model.config.sampling, range(20), request)
    assert batch.truths is not None
    error = (batch.images.double() - batch.truths.double()).square().mean()
    assert scores["PSNR"].value == pytest.approx(float(10 * (255**2 / error).log10()), rel=1e-6)
    assert not scores["PSNR"].lower_is_better


def test_evaluation_while_training(tmp_path: Path) -> None:
    """Scores are written, the best weights are kept, and impossible metrics are refused before the first step."""
    scored = ["evaluation.every=32", "evaluation.features=digits", "evaluation.num=20"]
    train(config.load("digits", [*TINY, *scored]), tmp_path / "run")
    files = sorted((tmp_path / "run" / "eval").iterdir())
    assert [file.name for file in files] == [f"training-digits-{images:09d}.json" for images in (32, 64, 96)]
    values = {json.loads(file.read_text())["model"]["images_trained"]: json.loads(file.read_text())["scores"][0]["value"] for file in files}
    best = tmp_path / "run" / "checkpoints" / "best"
    assert json.loads((best / "evaluation.json").read_text())["scores"][0]["value"] == min(values.values())
    model = sampling.load(best)
    assert json.loads((best / "evaluation.json").read_text())["model"]["weights_sha256"] == model.weights_sha256
    assert values[model.images] == min(values.values())
    again = evaluator()(model, model.config.sampling, 20, sampling.Request(model.config.seed))
    assert again.principal.value == pytest.approx(min(values.values()), rel=1e-6)
    assert sampling.load(tmp_path / "run").images == 96
    with pytest.raises(UserError, match="at least 8 generated"):
        train(config.load("digits", [*TINY, *scored, "evaluation.num=1"]), tmp_path / "other")
    assert not (tmp_path / "other" / "checkpoints").exists()
