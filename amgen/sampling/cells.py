"""What a trained action says about single cells: velocity, growth, action, pseudo-potential, fates, and where they come from and go.

Symbols: the model has the time t in [0, 1] between the first and the last time that it was trained on, T apart, and standardized
coordinates z with x = origin + A z. Then dx/dtime = A v(t, z) / T, and the growth rate is g(t, z) / T.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree

from amgen.config import SamplingConfig
from amgen.core.errors import Diverged, UserError
from amgen.core.randomness import Purpose, derive_seed
from amgen.data.messages import first_few
from amgen.dynamics import Dynamics
from amgen.model.trained import TrainedAction
from amgen.sampling.populations import SimulatedPopulation, simulate_population

CHUNK = 8192
"""Cells that are evaluated at once."""


@dataclass
class CellDynamics:
    """Instantaneous dynamics of N cells, each at its own time. Cells at times that the model does not know have NaN.

    Attributes:
        velocity: dx/dtime, float32 (N, D), in the coordinates of the table and its unit of time.
        growth: d(log mass)/dtime, float32 (N,), in the table's unit of time; zero unless the dynamics grow.
        action: s(t, z), float32 (N,). For dynamics without growth only its differences within one time have a meaning.
        potential: the mean of s over the cells of the same time, weighted by mass, minus s; float32 (N,). Cells move towards lower values.
    """

    velocity: np.ndarray
    growth: np.ndarray
    action: np.ndarray
    potential: np.ndarray


def cell_dynamics(model: TrainedAction, points: np.ndarray, times: np.ndarray, masses: np.ndarray | None = None) -> CellDynamics:
    """Return velocity, growth, action and pseudo-potential of cells, each at its own time.

    Args:
        model: a model of a population.
        points: coordinates of the cells in the table's units, (N, D).
        times: time of each cell in the table's unit, (N,).
        masses: mass of each cell, (N,); 1 by default.

    Raises:
        UserError: if the model generates images.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from amgen import config, sampling
        >>> from amgen.model.build import build_action
        >>> from amgen.sampling.cells import cell_dynamics
        >>> recorded = ["data.times=[0,1,2]", "data.origin=[0,0]", "data.axes=[[1,0],[0,1]]"]
        >>> run = config.load("mixture-unbalanced", recorded)
        >>> model = sampling.assemble(run, build_action(run), "action", 0, Path())
        >>> found = cell_dynamics(model, np.zeros((3, 2)), np.array([0.0, 1.0, 5.0]))
        >>> found.velocity.shape, np.isnan(found.growth).tolist()
        ((3, 2), [False, False, True])
    """
    trained = trained_times(model)
    units = model.units
    assert units is not None
    first, length = trained[0], trained[-1] - trained[0]
    dynamics = Dynamics(model.action, model.dynamics, model.path)
    velocity = np.full(points.shape, np.nan, dtype=np.float32)
    growth, action, potential = (np.full(len(points), np.nan, dtype=np.float32) for _ in range(3))
    known = np.flatnonzero((times >= trained[0]) & (times <= trained[-1]))
    for start in range(0, len(known), CHUNK):
        rows = known[start : start + CHUNK]
        z = units.transform(torch.as_tensor(points[rows])).to(model.device)
        t = torch.as_tensor((times[rows] - first) / length, dtype=z.dtype, device=z.device)
        speed, rate = dynamics.velocity_and_growth(t, z)
        velocity[rows] = (speed.cpu().double() @ units.axes.T / length).numpy()
        growth[rows] = rate.cpu().double().numpy() / length
        with torch.no_grad():
            action[rows] = model.action(t, z, None, None).cpu().numpy()
    weights = np.ones(len(points)) if masses is None else masses
    for time in np.unique(times[known]):
        here = np.flatnonzero(times == time)
        potential[here] = np.average(action[here].astype(np.float64), weights=weights[here]) - action[here]
    return CellDynamics(velocity, growth, action, potential)


@dataclass(frozen=True)
class FateOptions:
    """How fate probabilities are computed.

    Attributes:
        neighbours: number of cells of the last time that a simulated cell is compared with.
        draws: simulations of each cell, whose results are averaged; noisy dynamics need several, others give the same each time.
        seed: seed of the noise.
    """

    neighbours: int = 15
    draws: int = 1
    seed: int = 0


def fates(
    model: TrainedAction,
    points: np.ndarray,
    times: np.ndarray,
    labels: np.ndarray,
    masses: np.ndarray | None = None,
    options: FateOptions = FateOptions(),
    sampling: SamplingConfig | None = None,
) -> np.ndarray:
    """Return the probability that each cell ends among the cells of each label at the last time.

    Each cell is simulated from its time to the last one. There its nearest cells with a label, in standardized coordinates, vote with the
    weight mass exp(-d^2 / 2 h^2), d the distance and h that of the farthest of them. Of several draws, those whose mass grew count more.

    Args:
        model: a model of a population.
        points: coordinates of the cells in the table's units, (N, D).
        times: time of each cell, (N,).
        labels: number of each cell's label from 0 on, -1 for none, (N,); those of the last time count.
        masses: mass of each cell, (N,); 1 by default.
        options: neighbours, draws and seed.
        sampling: settings of the solver; by default those of the run.

    Returns:
        float64 (N, L) for L labels; rows sum to 1. Rows of cells at times that the model does not know are NaN.

    Raises:
        UserError: if no cell of the last time has a label.
        Diverged: if a simulated cell is not finite.
    """
    trained = trained_times(model)
    units, last = model.units, trained[-1]
    assert units is not None
    ends = np.flatnonzero((times == last) & (labels >= 0))
    if not len(ends):
        raise UserError(f"no cell of the last time, {last:g}, has a label: give a column that has labels there, and data with that time")
    weights = np.ones(len(points)) if masses is None else masses
    tree = cKDTree(units.transform(torch.as_tensor(points[ends])).numpy())
    count = int(labels.max()) + 1
    found = np.full((len(points), count), np.nan)
    for number, time in enumerate(np.unique(times[(times >= trained[0]) & (times <= last)])):
        rows = np.flatnonzero(times == time)
        start = torch.as_tensor(points[rows]).float()
        votes, total = np.zeros((len(rows), count)), np.zeros(len(rows))
        for draw in range(options.draws if is_noisy(model) and time < last else 1):
            gained, x = np.zeros(len(rows)), start
            if time < last:
                seed = derive_seed(options.seed, Purpose.FATE, number * 1_000_000 + draw)
                population = simulate_population(model, start, [float(time), last], sampling, seed)
                x, gained = population.points[-1], population.log_weights[-1].numpy()
            end = units.transform(x).numpy()
            if not np.isfinite(end).all():
                raise Diverged(f"cells of time {time:g} are not finite at the last time: more --steps may help")
            share = np.exp(np.clip(gained, -500, 500))
            votes += share[:, None] * _votes(tree, end, labels[ends], weights[ends], count, options.neighbours)
            total += share
        found[rows] = votes / total[:, None]
    return found / found.sum(axis=1, keepdims=True)


def _votes(tree: cKDTree, z: np.ndarray, labels: np.ndarray, weights: np.ndarray, count: int, neighbours: int) -> np.ndarray:
    """Return the shares of the labels among the nearest cells of `tree`, (N, count)."""
    most = min(neighbours, len(labels))
    distances, places = (values.reshape(len(z), most) for values in tree.query(z, most))
    # Relative to the nearest one, so that far from all cells the weights do not vanish together.
    squares = (distances**2 - distances[:, :1] ** 2) / np.maximum(2 * distances[:, -1:] ** 2, 1e-300)
    shares = weights[places] * np.exp(-squares)
    found = np.zeros((len(z), count))
    np.add.at(found, (np.arange(len(z))[:, None], labels[places]), shares)
    return found / found.sum(axis=1, keepdims=True)


def carry(
    model: TrainedAction, points: np.ndarray, start: float, times: Sequence[float], seed: int = 0, sampling: SamplingConfig | None = None
) -> SimulatedPopulation:
    """Simulate cells forward or backward from one time to others.

    Args:
        model: a model of a population.
        points: coordinates of the cells in the table's units, (N, D).
        start: their time.
        times: where to return them, all at or after `start`, or all at or before it.
        seed: seed of the noise.
        sampling: settings of the solver; by default those of the run.

    Returns:
        The population at `times`, in their order away from `start`.

    Raises:
        UserError: if the times lie on both sides of the start or outside those trained on, or noisy dynamics are to go backward.
    """
    trained, wanted = trained_times(model), sorted(set(times))
    outside = [time for time in [start, *wanted] if not trained[0] <= time <= trained[-1]]
    if outside:
        raise UserError(
            f"times {first_few(f'{time:g}' for time in outside)}: the model knows {trained[0]:g} to {trained[-1]:g}: give times within"
        )
    if wanted[0] < start < wanted[-1]:
        raise UserError(f"times {wanted[0]:g} to {wanted[-1]:g} are on both sides of the start {start:g}: give one side at a time")
    backward = wanted[0] < start
    if backward and is_noisy(model):
        raise UserError(
            f"times {wanted[0]:g} before {start:g}: noisy dynamics (sigma > 0) cannot be simulated backward, since where a cell came from "
            "is not determined: start at an earlier time"
        )
    ordered = wanted[::-1] if backward else wanted
    moved = ordered if ordered[0] == start else [start, *ordered]
    x = torch.as_tensor(points).float()
    if len(moved) == 1:
        return SimulatedPopulation(moved, x[None], torch.zeros(1, len(x), dtype=torch.float64), 0)
    found = simulate_population(model, x, moved, sampling, seed)
    if not found.points.isfinite().all():
        raise Diverged(f"cells of time {start:g} are not finite after the simulation: more --steps may help")
    skip = len(moved) - len(ordered)
    shares = None if found.outside is None else found.outside[skip:]
    return SimulatedPopulation(ordered, found.points[skip:], found.log_weights[skip:], found.evaluations, shares)


def trained_times(model: TrainedAction) -> list[float]:
    """Return the times that a model of a population was trained on.

    Raises:
        UserError: if the model generates images.
    """
    data = model.config.data
    if data.kind == "images" or data.times is None or model.units is None:
        raise UserError(f"{model.source} generates images: expected a model of a population, as amgen train cells gives")
    return data.times


def is_noisy(model: TrainedAction) -> bool:
    """Return whether cells move by a stochastic equation."""
    return getattr(model.dynamics, "sigma", None) is not None
