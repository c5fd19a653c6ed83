"""Single cells: velocity, growth, potential and fates in closed form, what amgen cells writes, and what it refuses."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import Outcome, run_cli, sets
from safetensors.torch import load_file
from torch import Tensor, nn

from amgen import config, sampling
from amgen.core.errors import UserError
from amgen.data.loadings import Loadings
from amgen.model import checkpoints
from amgen.model.export import export, read_weights
from amgen.sampling.cells import FateOptions, carry, cell_dynamics, fates, is_noisy

anndata = pytest.importorskip("anndata")

MATRIX = torch.tensor([[0.5, 0.2], [0.2, -0.3]])
SHIFT = torch.tensor([0.3, -0.7])
AXES = np.array([[3.0, 1.0], [0.0, 2.0]])
ORIGIN = np.array([1.0, -2.0])


class Quadratic(nn.Module):
    """s = 1/2 z^T A z + b . z + c."""

    def __init__(self, matrix: Tensor, shift: Tensor, constant: float = 0.0):
        super().__init__()
        self.matrix, self.shift, self.constant = nn.Parameter(matrix), nn.Parameter(shift), constant

    def forward(self, t: Tensor, x: Tensor, label: Any = None, condition: Any = None, dropout_seeds: Any = None) -> Tensor:
        return 0.5 * ((x @ self.matrix) * x).sum(dim=1) + x @ self.shift + self.constant


def model_of(*overrides: str, action: Quadratic | None = None, path: str = "cells.h5ad") -> sampling.Model:
    """Return a model of points in the plane between the times 2 and 6."""
    recorded = {"times": [2.0, 4.0, 6.0], "origin": ORIGIN.tolist(), "axes": AXES.tolist()}
    options = [f"data.{key}={json.dumps(value)}" for key, value in recorded.items()]
    options += [f"data.path={path}", "data.dimension=2", "data.time_key=day", "sampling.solver=rk4", "sampling.steps=20", *overrides]
    made = Quadratic(MATRIX.clone(), SHIFT.clone()) if action is None else action
    return sampling.assemble(config.load("cells", options), made, "action", 0, Path("here"))  # type: ignore[arg-type]


def standardized(points: np.ndarray) -> np.ndarray:
    return np.linalg.solve(AXES, (points - ORIGIN).T).T


# Dynamics


def test_velocity_and_growth_are_in_the_units_of_the_table() -> None:
    """dx/dtime = A (M z + b) / 4, growth lambda s / 4, by the formulas in float64; float32 to 1e-5."""
    model = model_of("dynamics.kind=unbalanced", "dynamics.rate=0.5", action=Quadratic(MATRIX.clone(), SHIFT.clone(), 2.0))
    points = np.random.default_rng(0).normal(size=(50, 2)) * 3
    times, masses = np.tile([2.0, 3.3, 6.0, 6.5, 4.0], 10), np.random.default_rng(1).uniform(1, 2, 50)
    found = cell_dynamics(model, points, times, masses)
    known = times <= 6
    z = standardized(points)
    velocity = (z @ MATRIX.numpy() + SHIFT.numpy()) @ AXES.T / 4
    action = 0.5 * np.einsum("ni,ij,nj->n", z, MATRIX.double().numpy(), z) + z @ SHIFT.double().numpy() + 2.0
    np.testing.assert_allclose(found.velocity[known], velocity[known], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.growth[known], 0.5 * action[known] / 4, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.action[known], action[known], rtol=1e-4, atol=1e-5)
    for values in (found.velocity[:, 0], found.growth, found.action, found.potential):
        assert np.isnan(values[~known]).all()
    for time in (2.0, 3.3, 6.0):
        here = times == time
        mean = np.average(action[here], weights=masses[here])
        np.testing.assert_allclose(found.potential[here], mean - action[here], rtol=1e-4, atol=1e-5)


def test_a_short_step_along_the_velocity_is_what_simulation_does() -> None:
    model, points = model_of(), np.random.default_rng(2).normal(size=(20, 2))
    step = 1e-2
    moved = carry(model, points, 3.0, [3.0 + step]).points[0].numpy()
    velocity = cell_dynamics(model, points, np.full(20, 3.0)).velocity
    np.testing.assert_allclose(moved - points, step * velocity, atol=1e-4)


def test_forward_and_back_again() -> None:
    """Forward by the closed form of the linear ODE, and back to the start, to 1e-4 in float32."""
    model, points = model_of(action=Quadratic(MATRIX.clone(), torch.zeros(2))), np.random.default_rng(3).normal(size=(20, 2))
    forward = carry(model, points, 2.0, [6.0, 4.0])
    assert forward.times == [4.0, 6.0]
    for place, share in enumerate((0.5, 1.0)):
        expected = ORIGIN + standardized(points) @ torch.linalg.matrix_exp(share * MATRIX).numpy() @ AXES.T
        np.testing.assert_allclose(forward.points[place].numpy(), expected, rtol=1e-4, atol=1e-4)
    back = carry(model, forward.points[-1].numpy(), 6.0, [2.0, 4.0, 6.0])
    assert back.times == [6.0, 4.0, 2.0]
    np.testing.assert_allclose(back.points[-1].numpy(), points, atol=1e-4)
    np.testing.assert_allclose(back.points[1].numpy(), forward.points[0].numpy(), atol=1e-4)


def test_growth_backward_is_the_inverse_of_growth_forward() -> None:
    model, points = model_of("dynamics.kind=unbalanced", "dynamics.rate=0.5"), np.random.default_rng(4).normal(size=(20, 2))
    forward = carry(model, points, 2.0, [6.0])
    back = carry(model, forward.points[0].numpy(), 6.0, [2.0])
    np.testing.assert_allclose(back.log_weights[0], -forward.log_weights[0], rtol=1e-3, atol=1e-4)
    assert forward.log_weights.abs().max() > 0.1


@pytest.mark.parametrize(
    ("start", "times", "overrides", "message"),
    [
        (2.0, [7.0], [], "times 7: the model knows 2 to 6: give times within"),
        (4.0, [2.0, 6.0], [], "times 2 to 6 are on both sides of the start 4"),
        (
            6.0,
            [2.0],
            ["dynamics.kind=entropic", "dynamics.schedule=constant", "loss.form=marginal"],
            r"noisy dynamics \(sigma > 0\) cannot be simulated backward",
        ),
    ],
)
def test_impossible_times(start: float, times: list[float], overrides: list[str], message: str) -> None:
    solver = ["sampling.solver=euler-maruyama"] if overrides else []
    with pytest.raises(UserError, match=message):
        carry(model_of(*overrides, *solver), np.zeros((1, 2)), start, times)


# Fates


def test_fates_of_points_that_stay() -> None:
    """Without velocity the fate of a cell is the label of the cells around it at the last time, and mass counts."""
    model = model_of(action=Quadratic(torch.zeros(2, 2), torch.zeros(2)))
    left, right = np.array([-50.0, 0.0]), np.array([50.0, 0.0])
    points = np.array([left, right, left, left, right, right])
    times, labels = np.array([2.0, 4.0, 6.0, 6.0, 6.0, 7.0]), np.array([2, 2, 0, 1, 2, -1])
    found = fates(model, points, times, labels, np.array([1, 1, 3.0, 1.0, 1, 1]), FateOptions(neighbours=2))
    np.testing.assert_allclose(found[0], [0.75, 0.25, 0], atol=1e-6)
    # Both neighbours of the cell at the right: one there, and one at the left with weight exp(-1/2) and mass 3 or 1.
    assert found[1, 2] > 0.3
    assert np.isnan(found[5]).all()
    np.testing.assert_allclose(found[:5].sum(axis=1), 1)


def test_fates_follow_the_velocity() -> None:
    """dz/dt = b carries all cells from the left to the right label, exactly as far as b goes."""
    model = model_of(action=Quadratic(torch.zeros(2, 2), torch.tensor([10.0, 0.0])))
    random = np.random.default_rng(5)
    left, right = ORIGIN + random.normal(size=(40, 2)), ORIGIN + AXES @ [10.0, 0.0] + random.normal(size=(40, 2))
    points, times = np.concatenate([left, left, right]), np.repeat([2.0, 6.0, 6.0], 40)
    found = fates(model, points, times, np.repeat([0, 0, 1], 40))
    assert found[:40, 1].min() > 0.999
    assert found[40:80, 0].min() > 0.999


def test_fates_of_noisy_cells_are_frequencies() -> None:
    """A cell at the border of two labels ends on either side equally often: 200 draws, 5 standard errors."""
    noise = ["dynamics.kind=entropic", "dynamics.sigma=1", "dynamics.schedule=constant", "loss.form=marginal"]
    model = model_of(*noise, "sampling.solver=euler-maruyama", "sampling.steps=4", action=Quadratic(torch.zeros(2, 2), torch.zeros(2)))
    assert is_noisy(model)
    grid = np.stack(np.meshgrid(np.linspace(-4, 4, 16), np.linspace(-4, 4, 8)), axis=-1).reshape(-1, 2)
    points = np.concatenate([ORIGIN[None], ORIGIN + grid @ AXES.T])
    times, labels = np.array([2.0] + [6.0] * len(grid)), np.array([0, *(grid[:, 0] > 0).astype(int)])
    several = fates(model, points, times, labels, options=FateOptions(neighbours=1, draws=200))[0, 1]
    assert abs(several - 0.5) < 5 * (0.25 / 200) ** 0.5
    assert fates(model, points, times, labels, options=FateOptions(neighbours=1, draws=1))[0, 1] in (0.0, 1.0)


def test_a_last_time_without_labels() -> None:
    with pytest.raises(UserError, match="no cell of the last time, 6, has a label"):
        fates(model_of(), np.zeros((2, 2)), np.array([2.0, 6.0]), np.array([0, -1]))


# The commands


def table(folder: Path, name: str = "cells.h5ad", **changes: Any) -> Path:
    """Write 90 cells of 8 genes at 3 times, which move along the first gene."""
    random = np.random.default_rng(6)
    times = np.repeat([10.0, 10.5, 11.0], 30)
    expression = (random.normal(size=(90, 8)) + np.outer(times - 10, np.eye(8)[0] * 6) + 3).astype(np.float32)
    obs = pd.DataFrame({"day": pd.Categorical([f"day {t:g}" for t in times]), "kind": pd.Categorical(random.choice(["p", "q"], 90))})
    obs.index = [f"cell{place}" for place in range(90)]
    made = anndata.AnnData(X=expression, obs=obs, var=pd.DataFrame(index=[f"g{place}" for place in range(8)]), **changes)
    made.obsm["X_pca"] = expression[:, :3].astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.write_zarr(folder / name) if name.endswith("zarr") else made.write_h5ad(folder / name)
    return folder / name


SHORT = [
    *["training.images=64", "training.batch_size=32", "training.warmup_images=0", "training.log_every=32", "training.sample_every=0"],
    *["action.width=8", "action.depth=1", "coupling.group=16", "sampling.steps=2", "training.ema=[100]"],
]


def train(folder: Path, *overrides: str) -> Path:
    file = folder / "cells.h5ad"
    given = [f"data.path={file if file.exists() else table(folder)}", "data.time_key=day", "data.dimension=3", *SHORT, *overrides]
    outcome = run_cli("train", "cells", *sets(given), "--run-dir", folder / "run")
    assert outcome.code == 0, outcome.err
    return folder / "run"


@pytest.fixture(scope="module")
def components(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on principal components that were computed by amgen; not to be written to."""
    return train(tmp_path_factory.mktemp("components"), "data.embedding=pca")


def test_what_is_written(components: Path, tmp_path: Path) -> None:
    out = tmp_path / "y.h5ad"
    outcome = run_cli("cells", "write", components, "--out", out, "--fates", "kind", "--trajectories", "5")
    assert outcome.code == 0, outcome.err
    before, after = anndata.read_h5ad(components.parent / "cells.h5ad"), anndata.read_h5ad(out)
    np.testing.assert_array_equal(after.X, before.X)
    np.testing.assert_array_equal(after.obsm["X_pca"], before.obsm["X_pca"])
    assert list(after.obs) == [*before.obs, "amgen_growth", "amgen_action", "amgen_potential", "amgen_fate"]
    loadings = Loadings.load(components / "loadings.safetensors")
    np.testing.assert_allclose(after.obsm["X_amgen_pca"], loadings.project(before.X), rtol=1e-6)
    model = sampling.load(components)
    times = np.repeat([10.0, 10.5, 11.0], 30)
    dynamics = cell_dynamics(model, loadings.project(before.X), times)
    np.testing.assert_allclose(after.obsm["velocity_amgen_pca"], dynamics.velocity, rtol=1e-5)
    np.testing.assert_allclose(after.layers["velocity"], dynamics.velocity @ loadings.components, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.obsm["fates"].sum(axis=1), 1, rtol=1e-5)
    about = after.uns["amgen"]
    assert list(about["fate_names"]) == ["p", "q"]
    best = np.array(about["fate_names"])[after.obsm["fates"].argmax(axis=1)]
    assert (after.obs["amgen_fate"] == best).all()
    assert about["weights_sha256"] == model.weights_sha256
    (tmp_path / "config.yaml").write_text(about["config"])
    assert config.load(str(tmp_path / "config.yaml")) == model.config
    assert about["trajectories"]["points"].shape == (21, 5, 3)
    np.testing.assert_allclose(about["trajectories"]["points"][0], loadings.project(before.X)[about["trajectories"]["cells"]], atol=1e-5)


def test_the_same_call_writes_again_and_another_does_not(components: Path, tmp_path: Path) -> None:
    out = tmp_path / "y.h5ad"
    first = run_cli("cells", "write", components, "--out", out)
    assert first.code == 0, first.err
    contents = anndata.read_h5ad(out).layers["velocity"]
    assert run_cli("cells", "write", components, "--out", out).code == 0
    np.testing.assert_array_equal(anndata.read_h5ad(out).layers["velocity"], contents)
    refused(run_cli("cells", "write", components, "--out", out, "--fates", "kind"), "was written with another fate_column")
    refused(run_cli("cells", "write", components, "--out", out, "--raw"), "was written with another weights")
    refused(run_cli("cells", "write", components, "--out", components.parent / "cells.h5ad"), "is the file of --data, which is not changed")
    table(tmp_path, "other.h5ad")
    refused(run_cli("cells", "write", components, "--out", tmp_path / "other.h5ad"), "exists and was not written by this command")
    # What amgen wrote into a file may be written again; what others wrote may not.
    assert run_cli("cells", "write", components, "--data", out, "--out", tmp_path / "z.h5ad").code == 0
    file = table(tmp_path, "theirs.h5ad", layers={"velocity": np.zeros((90, 8), dtype=np.float32)})
    refused(
        run_cli("cells", "write", components, "--data", file, "--out", tmp_path / "w.h5ad"),
        "already has layers['velocity'], which amgen did not write: give other names by --key",
    )
    assert run_cli("cells", "write", components, "--data", file, "--out", tmp_path / "w.h5ad", "--key", "flow").code == 0
    kept = anndata.read_h5ad(tmp_path / "w.h5ad")
    assert not kept.layers["velocity"].any()
    np.testing.assert_array_equal(kept.layers["flow"], contents)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["other.h5ad", "theirs.h5ad", "w.h5ad", "y.h5ad", "z.h5ad"]


def refused(outcome: Outcome, message: str) -> None:
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_an_embedding_of_the_file(tmp_path: Path) -> None:
    run = train(tmp_path, "data.embedding=X_pca")
    assert run_cli("cells", "write", run, "--out", tmp_path / "y.h5ad").code == 0
    after = anndata.read_h5ad(tmp_path / "y.h5ad")
    assert set(after.obsm) == {"X_pca", "velocity_pca"}
    assert not after.layers


def test_genes_as_coordinates(tmp_path: Path) -> None:
    run = train(tmp_path, "data.embedding=X")
    assert run_cli("cells", "write", run, "--out", tmp_path / "y.h5ad").code == 0
    after = anndata.read_h5ad(tmp_path / "y.h5ad")
    np.testing.assert_array_equal(after.layers["velocity"][:, :3], after.obsm["velocity_X"])
    assert np.isnan(after.layers["velocity"][:, 3:]).all()


def test_times_with_fewer_cells_than_a_group_of_the_coupling(tmp_path: Path) -> None:
    run = train(tmp_path, "data.embedding=X_pca", "coupling.group=128")
    assert config.load(str(run / "config.yaml")).coupling.group == 128


def test_a_run_of_a_table_writes_into_a_file_with_the_same_coordinates(tmp_path: Path) -> None:
    """A run that was trained on a .csv of principal components, and cells whose obsm has them."""
    cells = anndata.read_h5ad(table(tmp_path))
    times = cells.obs["day"].str.removeprefix("day ").astype(float)
    frame = pd.DataFrame({"samples": times.to_numpy(), **{f"x{place}": cells.obsm["X_pca"][:, place] for place in range(3)}})
    frame.to_csv(tmp_path / "cells.csv", index=False)
    given = [f"data.path={tmp_path / 'cells.csv'}", "data.dimension=3", *SHORT]
    assert run_cli("train", "cells", *sets(given), "--run-dir", tmp_path / "run").code == 0
    place = ["--data", tmp_path / "cells.h5ad", "--time-key", "day", "--out", tmp_path / "y.h5ad"]
    outcome = run_cli("cells", "write", tmp_path / "run", *place)
    assert outcome.code == 0, outcome.err
    expected = cell_dynamics(sampling.load(tmp_path / "run"), cells.obsm["X_pca"], times.to_numpy()).velocity
    np.testing.assert_allclose(anndata.read_h5ad(tmp_path / "y.h5ad").obsm["velocity_pca"], expected, rtol=1e-5)


def test_a_folder_of_zarr(components: Path, tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    table(tmp_path, "cells.zarr")
    outcome = run_cli("cells", "write", components, "--data", tmp_path / "cells.zarr", "--out", tmp_path / "y.h5ad", "--no-genes")
    assert outcome.code == 0, outcome.err
    assert run_cli("cells", "write", components, "--out", tmp_path / "x.h5ad", "--no-genes").code == 0
    written = [anndata.read_h5ad(tmp_path / name).obsm["velocity_amgen_pca"] for name in ("x.h5ad", "y.h5ad")]
    np.testing.assert_array_equal(*written)


@pytest.mark.parametrize("ending", ["h5ad", "npz", "csv"])
def test_simulated_cells(ending: str, components: Path, tmp_path: Path) -> None:
    out = tmp_path / f"simulated.{ending}"
    outcome = run_cli("cells", "simulate", components, "--from", "11", "--times", "10.5,10", "--out", out)
    assert outcome.code == 0, outcome.err
    assert "30 cells of time 11 at 2 times" in outcome.out
    loadings, source = Loadings.load(components / "loadings.safetensors"), anndata.read_h5ad(components.parent / "cells.h5ad").X[60:]
    expected = carry(sampling.load(components), loadings.project(source), 11.0, [10.5, 10.0])
    if ending == "h5ad":
        cells = anndata.read_h5ad(out)
        points, times, rows, masses = cells.X, cells.obs["time"], cells.obs["source"], cells.obs["mass"]
        assert cells.uns["amgen"]["weights_sha256"] == sampling.load(components).weights_sha256
    elif ending == "npz":
        arrays = np.load(out)
        points, times, rows, masses = (arrays[key] for key in ("points", "times", "source", "mass"))
    else:
        frame = pd.read_csv(out)
        points, times, rows, masses = frame[["x1", "x2", "x3"]], frame["time"], frame["source"], frame["mass"]
    np.testing.assert_allclose(np.asarray(points), expected.points.reshape(60, 3), rtol=1e-5)
    assert np.asarray(times).tolist() == [10.5] * 30 + [10.0] * 30
    assert np.asarray(rows).tolist() == [*range(60, 90)] * 2
    assert (np.asarray(masses) == 1).all()
    refused(run_cli("cells", "simulate", components, "--times", "10.5", "--out", out), "exists: choose another name, or remove it")


def test_simulated_cells_are_a_table_again(components: Path, tmp_path: Path) -> None:
    out = tmp_path / "simulated.npz"
    assert run_cli("cells", "simulate", components, "--times", "10,11", "--out", out).code == 0
    given = [f"data.path={out}", "data.dimension=3", "data.mass_key=mass", "loss.form=marginal", "coupling.kind=independent"]
    outcome = run_cli("train", "cells", *sets([*SHORT[:-3], *given, "action.width=8"]), "--run-dir", tmp_path / "run")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["write", "--out", "y.csv"], "--out y.csv: expected a file name that ends in .h5ad"),
        (["write", "--out", "y.h5ad", "--fates", "kin"], "--fates='kin': the obs of"),
        (["write", "--out", "y.h5ad", "--neighbours", "0"], "--neighbours 0: expected at least 1"),
        (["write", "--out", "y.h5ad", "--key", "a/b"], "--key 'a/b': expected a name without a slash"),
        (["write", "--out", "y.h5ad", "--embedding", "X_pac"], "has no such key (did you mean 'X_pca'?)"),
        (["write", "--out", "y.h5ad", "--data", "none.h5ad"], "data.path='none.h5ad' does not exist"),
        (["write", "--out", "y.h5ad", "--data", "cells.csv"], "--data cells.csv: expected an AnnData file"),
        (["simulate", "--out", "y.npz", "--times", "1,x"], "--times '1,x': expected numbers such as 1,1.5,2"),
        (["simulate", "--out", "y.png", "--times", "11"], "--out y.png: expected a file name that ends in .h5ad, .npz or .csv"),
        (["simulate", "--out", "y.npz", "--times", "12"], "times 12: the model knows 10 to 11: give times within"),
        (["simulate", "--out", "y.npz", "--times", "11", "--from", "10.2"], "--from 10.2: no cell of"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str, components: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run_cli("cells", arguments[0], components, *arguments[1:]), message)
    assert not list(tmp_path.iterdir())


def test_images_have_no_cells(trained: Path, tmp_path: Path) -> None:
    refused(run_cli("cells", "write", trained, "--out", tmp_path / "y.h5ad"), "generates images: expected a model of a population")


# Loadings travel with the weights


def test_an_exported_file_has_the_loadings(components: Path, tmp_path: Path) -> None:
    weights = read_weights(components)
    export(weights, tmp_path / "model.safetensors")
    again = read_weights(tmp_path / "model.safetensors")
    assert again.loadings is not None
    assert weights.loadings is not None
    assert again.loadings.sha256 == weights.loadings.sha256
    assert again.sha256 == weights.sha256
    assert again.tensors.keys() == weights.tensors.keys()
    outcome = run_cli("cells", "write", tmp_path / "model.safetensors", "--out", tmp_path / "y.h5ad")
    assert outcome.code == 0, outcome.err


def test_a_run_goes_on_with_its_loadings(tmp_path: Path) -> None:
    """With the loadings of the run a resumed training ends where an uninterrupted one does, even if the components would be others."""
    run = train(tmp_path, "data.embedding=pca", "training.decay=0")
    kept = (run / "loadings.safetensors").read_bytes()
    train(tmp_path, "data.embedding=pca", "training.decay=0", "training.images=128")
    assert (run / "loadings.safetensors").read_bytes() == kept
    (run / "loadings.safetensors").unlink()
    with pytest.raises(UserError, match=r"cannot read .*loadings.safetensors, the loadings of the run's principal components"):
        sampling.load(run)
    folder = checkpoints.latest(run)
    assert folder is not None
    assert load_file(folder / "action.safetensors")


def test_samples_start_from_cells_by_the_same_loadings(components: Path, tmp_path: Path) -> None:
    outcome = run_cli("sample", components, "-n", "4", "--out", tmp_path / "samples")
    assert outcome.code == 0, outcome.err
    starts = np.load(next((tmp_path / "samples").glob("*.npz")))["starts"]
    source = anndata.read_h5ad(components.parent / "cells.h5ad").X[:4]
    expected = Loadings.load(components / "loadings.safetensors").project(source)
    np.testing.assert_allclose(starts, expected, atol=1e-4)


def test_other_tools_read_the_velocities(components: Path, tmp_path: Path) -> None:
    """scVelo projects and plots what is written without further steps, where it is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scvelo = pytest.importorskip("scvelo")
        assert run_cli("cells", "write", components, "--out", tmp_path / "y.h5ad").code == 0
        cells = anndata.read_h5ad(tmp_path / "y.h5ad")
        scvelo.pl.velocity_embedding_stream(cells, basis="amgen_pca", vkey="velocity", show=False)
