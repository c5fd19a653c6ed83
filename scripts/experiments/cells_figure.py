"""The figure of `cells.py`: trajectories, growth, the size of the population, and the distances of all methods."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import MARKERS, mean_and_error, new_figure

from amgen import sampling
from amgen.data import SnapshotDataset
from amgen.dynamics import Dynamics
from amgen.sampling.populations import simulate_population


def plot(cells: SnapshotDataset, distances: dict[str, tuple[float, float]], masses: list[list[float]], model: sampling.Model) -> Any:
    """Return the figure.

    Args:
        cells: the table.
        distances: W1 and its standard error by method.
        masses: the mass of uAM at each time, for each seed.
        model: a model of uAM.
    """
    figure, axes = new_figure(2, 2, width=4.6, height=3.7)
    plane = plane_of(cells)
    plot_trajectories(axes[0, 0], cells, model, plane)
    shown = plot_growth(axes[0, 1], cells, model, plane)
    figure.colorbar(shown, ax=axes[0, 1], label="growth rate, per unit of time")
    plot_masses(axes[1, 0], cells, masses)
    names = list(distances)
    values, errors = zip(*distances.values(), strict=True)
    axes[1, 1].errorbar(values, names, xerr=errors, color="black", ls="", marker="o", ms=4, capsize=3)
    axes[1, 1].grid(axis="y", color="0.85")
    axes[1, 1].invert_yaxis()
    axes[1, 1].set(xlabel="W1 to held-out cells (table's units), ± std. error")
    return figure


def plane_of(cells: SnapshotDataset) -> Callable[[np.ndarray], np.ndarray]:
    """Return the map to the first two principal components of all cells."""
    everything = np.concatenate(cells.source.points)
    centre = everything.mean(axis=0)
    axes = np.linalg.svd(everything - centre, full_matrices=False)[2][:2]
    return lambda points: (points - centre) @ axes.T


def plot_trajectories(axis: Any, cells: SnapshotDataset, model: sampling.Model, plane: Callable[[np.ndarray], np.ndarray]) -> None:
    """Plot the cells of all times and some trajectories."""
    times = cells.source.times
    for place, points in enumerate(cells.source.points):
        gray = str(0.85 - 0.6 * place / (len(times) - 1))
        axis.scatter(*plane(points).T, s=3, color=gray, marker=MARKERS[place % 4], lw=0.3, label=f"time {times[place]:g}")
    fine = np.linspace(times[0], times[-1], 10 * (len(times) - 1) + 1)
    few = simulate_population(model, torch.tensor(cells.source.points[0][:25]), fine.tolist())
    for trajectory in few.points.double().numpy().transpose(1, 0, 2):
        axis.plot(*plane(trajectory).T, color="black", lw=0.7)
    axis.set(xlabel="principal component 1", ylabel="principal component 2", title="cells, and 25 trajectories of uAM")
    axis.legend(frameon=False, fontsize=7, markerscale=2)


def plot_growth(axis: Any, cells: SnapshotDataset, model: sampling.Model, plane: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Plot the growth rate of all cells at their times; return what a colour bar needs."""
    dynamics, times = Dynamics(model.action, model.dynamics, model.path), cells.source.times
    span, growth = times[-1] - times[0], []
    for place, points in enumerate(cells.source.points):
        t = (times[place] - times[0]) / span
        x = cells.units.transform(torch.as_tensor(points)).to(model.device)
        growth.append(dynamics.growth(min(t, 1.0), x).cpu().numpy() / span)
    everything = plane(np.concatenate(cells.source.points))
    axis.set(xlabel="principal component 1", ylabel="principal component 2", title="growth of the cells at their times, uAM")
    return axis.scatter(*everything.T, s=4, c=np.concatenate(growth), cmap="gray_r", edgecolors="0.6", lw=0.2)


def plot_masses(axis: Any, cells: SnapshotDataset, masses: list[list[float]]) -> None:
    """Plot the number of cells and the mass of uAM over time."""
    times = cells.source.times
    counts = np.array([len(points) for points in cells.source.points]) / len(cells.source.points[0])
    means, errors = np.array([mean_and_error([run[place] for run in masses]) for place in range(len(times))]).T
    axis.plot(times, counts, color="0.6", lw=3, label="rows of the table")
    axis.errorbar(times, means, np.nan_to_num(errors), color="black", ls="--", marker="o", capsize=3, label="mass of uAM")
    axis.set(xlabel="time (table's unit)", ylabel="population, first time = 1", ylim=(0, None), xticks=times)
    axis.legend(frameon=False)
