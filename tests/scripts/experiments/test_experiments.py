"""The experiments end to end on runs of a second: their tables, reports and figures are whole, and what they compute is right."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import cells
import cells_baselines
import class_histogram
import compare_images
import complete_images
import couplings
import entropic
import gradient_variance
import hydrogen
import numpy as np
import pytest
import torch
import unbalanced
from helpers import TINY, markdown_tables, sets
from PIL import Image
from torch import Tensor

from amgen import config, sampling
from amgen.data.systems.mixture import Mixture
from amgen.data.tables import read_table
from amgen.evaluation.distances import wasserstein
from amgen.sampling import Request
from amgen.training.main import train

TINY_MLP = [
    "action.width=8",
    "action.depth=1",
    "training.images=64",
    "training.batch_size=32",
    "training.warmup_images=32",
    "training.decay=0",
    "training.log_every=32",
    "training.sample_every=0",
]
ONE_STEP = ["training.images=16", "training.warmup_images=0", "training.log_every=16", "training.sample_every=0"]
FEW = ["data.particles=60", "data.snapshots=4"]


def tables_of(
    main: Callable[[Sequence[str]], None], arguments: Sequence[str | Path], capsys: pytest.CaptureFixture[str]
) -> list[list[list[str]]]:
    """Return the rows of the tables that a script prints, without the headings."""
    main(list(map(str, arguments)))
    return [rows for _, *rows in markdown_tables(capsys.readouterr().out)]


def outputs(folder: Path) -> list[str | Path]:
    return ["--json", folder / "report.json", "--figure", folder / "figure.png"]


def report_of(folder: Path) -> dict[str, object]:
    """Return the report, once there is a figure beside it."""
    with Image.open(folder / "figure.png") as figure:
        assert figure.width > 300
    report: dict[str, object] = json.loads((folder / "report.json").read_text())
    return report


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own, in forward derivatives
def test_hydrogen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Points that do not move are farther from the truth than independent samples of it."""
    pytest.importorskip("matplotlib")
    train(config.load("hydrogen", [*TINY_MLP, *FEW]), tmp_path / "run")
    small = ["--num", "60", "--times", "2", "--steps", "1", "--score-samples", "1000"]
    capsys.readouterr()
    (rows,) = tables_of(hydrogen.main, [tmp_path / "run", *small, *outputs(tmp_path)], capsys)
    report = report_of(tmp_path)
    assert [row[0] for row in rows] == list(report["mean"])  # type: ignore[call-overload]
    assert [row[0] for row in rows][-2:] == ["not moved", "independent samples (floor)"]
    means = {row[0]: float(row[1].partition(" ±")[0]) for row in rows}
    assert means == {name: pytest.approx(value, rel=0.01) for name, value in report["mean"].items()}  # type: ignore[attr-defined]
    assert means["not moved"] > means["independent samples (floor)"]
    assert report["NFE"] == 8  # two times, a step of rk4 each
    with pytest.raises(SystemExit):
        hydrogen.main([str(tmp_path / "run"), "--seed", "0"])
    assert "--seed 0 is that of the training samples: choose another" in capsys.readouterr().err


def test_unbalanced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    train(config.load("mixture-unbalanced", [*TINY_MLP, *FEW]), tmp_path / "run")
    capsys.readouterr()
    (rows,) = tables_of(unbalanced.main, [tmp_path / "run", "--num", "40", *outputs(tmp_path)], capsys)
    report = report_of(tmp_path)
    assert [row[0] for row in rows] == ["exact", "uAM", "AM"]
    assert rows[0][1] == "0.100 0.300 0.600"
    assert [float(share) for share in rows[1][1].split()] == pytest.approx(report["uAM"]["shares"], abs=1e-3)  # type: ignore[index]
    assert (rows[2][4], rows[2][6]) == ("40", "1.000")  # all points of balanced dynamics have the same weight
    assert (tmp_path / "run-balanced" / "config.yaml").is_file()


def test_shares_of_components() -> None:
    """Points at the centres of the components count as much as their weights."""
    mixture = Mixture()
    points = np.asarray(mixture.centres, float)[[0, 1, 1, 2]]
    assert unbalanced.shares_of(mixture, points, np.array([2.0, 1, 1, 4])) == pytest.approx([0.25, 0.25, 0.5])


def test_entropic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At t = 0 the population is a sample of the exact one."""
    pytest.importorskip("matplotlib")
    train(config.load("ornstein-uhlenbeck", [*TINY_MLP, *FEW]), tmp_path / "run")
    capsys.readouterr()
    (rows,) = tables_of(entropic.main, [tmp_path / "run", "--num", "400", "--steps", "1", *outputs(tmp_path)], capsys)
    assert [row[0] for row in rows] == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    found, exact = ([float(number) for number in cell.split()] for cell in rows[0][3:5])
    assert found == pytest.approx(exact, abs=4 * 0.64**0.5 / 400**0.5)
    assert len(report_of(tmp_path)["times"]) == 5  # type: ignore[arg-type]


def test_a_run_of_another_preset_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for module, preset in ((hydrogen, "hydrogen"), (unbalanced, "mixture-unbalanced"), (entropic, "ornstein-uhlenbeck")):
        with pytest.raises(SystemExit) as ended:
            module.main([str(trained)])
        assert ended.value.code == 2
        assert capsys.readouterr().err == f"scripts/experiments/{module.__name__}.py: {trained} is not a run of the preset {preset}\n"


class StandIn:
    """In place of torchcfm's matcher: random pairs, as without transport."""

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma

    def sample_location_and_conditional_flow(self, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t = torch.rand(len(start))
        return t, torch.lerp(start, end, t[:, None]) + self.sigma * torch.randn_like(start), end - start


def test_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Three clouds that move at a constant velocity: the displacement interpolation of the outer ones is the middle one."""
    pytest.importorskip("ot")
    pytest.importorskip("matplotlib")
    matcher = ModuleType("torchcfm.conditional_flow_matching")
    matcher.ExactOptimalTransportConditionalFlowMatcher = StandIn  # type: ignore[attr-defined]
    package = ModuleType("torchcfm")
    package.__spec__ = sys.__spec__
    monkeypatch.setitem(sys.modules, "torchcfm", package)
    monkeypatch.setitem(sys.modules, "torchcfm.conditional_flow_matching", matcher)
    table, start = tmp_path / "cells.csv", np.random.default_rng(0).normal(size=(40, 2))
    lines = [f"{time},{x},{y}" for time in range(3) for x, y in start + np.array([time, 0.5 * time])]
    table.write_text("\n".join(["samples,a,b", *lines]) + "\n")
    changes = ["data.dimension=2", "coupling.group=32", *(option for option in TINY_MLP if "sample_every" not in option)]
    small = ["--seeds", "1", "--images", "32", "--runs", tmp_path / "runs", *sets(changes)]
    distances, masses = tables_of(cells.main, ["--data", table, *small, *outputs(tmp_path)], capsys)
    assert [row[0] for row in distances] == ["not moved", "displacement, OT", *cells.METHODS, "OT-CFM"]
    assert float(distances[0][1]) == pytest.approx(wasserstein(start, start + np.array([1, 0.5]), 1), abs=1e-4)
    assert float(distances[1][1]) == pytest.approx(0, abs=1e-4)
    assert [row[:2] for row in masses] == [["0", "1.000"], ["1", "1.000"], ["2", "1.000"]]
    assert masses[0][2] == "1.000"
    report = report_of(tmp_path)
    assert len(report["population"]) == 1  # type: ignore[arg-type]
    assert report["mean"].keys() == {row[0] for row in distances}  # type: ignore[attr-defined]


def test_errors_of_means() -> None:
    """Over seeds, those of a mean of 1 and 3; over times, the root of the sum of squares divided by their number."""
    first = cells.average([dict.fromkeys(cells.METRICS, value) for value in (1.0, 3.0)])
    second = cells.average([dict.fromkeys(cells.METRICS, 4.0)])
    assert (first["W1"], first["W1 error"], second["W1"], second["W1 error"]) == (2, pytest.approx(1), 4, 0)
    both = cells.average([first, second])
    assert (both["W2"], both["W2 error"]) == (3, pytest.approx(0.5))
    assert cells.cells_of(both) == ["3.0000 ± 0.5000"] * 3
    assert cells.cells_of(second)[0] == "4.0000"


def test_the_table_of_cells(amgen_data: Path) -> None:
    """3,133 rows of ten columns at four times; the W1 of the cells that are not moved is that of the documentation."""
    pytest.importorskip("ot")
    table = read_table(config.SnapshotsConfig(path=str(amgen_data / "emt.csv"), time_key="samples", dimension=10))
    assert list(table.times) == [0, 1, 2, 3]
    assert sum(map(len, table.points)) == 3133
    rows = [cells.measure((table.points[place - 1], None), table, table.times[place]) for place in (1, 2)]
    assert cells.average(rows)["W1"] == pytest.approx(0.3732, abs=1e-4)
    points, weights = cells_baselines.displacement(table, 1)
    assert cells.measure((points, weights), table, table.times[1]).keys() == set(cells.METRICS)


def test_class_histogram(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (rows,) = tables_of(class_histogram.main, [trained, "--num", "40"], capsys)
    *classes, distances = rows
    assert [row[0] for row in classes] == list(map(str, range(10)))
    assert distances[:3] == ["distance from the target", "0.000", "0.000"]
    columns = [[float(row[column].partition(" ±")[0]) for row in classes] for column in range(1, 5)]
    assert list(map(sum, columns)) == pytest.approx([1, 1, 1, 1], abs=5e-3)
    assert columns[2] == columns[3]  # images of balanced dynamics have equal weights
    assert float(distances[3]) == pytest.approx(0.5 * sum(abs(a - b) for a, b in zip(columns[1], columns[2], strict=True)), abs=5e-3)


def test_weighted_means() -> None:
    """Of 0, 0, 1 by the weights 1, 1, 2: 1/2, whose error is sqrt((2/16 + 4/16) / 4)."""
    mean, error = class_histogram.weighted_mean(torch.tensor([[0.0], [0], [1]]).double(), torch.tensor([1.0, 1, 2]).double().log())
    assert (float(mean), float(error)) == pytest.approx((0.5, 6**0.5 / 8))


def test_complete_images(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Samples of an image differ where it was painted, and in nothing else."""
    run = tmp_path / "run"
    train(config.load("digits", [*TINY, *ONE_STEP, "path.kind=in-painting", "path.region=box"]), run)
    capsys.readouterr()
    (rows,) = tables_of(complete_images.main, [run, "--num", "12", "--samples", "2", "--grid", tmp_path / "grid.png"], capsys)
    assert [row[0] for row in rows][:2] == ["one sample", "mean of 2 samples"]
    psnr = {row[0]: float(row[1].partition(" ±")[0]) for row in rows}
    assert 5 < psnr["one sample"] < psnr["mean of 2 samples"] < 60
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width > 8 * 8
    model = sampling.load(run)
    request = Request(images=sampling.start_images(model, None))
    (first, second), _, truths = complete_images.generate(model, range(12), request, 2)
    differs = (first != second).flatten(1).float().mean(dim=1)
    assert (differs > 0).all()
    assert (differs < 0.6).all()
    same = first == second  # by chance in some painted pixels, too
    assert (first[same] == truths[same]).float().mean() > 0.98
    with pytest.raises(SystemExit):
        complete_images.main([str(trained), "--grid", str(tmp_path / "other.png")])
    assert "starts from noise alone" in capsys.readouterr().err


def test_compare_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, level in (("a", 10), ("b", 12)):
        (tmp_path / folder).mkdir()
        for name in ("0.png", "1.png"):
            Image.new("L", (4, 4), level if name == "0.png" else 10).save(tmp_path / folder / name)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert tables_of(compare_images.main, [a, a], capsys) == [[["2", "0", "0 of 32"]]]
    assert tables_of(compare_images.main, [a, b, "--most", "2"], capsys) == [[["2", "2", "16 of 32"]]]
    with pytest.raises(SystemExit) as ended:
        compare_images.main([a, b])
    assert ended.value.code == 1
    (tmp_path / "b" / "1.png").unlink()
    with pytest.raises(SystemExit) as ended:
        compare_images.main([a, b])
    assert ended.value.code == 2
    assert "expected the same names" in capsys.readouterr().err


def test_couplings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AMGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(couplings, "SOLVERS", (("midpoint", 3),))
    changes = sets([*(option for option in TINY if not option.startswith("coupling")), *ONE_STEP])
    (rows,) = tables_of(couplings.main, ["--runs", tmp_path, "--num", "16", "--seeds", "0", "1", *changes], capsys)
    assert [row[:4] for row in rows] == [["ot", "midpoint", "3", "6"], ["independent", "midpoint", "3", "6"]]
    assert all(" ± " in row[4] for row in rows)
    kinds = {name: sampling.load(tmp_path / f"{name}-1").config.coupling.kind for name in couplings.COUPLINGS}
    assert kinds == {"ot": "ot", "independent": "independent"}


def test_gradient_variance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each subject has the forms, the rules and the cells; ratios are those to the conditional form."""
    monkeypatch.setattr(gradient_variance, "BATCHES", {"digits": 4, "cells": 8})
    table = gradient_variance.two_gaussians(tmp_path / "table.csv", count=200)
    options = ["--steps", "1", "--batches", "4", "--paths", "linear", "--gaussians", "--table", table, "--rules", "gauss 2", "--cells", "3"]
    (rows,) = tables_of(gradient_variance.main, options, capsys)
    forms = ["conditional", "marginal", "marginal, gauss 2", "marginal, 3 cells"]
    subjects = [("digits, linear", "20"), ("digits, linear", "1000"), ("two Gaussians", "5"), ("table", "5")]
    assert [row[:3] for row in rows] == [[*subject, form] for subject in subjects for form in forms]
    for first in range(0, 16, 4):
        for row in rows[first : first + 4]:
            assert float(row[4]) == pytest.approx(float(row[3]) / float(rows[first][3]), rel=0.01, abs=0.01)


def test_variances_are_summed_over_parameters() -> None:
    """The gradients of (a b) in a and b are (b, a) times what a batch brings: 1, 2, 4, whose variance is 7/3."""
    a, b = torch.tensor([2.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    factors = [torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([4.0])]
    loss = lambda factor: Namespace(loss=factor * a * b)  # noqa: E731
    variance = gradient_variance.total_variance(loss, iter(factors), [a, b])  # type: ignore[arg-type]
    assert variance == pytest.approx(7 / 3 * (2**2 + 3**2))
