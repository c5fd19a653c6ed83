"""Scoring models: the same figures whoever shares the work, every condition told, nothing left to chance."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TINY, amgen_process, run_cli
from PIL import Image

from amgen import checkpoints, config, sampling
from amgen.config import DataConfig
from amgen.data import open_dataset
from amgen.errors import UserError
from amgen.evaluation import sweep
from amgen.evaluation.evaluate import METRICS, Choices, Evaluator, chosen_metrics
from amgen.evaluation.features import FeatureExtractor, make_extractor
from amgen.evaluation.metrics import Figure, frechet_distance
from amgen.evaluation.reference import Moments, Reference, cached, of_images, read
from amgen.evaluation.report import Evaluation, table
from amgen.processes import Processes
from amgen.training.main import train

ALONE = Processes()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the cache of the tests apart from the user's."""
    monkeypatch.setenv("AMGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def evaluator(name: str = "digits", metrics: Sequence[str] = ("fid",), **choices: int) -> Evaluator:
    extractor = make_extractor(name, 1, 8)
    return Evaluator(extractor, of_images(open_dataset(DataConfig()), extractor, ALONE), Choices(metrics, **choices))


def by_name(evaluation: Evaluation) -> dict[str, Figure]:
    return {figure.name: figure for figure in evaluation.figures}


@pytest.mark.parametrize("name", ["digits", "pixels"])
def test_report_carries_its_conditions(name: str, trained: Path) -> None:
    model = sampling.load(trained)
    measure = evaluator(name)
    evaluation = measure(model, model.options({"solver": "heun", "steps": 3}), 50)
    label = measure.extractor.metric
    assert label != "FID"
    assert (evaluation.generated, evaluation.real, evaluation.sampling["NFE"]) == (50, 1797, 6)
    figures = by_name(evaluation)
    assert list(figures) == [label, f"{label} at infinite n", f"{label} at n = 50 a side"]
    stored = json.loads(json.dumps(evaluation.to_dict()))
    assert stored["features"]["name"] == name
    matched = stored["figures"][2]["details"]
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
    """A model that draws the training images: no distance, full precision and recall, and nearness that tells copies."""
    model = sampling.load(trained)
    measure = evaluator(metrics=METRICS, kid_subset_size=500, kid_subsets=10)
    real = measure.reference.features
    assert real is not None
    copies = iter([real[:1797]])
    measure.extractor.__class__ = type("Copies", (type(measure.extractor),), {"__call__": lambda self, images: next(copies)})
    figures = by_name(measure(model, model.options({"batch_size": 1797}), 1797))
    label = "(digits features)"
    assert figures[f"FD {label}"].value == pytest.approx(0, abs=1e-4)
    assert abs(figures[f"KID {label}"].value) < 3 * figures[f"KID {label}"].standard_error  # type: ignore[operator]
    assert figures[f"precision {label}"].value == figures[f"recall {label}"].value == 1
    assert 7 < figures[f"IS {label}"].value < 10  # ten digits, recognised by a classifier that was taught to doubt
    nearness = figures[f"nearness to training images {label}"]
    assert nearness.value > 0.99
    assert [pair[0] for pair in nearness.details["pairs"]] == [pair[1] for pair in nearness.details["pairs"]]


def test_what_cannot_be_measured_is_refused_before_anything_is_drawn(trained: Path) -> None:
    model = sampling.load(trained)

    def refused(message: str, num: int, *metrics: str, **choices: int) -> None:
        with pytest.raises(UserError, match=message):
            evaluator("digits", metrics, **choices)(model, model.config.sampling, num)

    refused("need at least 8 generated and 4 real images, not 7 and 7", 7, "fid")
    refused("KID subsets of 1000 images need as many on each side, not 60: set the size of a subset to 30", 60, "kid")
    refused("kid_subset_size=1: the estimate needs at least 2", 60, "kid", kid_subset_size=1)
    refused("mean over 10 parts: draw at least as many images, not 9", 9, "is")
    with pytest.raises(UserError, match="metrics=is need features with classes, which features=pixels have not"):
        evaluator("pixels", ["is"])
    pixels = make_extractor("pixels", 1, 8)
    moments = Reference({"description": "m.npz", "n": None}, Moments(torch.zeros(64), torch.eye(64)))
    with pytest.raises(UserError, match="metrics=kid need the features of the real images, and m.npz holds their moments alone"):
        Evaluator(pixels, moments, Choices(("kid",)))
    assert chosen_metrics("all", pixels, moments) == ("fid",)
    with pytest.raises(UserError, match="unknown metric 'kidd'"):
        chosen_metrics("fid,kidd", pixels, moments)


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
    """Unbalanced dynamics: an untrained action with one class made heavy; both sides are drawn by weight."""
    masses = "data.masses={end: [100, 1, 1, 1, 1, 1, 1, 1, 1, 1]}"
    train(config.load("digits-unbalanced", [*TINY, masses]), tmp_path / "run")
    model = sampling.load(tmp_path / "run")
    evaluation = evaluator()(model, model.config.sampling, 60)
    assert any("effective sample size" in warning for warning in evaluation.warnings)
    assert [figure.standard_error for figure in evaluation.figures] == [None, None]
    extractor = make_extractor("digits", 1, 8)
    assert chosen_metrics("all", extractor, evaluator().reference, weighted=True) == ("fid", "is", "nearest")
    with pytest.raises(UserError, match="metrics=kid need images that count the same"):
        evaluator(metrics=["kid"])(model, model.config.sampling, 60)
    # By hand: zeros make up 100/109 of the reference.
    measure = evaluator()
    seen: list[Any] = []
    chosen = Reference.chosen
    Reference.chosen = lambda self, positions: seen.append(list(positions)) or chosen(self, positions)  # type: ignore[method-assign, func-returns-value]
    try:
        measure(model, model.config.sampling, 60)
    finally:
        Reference.chosen = chosen  # type: ignore[method-assign]
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
    first = of_images(dataset, counting, ALONE, 40)
    assert sum(calls) == 40
    again = of_images(dataset, counting, ALONE, 40)
    assert sum(calls) == 40
    assert torch.equal(first.features, again.features)  # type: ignore[arg-type]
    assert first.indices == again.indices
    assert torch.equal(extractor(dataset.images(first.indices)), first.features)  # type: ignore[arg-type]
    # Another number, data, or set of weights is another reference; a damaged file is made again.
    of_images(dataset, counting, ALONE, 41)
    assert sum(calls) == 81
    counting.checksum = "other weights"
    of_images(dataset, counting, ALONE, 40)
    assert sum(calls) == 121
    file = cached(first.about)
    file.write_bytes(file.read_bytes()[:1000])
    assert torch.equal(of_images(dataset, extractor, ALONE, 40).features, first.features)  # type: ignore[arg-type]
    before = sorted(cache.iterdir())
    of_images(dataset, counting, ALONE, 12, cache=False)
    assert sorted(cache.iterdir()) == before
    with pytest.raises(UserError, match="1,798 real images are asked for, and the embedded digits has 1,797"):
        of_images(dataset, extractor, ALONE, 1798)


def test_images_of_equal_size_are_told_apart(tmp_path: Path) -> None:
    """Uncompressed files have equal names and sizes, whatever they show."""
    extractor, found = make_extractor("pixels", 1, 8), []
    for name, value in {"dark": 10, "light": 200}.items():
        (tmp_path / name).mkdir()
        for index in range(4):
            Image.new("L", (8, 8), value + index).save(tmp_path / name / f"{index}.bmp")
        found.append(of_images(open_dataset(DataConfig(path=str(tmp_path / name))), extractor, ALONE).features)
    assert float((found[1] - found[0]).mean()) > 1


def test_exported_weights_are_scored(trained: Path, tmp_path: Path) -> None:
    assert run_cli("export", trained, "--out", tmp_path / "model.safetensors").code == 0
    outcome = run_cli("eval-fid", tmp_path / "model.safetensors", "--features", "digits", "--num", "10", "--json", tmp_path / "e.json")
    assert outcome.code == 0, outcome.err


def test_best_weights_are_compared_under_equal_conditions() -> None:
    def scored(value: float, **changes: Any) -> Evaluation:
        conditions: dict[str, Any] = {"generated": 10, "real": 5, "reference": "r", "features": None, "sampling": {"NFE": 3}, **changes}
        return Evaluation(figures=[Figure("FID", value)], model={}, seconds={}, **conditions)

    one = scored(2.0)
    assert Evaluation.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert one.comparable(scored(3.0))
    assert not any(one.comparable(scored(3.0, **change)) for change in ({"generated": 11}, {"reference": "s"}, {"sampling": {"NFE": 4}}))


def test_values_of_a_sweep() -> None:
    assert sweep.parse(["tolerance=1e-3,0.1", "solver=dopri5"]) == [
        {"tolerance": 1e-3, "solver": "dopri5"},
        {"tolerance": 0.1, "solver": "dopri5"},
    ]


def test_statistics_files(tmp_path: Path, trained: Path) -> None:
    """Ours come back whole; others' mu and sigma give the same distance; wrong ones are refused in a line."""
    outcome = run_cli("reference-stats", "digits", "--features", "digits", "--out", tmp_path / "stats.npz")
    assert outcome.code == 0, outcome.err
    assert "1,797 images of the embedded digits, features digits, 64 dimensions" in outcome.out
    extractor = make_extractor("digits", 1, 8)
    direct, ours = of_images(open_dataset(DataConfig()), extractor, ALONE), read(tmp_path / "stats.npz", extractor)
    assert torch.equal(direct.features, ours.features)  # type: ignore[arg-type]
    assert ours.count == 1797
    np.savez(tmp_path / "published.npz", mu=direct.moments.mean.numpy(), sigma=direct.moments.covariance.numpy())
    model = sampling.load(trained)
    published = read(tmp_path / "published.npz", extractor)
    values = [Evaluator(extractor, reference)(model, model.config.sampling, 20).principal.value for reference in (direct, ours, published)]
    assert values == pytest.approx([values[0]] * 3, rel=1e-9)
    evaluation = Evaluator(extractor, published)(model, model.config.sampling, 20)
    assert "reference: real images of " in "\n".join(evaluation.lines())

    def refused(message: str, **arrays: Any) -> None:
        np.savez(tmp_path / "wrong.npz", **arrays)
        with pytest.raises(UserError, match=message):
            read(tmp_path / "wrong.npz", extractor)

    refused("holds no 'mu' but m", m=np.zeros(3))
    refused(r"holds mu \(3,\) and sigma \(3, 3\): features=digits have 64 dimensions", mu=np.zeros(3), sigma=np.eye(3))
    refused("numbers that are not finite", mu=np.full(64, np.nan), sigma=np.eye(64))
    with pytest.raises(UserError, match="made with features name 'digits', not 'pixels'"):
        read(tmp_path / "stats.npz", make_extractor("pixels", 1, 8))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "stats.npz").read_bytes()[:500])
    for name in ("cut.npz", "absent.npz"):
        with pytest.raises(UserError, match="cannot read the statistics"):
            read(tmp_path / name, extractor)


def test_two_processes_agree_with_one(trained: Path, tmp_path: Path) -> None:
    """Every figure to 1e-6 of its value, on another batch size too."""
    arguments = ["eval-fid", str(trained), "--features", "digits", "-n", "120", "--metrics", "all", "--kid-subset-size", "50"]
    outcome = run_cli(*arguments, "--json", tmp_path / "a.json")
    assert outcome.code == 0, outcome.err
    process = amgen_process(*arguments, "--batch-size", "17", "--json", tmp_path / "b.json", processes=2)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    one, two = (json.loads((tmp_path / name).read_text())["figures"] for name in ("a.json", "b.json"))
    assert [figure["name"] for figure in one] == [figure["name"] for figure in two]
    for first, second in zip(one, two, strict=True):
        assert second["value"] == pytest.approx(first["value"], rel=1e-6), first["name"]
        if first["standard_error"] is None:
            assert second["standard_error"] is None
        else:
            assert second["standard_error"] == pytest.approx(first["standard_error"], rel=1e-6), first["name"]


def test_sweeps(trained: Path, tmp_path: Path) -> None:
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
    assert values == [entry["figures"][0]["value"] for entry in stored]
    for row, value in zip(rows, values, strict=True):
        beaten = any(int(other["NFE"]) <= int(row["NFE"]) and there < value for other, there in zip(rows, values, strict=True))
        assert row["pareto"] == str(not beaten)
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.width > 500
    assert "4/4  steps 3, solver heun  NFE 6  FD (digits features)" in outcome.out


def test_sweeps_over_checkpoints(tmp_path: Path) -> None:
    train(config.load("digits", [*TINY, "training.checkpoint_every=32", "training.keep_last=3"]), tmp_path / "run")
    steps = [checkpoints.step_of(folder) for folder in checkpoints.all_checkpoints(tmp_path / "run")]
    arguments = ["eval-fid", tmp_path / "run", "--features", "digits", "--num", "10", "--json", tmp_path / "c.json"]
    outcome = run_cli(*arguments, "--checkpoints", "all", "--plot", tmp_path / "c.png")
    assert outcome.code == 0, outcome.err
    stored = json.loads((tmp_path / "c.json").read_text())["evaluations"]
    assert [entry["model"]["images_trained"] for entry in stored] == [16 * step for step in steps]
    outcome = run_cli(*arguments, "--checkpoints", f"{steps[0]},7777")
    assert (outcome.code, f"has no checkpoint of step 7777: choose all, or some of {steps[0]}" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweep", "stepz=1"], "did you mean 'steps'"),
        (["--sweep", "steps=1,"], "expected values such as steps=A,B"),
        (["--sweep", "steps=0,1"], "steps=0: input should be greater than 0"),
        (["--sweep", "steps=1,2", "--sweep", "steps=3"], "steps is swept over already"),
        (["--metrics", "fidd"], "unknown metric 'fidd'"),
        (["--plot", "plot.txt"], "expected a file name that ends in .png, .pdf, .svg"),
        (["--data", "absent.npz"], "cannot read the statistics absent.npz"),
        (["--data", "absent"], "does not exist"),
        (["--real", "5000"], "5,000 real images are asked for"),
        (["--num", "0"], "--num 0: expected at least 1"),
        (["--neighbours", "pairs.png"], "shows what metrics=nearest found: add it"),
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


def test_pareto_of_a_figure_that_should_be_high() -> None:
    def scored(value: float, nfe: int) -> Evaluation:
        figure = Figure("precision", value, lower_is_better=False)
        return Evaluation([figure], 1, 1, "", None, {"images_trained": 0}, {"NFE": nfe}, {})

    neither = Evaluation([Figure("nearness", 0.5, lower_is_better=None)], 1, 1, "", None, {"images_trained": 0}, {"NFE": 1}, {})
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
    (figure,) = json.loads((tmp_path / "n.json").read_text())["figures"]
    assert figure["value"] < 0.05
    assert "biased" not in outcome.out
    assert len(figure["details"]["pairs"]) == 16
    with Image.open(tmp_path / "pairs.png") as picture:
        assert picture.width >= picture.height > 30


def test_restored_images_are_compared_with_the_truth(tmp_path: Path) -> None:
    train(config.load("digits", [*TINY, "path.kind=super-resolution"]), tmp_path / "run")
    model = sampling.load(tmp_path / "run")
    dataset = open_dataset(model.config.data)
    evaluation = evaluator()(model, model.options({"batch_size": 8}), 20, sampling.Request(images=dataset))
    figures = by_name(evaluation)
    assert {"PSNR", "SSIM", "PSNR (bilinear)", "SSIM (bicubic)", "FD (digits features) of bilinear"} <= set(figures)
    request = sampling.Request(images=dataset)
    batch = sampling.generate(model, sampling.solver_of(model.config.sampling), range(20), request)
    assert batch.truths is not None
    error = (batch.images.double() - batch.truths.double()).square().mean()
    assert figures["PSNR"].value == pytest.approx(float(10 * (255**2 / error).log10()), rel=1e-6)
    assert not figures["PSNR"].lower_is_better


def test_evaluation_while_training(tmp_path: Path) -> None:
    """Scores are written, the best weights kept, and what cannot be measured is found before the first step."""
    scored = ["evaluation.every=32", "evaluation.features=digits", "evaluation.num=20"]
    train(config.load("digits", [*TINY, *scored]), tmp_path / "run")
    files = sorted((tmp_path / "run" / "eval").iterdir())
    assert [file.name for file in files] == [f"training-digits-{images:09d}.json" for images in (32, 64, 96)]
    values = {
        json.loads(file.read_text())["model"]["images_trained"]: json.loads(file.read_text())["figures"][0]["value"] for file in files
    }
    best = tmp_path / "run" / "checkpoints" / "best"
    assert json.loads((best / "evaluation.json").read_text())["figures"][0]["value"] == min(values.values())
    model = sampling.load(best)
    assert json.loads((best / "evaluation.json").read_text())["model"]["weights_sha256"] == model.weights_sha256
    assert values[model.images] == min(values.values())
    again = evaluator()(model, model.config.sampling, 20, sampling.Request(model.config.seed))
    assert again.principal.value == pytest.approx(min(values.values()), rel=1e-6)
    assert sampling.load(tmp_path / "run").images == 96
    with pytest.raises(UserError, match="at least 8 generated"):
        train(config.load("digits", [*TINY, *scored, "evaluation.num=1"]), tmp_path / "other")
    assert not (tmp_path / "other" / "checkpoints").exists()
