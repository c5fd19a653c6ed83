"""Populations of points through the same trainer and commands as images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_learned_the_same, assert_same_tensors, newest_tensors, run_cli, sets
from PIL import Image

from amgen import config, sampling
from amgen.config import Config
from amgen.core.errors import UserError
from amgen.data.systems.mixture import Mixture
from amgen.model import checkpoints
from amgen.sampling.populations import simulate_population
from amgen.training.main import train

TINY = [
    "action.width=8",
    "action.depth=1",
    "training.images=96",
    "training.batch_size=16",
    "training.warmup_images=64",
    "training.decay=0",
    "training.log_every=32",
    "training.sample_every=96",
    "sampling.steps=2",
    "sampling.grid=4",
]
CELLS = ["cells", "data.path=TABLE", "data.dimension=2"]
SIMULATED = ["data.particles=50", "data.snapshots=4"]
KINDS = {
    "mixture": ["mixture-unbalanced", *SIMULATED],
    "mixture marginal": ["mixture-unbalanced", *SIMULATED, "loss.form=marginal", "loss.boundaries=independent"],
    "entropic": ["ornstein-uhlenbeck", *SIMULATED, "loss.probes=2"],
    "hydrogen": ["hydrogen", *SIMULATED, "action.head=square", "times.kind=adaptive", "times.bins=2"],
    "cells": [*CELLS, "coupling.group=24", "data.hold_out=1"],
    "cells entropic": [*CELLS, "dynamics.kind=entropic", "path.noise=0.2", "sampling.solver=euler-maruyama"],
    "cells unbalanced": [*CELLS, "dynamics.kind=unbalanced", "data.mass_from_counts=true", "action.head=linear"],
    "cells wfr": [
        *CELLS,
        "path.kind=wfr",
        "coupling.kind=wfr",
        "data.mass_from_counts=true",
        "dynamics.kind=unbalanced",
        "dynamics.delta=auto",
    ],
    "cells wfr marginal": [
        *CELLS,
        "path.kind=wfr",
        "path.noise=0.1",
        "coupling.kind=wfr",
        "data.mass_from_counts=true",
        "dynamics.kind=unbalanced",
        "dynamics.delta=2",
        "loss.form=marginal",
        "loss.boundaries=independent",
    ],
    "cells wfr balanced": [*CELLS, "path.kind=wfr", "coupling.kind=wfr"],
    "cells in quadrature": [*CELLS, "loss.form=marginal", "times.kind=quadrature"],
    "population in cells of times": [
        *CELLS,
        "loss.form=marginal",
        "loss.cells=3",
        "dynamics.kind=unbalanced",
        "data.mass_from_counts=true",
    ],
    "torus": [*CELLS, "data.period=4", "data.standardize=none"],
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30, 40 and 20 points in two dimensions that move to the right."""
    file = tmp_path_factory.mktemp("table") / "cells.npz"
    times = np.repeat([0.0, 1.0, 2.0], [30, 40, 20])
    points = np.random.default_rng(0).normal(size=(90, 3)) + times[:, None] * [1, 0, 0]
    np.savez(file, sample_labels=times, pcs=points)
    return file


def options(name: str, table: Path, *more: str) -> Config:
    preset, *overrides = KINDS[name]
    return config.load(preset, [*TINY, *(entry.replace("TABLE", str(table)) for entry in overrides), *more])


def run(folder: Path, name: str, table: Path, *more: str) -> Path:
    train(options(name, table, *more), folder)
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_a_run_does_not_depend_on_accumulation_or_on_a_stop(name: str, table: Path, tmp_path: Path) -> None:
    """In passes of 8 it learns the same; stopped after 3 steps and resumed, the same bit for bit. A scatter is drawn on the way."""
    whole = newest_tensors(run(tmp_path / "whole", name, table))
    assert all(torch.isfinite(tensor).all() for tensor in whole.values())
    parts = newest_tensors(run(tmp_path / "parts", name, table, "training.micro_batch=8"))
    assert_learned_the_same(parts, whole, options(name, table))
    run(tmp_path / "resumed", name, table, "training.images=48")
    assert_same_tensors(newest_tensors(run(tmp_path / "resumed", name, table)), whole)
    with Image.open(tmp_path / "whole" / "samples" / "points-000000096.png") as picture:
        assert np.asarray(picture).min() == 0


def test_the_neighbourhood_travels_with_the_weights(table: Path, tmp_path: Path) -> None:
    """From a run, a checkpoint without its run and an exported file; a run of an earlier version has none, and a damaged one is refused.

    The data is at most 40 points; cells moved by 100 units left it, and amgen sample says so.
    """
    folder = run(tmp_path / "run", "cells", table)
    checkpoint = checkpoints.latest(folder)
    assert checkpoint is not None
    copied, exported = tmp_path / "copied", tmp_path / "action.safetensors"
    shutil.copytree(checkpoint, copied)
    assert run_cli("export", folder, "--out", exported).code == 0
    models = [sampling.load(source) for source in (folder, copied, exported)]
    near = [model.neighbourhood for model in models]
    assert near[0] is not None
    assert near[0].data.shape == (30, 2, 3)  # the held-out time is not in it
    for other in near[1:]:
        assert other is not None
        assert other.radius(0.3) == near[0].radius(0.3)
    assert models[2].weights_sha256 == models[0].weights_sha256
    units = models[0].units
    assert units is not None
    assert near[0].share_outside(units.transform(torch.zeros(5, 2)), 0.0) == 0

    away = tmp_path / "away.csv"
    rows = np.concatenate([np.repeat([0.0, 1.0, 2.0], 20)[:, None], 100 + np.random.default_rng(0).normal(size=(60, 2))], axis=1)
    np.savetxt(away, rows, delimiter=",", header="samples,x1,x2", comments="")
    sample = ["sample", folder, "--num", "20", "--out", tmp_path / "out", "--condition-data", away]
    assert "100 % of the points left the neighbourhood of the training data by t = 2" in run_cli(*sample).out
    assert "left the neighbourhood" not in run_cli("sample", folder, "--num", "20", "--out", tmp_path / "near").out

    file = checkpoint / "neighbourhood.safetensors"
    contents = file.read_bytes()
    file.write_bytes(contents[:-1] + b"x")
    with pytest.raises(UserError, match="neighbourhood.safetensors is damaged"):
        sampling.load(folder)
    file.unlink()
    assert sampling.load(folder).neighbourhood is None


def test_what_the_data_decided_is_recorded(table: Path, tmp_path: Path) -> None:
    """Times and whitening are in config.yaml and in the checkpoint's weights; points come out in the table's units."""
    folder = run(tmp_path / "run", "cells", table)
    recorded = config.load(str(folder / "config.yaml"))
    assert recorded.data.times == [0.0, 2.0]  # type: ignore[union-attr]
    model = sampling.load(folder)
    assert model.config == recorded == checkpoints.load(checkpoints.find(folder)).config
    with np.load(table) as stored:
        points = stored["pcs"][stored["sample_labels"] != 1][:, :2]
        first = stored["pcs"][stored["sample_labels"] == 0][:, :2]
    np.testing.assert_allclose(recorded.data.origin, points.mean(axis=0), rtol=1e-5, atol=1e-6)  # type: ignore[union-attr]
    (batch,) = sampling.generate_all(model, model.config.sampling, range(5), sampling.Request(images=sampling.start_images(model, None)))
    assert batch.inputs is not None
    np.testing.assert_allclose(batch.inputs, first[:5], rtol=0, atol=1e-5)
    assert torch.equal(model.sample(5), batch.images)
    simulated = simulate_population(model, batch.inputs, [0.0, 2.0])
    torch.testing.assert_close(simulated.points[-1], batch.images, rtol=0, atol=1e-4)


def test_samples_start_with_their_masses(table: Path, tmp_path: Path) -> None:
    """Log-weights are those of the starts and the growth along the way, to float32's rounding; masses are m N_k / M_0."""
    with np.load(table) as stored:
        masses = np.random.default_rng(1).uniform(1, 3, len(stored["pcs"]))
        np.savez(tmp_path / "weighted.npz", times=stored["sample_labels"], points=stored["pcs"], mass=masses)
    folder = run(tmp_path / "run", "cells unbalanced", tmp_path / "weighted.npz", "data.mass_from_counts=false", "data.mass_key=mass")
    model = sampling.load(folder)
    (batch,) = sampling.generate_all(model, model.config.sampling, range(30), sampling.Request(images=sampling.start_images(model, None)))
    assert batch.inputs is not None
    assert batch.log_weights is not None
    grown = simulate_population(model, batch.inputs, [0.0, 2.0]).log_weights[-1]
    start = np.log(masses[:30] / masses[:30].mean())
    np.testing.assert_allclose(batch.log_weights - grown, start, rtol=0, atol=1e-5)


def test_another_table_is_refused(table: Path, tmp_path: Path) -> None:
    folder = run(tmp_path / "run", "torus", table, "training.images=48")
    with np.load(table) as stored:
        np.savez(tmp_path / "other.npz", sample_labels=stored["sample_labels"], pcs=stored["pcs"] + 1e-6)
    with pytest.raises(UserError, match="was trained on other images than"):
        run(folder, "torus", tmp_path / "other.npz")


def test_commands_on_points(table: Path, tmp_path: Path) -> None:
    """Sampling writes npz of points and says so; what is for images is refused in one line."""
    folder = run(tmp_path / "run", "cells unbalanced", table)
    outcome = run_cli(
        "sample", folder, "-n", "7", "--out", tmp_path / "out", "--grid", tmp_path / "grid.png", "--resample", "--plot", tmp_path / "p.png"
    )
    assert outcome.code == 0, outcome.err
    assert f"wrote {tmp_path / 'out'}/*.npz: points at t = 1 and their starts, in the units of the table" in outcome.out
    assert "7 points in" in outcome.out
    assert "of 7 weighted points" in outcome.out
    with np.load(tmp_path / "out" / "points-000000-000006.npz") as shard:
        arrays = dict(shard)
    assert sorted(arrays) == ["indices", "log_weights", "points", "starts"]
    assert arrays["points"].shape == arrays["starts"].shape == (7, 2)
    assert arrays["points"].dtype == np.float32
    assert (tmp_path / "p.png").is_file()
    assert json.loads((tmp_path / "out" / "sampling.json").read_text())["start"] == str(table)
    for command, message in {
        ("sample", folder, "--format", "png"): "--format png is for images, and this model is of points",
        ("sample", folder, "--gif", tmp_path / "x.gif"): "x.gif shows images, and this model is of points",
        ("eval-fid", run(tmp_path / "plain", "cells", table), "--features", "pixels"): "this model is of points (data.kind=snapshots)",
        ("eval-bpd", folder): "this model is of points",
        ("encode", folder): "this model is of points (data.kind=snapshots)",
        ("train", "cells", "--run-dir", tmp_path / "none"): "data.path='cells.csv' does not exist",
    }.items():
        refused = run_cli(*command)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert message in refused.err
    dry = run_cli("train", "hydrogen", "--dry-run", *sets(["action.width=8", "action.depth=1"]))
    assert dry.code == 0
    # (3 + 32) x 8 + 8 and 8 x 3 + 3 of the layers, 2 x (32 x 32 + 32) of the embedding
    assert f"# {288 + 27 + 2112:,} parameters" in dry.out


@pytest.mark.parametrize(
    ("overrides", "reason", "advice"),
    [
        (["path.kind=linear"], "are for images", "set path.kind=snapshots (or wfr) and action.kind=mlp"),
        (["action.kind=unet"], "are for images", "set path.kind=snapshots (or wfr) and action.kind=mlp"),
        (["data.paired=true"], "would separate the rows of a particle", "set coupling.kind=independent"),
        (["dynamics.kind=entropic", "sampling.solver=sra1"], "needs path.noise above 0", "or loss.form=marginal"),
        (["dynamics.kind=entropic", "sampling.solver=sra1", "loss.form=marginal"], "needs path.noise", "set dynamics.schedule=constant"),
        (["data.mass_from_counts=true"], "lets the total mass change", "set dynamics.kind=unbalanced"),
        (["data.mass_key=m"], "masses that change in time", "loss.form=marginal"),
        (["data.mass_key=m", "data.mass_from_counts=true"], "each say what the masses are", "leave one out"),
        (["data.period=1"], "would change the period", "set data.standardize=none"),
        (["sampling.guidance=2"], "also trained without classes", ""),
        (["sampling.noise_level=1"], "needs a path that starts from noise", "leave it at 0"),
        (["path.kind=wfr"], "do not go together", "set both to wfr, or none"),
        (["coupling.kind=wfr"], "do not go together", "set both to wfr, or none"),
        (
            ["path.kind=wfr", "coupling.kind=wfr", "data.mass_column=m", "loss.form=marginal"],
            "needs growth",
            "set dynamics.kind=unbalanced",
        ),
        (
            ["path.kind=wfr", "coupling.kind=wfr", "data.paired=true"],
            "would separate the rows of a particle",
            "set coupling.kind=independent",
        ),
        (["path.kind=wfr", "coupling.kind=wfr", "data.period=1", "data.standardize=none"], "on a torus", "set path.kind=snapshots"),
        (["dynamics.kind=unbalanced", "dynamics.rate=1", "dynamics.delta=1"], "both say how much growth costs", "leave one out"),
        (["evaluation.every=256"], "evaluation.every=256 is for images", "leave it at 0"),
        (["evaluation.metrics=[nearest]"], "cannot decide which weights are best", "such as fid"),
        (["data.times=[1,0]"], "expected increasing times", ""),
        (["data.dimension=0"], "greater than 0", ""),
        (["data.hold_outt=1"], "unknown option 'data.hold_outt'", "did you mean 'hold_out'"),
    ],
)
def test_impossible_combinations_are_refused(overrides: list[str], reason: str, advice: str) -> None:
    with pytest.raises(UserError) as caught:
        config.load("cells", overrides)
    assert reason in str(caught.value)
    assert advice in str(caught.value)


def test_points_and_images_do_not_mix() -> None:
    with pytest.raises(
        UserError, match="path.kind=snapshots, action.kind=unet: snapshots, wfr and mlp are for points: set data.kind=snapshots"
    ):
        config.load("digits", ["path.kind=snapshots"])


def test_mass_passes_between_bells(tmp_path: Path) -> None:
    """uAM learned in some 10 seconds: shares at t = 1 within 0.05, 0.5 away at first; points move by less than a bell's deviation."""
    more = ["data.particles=4000", "training.images=100000", "training.sample_every=0", "action.width=32"]
    train(config.load("mixture-unbalanced", more), tmp_path)
    mixture = Mixture()
    points, _ = mixture.sample(2000, np.random.default_rng(5))
    simulated = simulate_population(sampling.load(tmp_path), torch.tensor(points), [0.0, 1.0])
    weights, end = simulated.log_weights[-1].exp().numpy(), simulated.points[-1].double().numpy()
    shares = np.bincount(mixture.nearest(end), weights, 3) / weights.sum()
    assert 0.5 * np.abs(shares - mixture.shares(1)).sum() < 0.05
    assert weights.mean() == pytest.approx(1, abs=0.05)
    assert np.linalg.norm(end - points, axis=1).mean() < mixture.deviation
