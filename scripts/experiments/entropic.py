"""Does entropic Action Matching find the drift of a diffusing population?

The run is that of `amgen train ornstein-uhlenbeck`: snapshots of dx = -rate (x - centre) dt + sigma dW. Its drift is the gradient of a
potential, so that the action can represent it exactly. For several times: the root mean square of the drift's error over q_t beside that of
the drift itself; mean and variance of a population simulated along the action by the SDE, against the closed form. Takes half a minute on
one core, training aside.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import add_outputs, new_figure, new_parser, parse, print_conditions, print_table, save_figure, save_report, script

from amgen import sampling
from amgen.core.errors import UserError
from amgen.data.systems.ornstein_uhlenbeck import OrnsteinUhlenbeck
from amgen.data.systems.simulation import rng_of
from amgen.dynamics import Dynamics
from amgen.sampling.populations import SimulatedPopulation, simulate_population


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = parse_options(arguments)
    model = sampling.load(options.run)
    if model.config.data.kind != "simulated" or model.config.data.system != "ornstein-uhlenbeck":
        raise UserError(f"{options.run} is not a run of the preset ornstein-uhlenbeck")
    process, times = OrnsteinUhlenbeck(), np.linspace(0, 1, 21)
    start = process.sample(options.num, 0.0, rng_of(options.seed, 0))
    solver = model.options({"steps": options.steps})
    population = simulate_population(model, torch.tensor(start), times.tolist(), solver, options.seed)
    rows = [measure(model, process, population, place, options.seed) for place in range(0, len(times), 5)]

    print_table(["t", "drift, rms", "its error", "mean", "exact", "variance", "exact"], map(cells_of, rows))
    identity = {**model.describe(), "solver": solver.solver, "steps between times": solver.steps, "NFE": population.evaluations}
    error = (process.variance(1) / options.num).max() ** 0.5
    print_conditions(
        options,
        f"{options.num:,} points, seed {options.seed}",
        f"standard errors of a mean about {error:.1g}",
        model.in_words(identity),
        device=model.device,
    )
    if options.json:
        save_report({**identity, "points": options.num, "seed": options.seed, "times": rows}, options.json)
    if options.figure:
        save_figure(plot(model, process, population), options.figure)


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("run", type=Path, help="run directory of `amgen train ornstein-uhlenbeck`")
    parser.add_argument("--num", type=int, default=2000, help="points to simulate")
    parser.add_argument("--steps", type=int, default=8, help="steps of the solver from one of 21 times to the next")
    parser.add_argument("--seed", type=int, default=1, help="seed of the points and of their noise; the training's is 0")
    add_outputs(parser)
    return parse(parser, arguments)


def measure(model: sampling.Model, process: OrnsteinUhlenbeck, population: SimulatedPopulation, place: int, seed: int) -> dict[str, Any]:
    """Return the drift's error and the moments of the population at one of its times."""
    t, points = population.times[place], population.points[place].double().numpy()
    x = process.sample(len(points), t, rng_of(seed, place + 1))
    error = drift(model, t, x) - process.drift(x)
    return {
        "t": t,
        "drift": float(np.sqrt((process.drift(x) ** 2).sum(axis=1).mean())),
        "error": float(np.sqrt((error**2).sum(axis=1).mean())),
        "mean": points.mean(axis=0).tolist(),
        "exact_mean": process.mean(t).tolist(),
        "variance": points.var(axis=0).tolist(),
        "exact_variance": process.variance(t).tolist(),
    }


def cells_of(row: dict[str, Any]) -> list[str]:
    """Return the cells of a row of the table."""
    moments = [" ".join(f"{value:.3f}" for value in row[key]) for key in ("mean", "exact_mean", "variance", "exact_variance")]
    return [f"{row['t']:.2f}", f"{row['drift']:.3f}", f"{row['error']:.3f}", *moments]


def drift(model: sampling.Model, t: float, x: np.ndarray) -> np.ndarray:
    """Return the learned drift at points (N, 2), in the population's own units, which training left as they are."""
    dynamics = Dynamics(model.action, model.dynamics, model.path)
    return dynamics.drift(t, torch.tensor(x, dtype=torch.float32, device=model.device)).double().cpu().numpy()


def plot(model: sampling.Model, process: OrnsteinUhlenbeck, population: SimulatedPopulation) -> Any:
    """Return a figure: trajectories with the exact spread, and the drift along the first coordinate."""
    figure, axes = new_figure(1, 3, width=3.4, height=3.1)
    times = np.asarray(population.times)
    fine = np.linspace(0, 1, 101)
    for coordinate in range(2):
        axis = axes[0, coordinate]
        axis.plot(times, population.points[:, :40, coordinate].numpy(), color="0.6", lw=0.5)
        mean = np.array([process.mean(t)[coordinate] for t in fine])
        spread = 2 * np.sqrt([process.variance(t)[coordinate] for t in fine])
        axis.plot(fine, mean, color="black", lw=1.5, label="exact mean")
        axis.plot(fine, np.stack([mean - spread, mean + spread], axis=1), color="black", lw=1, ls="--", label=["± 2 deviations", None])
        points = population.points[..., coordinate].double().numpy()
        axis.plot(times[::4], points.mean(axis=1)[::4], "ko", ms=4, mfc="white", label="learned mean")
        axis.set(xlabel="time t", ylabel=f"x{'₁₂'[coordinate]}", title="40 learned trajectories")
    axes[0, 0].legend(frameon=False, fontsize=7)
    x = np.stack([np.linspace(-2.5, 2.5, 60), np.zeros(60)], axis=1)
    right = axes[0, 2]
    right.plot(x[:, 0], process.drift(x)[:, 0], color="0.6", lw=4, label="exact")
    for t, style in zip((0.0, 0.5, 1.0), ("-", "--", ":"), strict=True):
        near = np.abs(x[:, 0] - process.mean(t)[0]) < 3 * np.sqrt(process.variance(t)[0])
        right.plot(x[near, 0], drift(model, t, x)[near, 0], color="black", ls=style, label=f"learned, t = {t:g}")
    right.set(xlabel="x₁ (x₂ = 0)", ylabel="drift of x₁", title="within 3 deviations of the mean")
    right.legend(frameon=False, fontsize=7)
    return figure


if __name__ == "__main__":
    main()
