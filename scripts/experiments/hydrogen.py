"""Does a trained action move the hydrogen atom's electron as the Schrödinger equation does?

Samples of |psi|^2 at t = 0 that training has not seen are simulated along the action; at each of 10 later times they are compared with
independent Metropolis samples of |psi|^2 there, by the unbiased MMD^2 with the kernel 3 exp(-1e-4 |x - y|^2) (three equal terms, as
published with Action Matching, arXiv 2210.06662). Baselines: samples that are not moved; independent samples, the floor that the estimate's
noise sets; annealed Langevin dynamics, which follows the density by evaluating a score: the action's number of evaluations (x1) or ten
times that (x10), with the true score, and with one learned by sliced score matching (arXiv 1905.07088) from the same training samples. The
size of Langevin steps is the best of several, chosen by the result itself.

Published: Action Matching (5.66 +- 3.06)e-4, Langevin 3.6e-3 with the true score and 4.7e-2 with a learned one. Takes 10 minutes on one
core, training aside.
"""

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    LINES,
    MARKERS,
    add_outputs,
    mean_and_error,
    new_figure,
    new_parser,
    parse,
    print_conditions,
    print_table,
    progress,
    save_figure,
    save_report,
    script,
    seconds,
    with_error,
)
from torch import Tensor, nn
from torch.func import jvp

from amgen import sampling
from amgen.actions import MLP
from amgen.config import Config
from amgen.core.errors import UserError
from amgen.data import SnapshotDataset, open_dataset, training_stream
from amgen.data.systems.hydrogen import BOHR_RADIUS, SPAN, Superposition
from amgen.data.systems.simulation import rng_of
from amgen.evaluation.distances import gaussian_kernel, mmd_squared
from amgen.model.build import build_path
from amgen.paths import StratifiedTimes
from amgen.sampling.populations import simulate_population

KERNEL = gaussian_kernel(1e-4, factor=3)
STEP_SIZES = (1.0, 3.0, 10.0, 30.0, 100.0)
"""Squared lengths of a Langevin step."""
Score = Callable[[np.ndarray, float], np.ndarray]
"""grad log q_t of points (N, 3) at a time in atomic units."""


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = parse_options(arguments)
    model = load_model(options.run, options.seed)
    wave, times = Superposition(), np.linspace(0, SPAN, options.times + 1)
    start = wave.metropolis(options.num, 0.0, rng_of(options.seed, 0))
    truth = [wave.metropolis(options.num, t, rng_of(options.seed, place)) for place, t in enumerate(times[1:], start=1)]
    solver = model.options({"solver": "rk4", "steps": options.steps})
    population = simulate_population(model, torch.tensor(start), times.tolist(), solver)
    points = {"action matching": list(population.points[1:].double().numpy())}
    points |= baselines(options, model, wave, start, times, truth, population.evaluations)
    distances = {name: [mmd_squared(x, y, KERNEL) for x, y in zip(found, truth, strict=True)] for name, found in points.items()}

    print_table(["method", "MMD²", "largest"], [[name, *cells_of(values)] for name, values in distances.items()])
    identity = {**model.describe(), "solver": "rk4", "steps between times": options.steps, "NFE": population.evaluations}
    ratio = np.mean(distances["not moved"]) / np.mean(distances["action matching"])
    print_conditions(
        options,
        f"means over {options.times} times, {options.num:,} samples on each side, seed {options.seed}",
        f"not moved / action matching: {ratio:.0f}",
        model.in_words(identity),
        device=model.device,
    )
    if options.json:
        means = {name: float(np.mean(values)) for name, values in distances.items()}
        conditions = {"samples": options.num, "seed": options.seed, "score_samples": options.score_samples}
        save_report({**identity, **conditions, "mean": means, "mmd2": distances}, options.json)
    if options.figure:
        save_figure(plot(times, population.points.numpy(), [start, *truth], distances), options.figure)


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("run", type=Path, help="run directory of `amgen train hydrogen`")
    parser.add_argument("--num", type=int, default=5000, help="samples on each side")
    parser.add_argument("--times", type=int, default=10, help="equidistant times to compare at")
    parser.add_argument("--steps", type=int, default=6, help="steps of rk4 from one of them to the next")
    parser.add_argument("--seed", type=int, default=1, help="seed of the samples; the training's is 0")
    parser.add_argument("--score-samples", type=int, default=1_000_000, help="samples to learn the score from; 0 to do without")
    add_outputs(parser)
    return parse(parser, arguments)


def load_model(run: Path, seed: int) -> sampling.Model:
    """Load a run of the preset hydrogen.

    Raises:
        UserError: if the run is of another preset, or its training samples have the seed `seed`.
    """
    model = sampling.load(run)
    if model.config.data.kind != "simulated" or model.config.data.system != "hydrogen":
        raise UserError(f"{run} is not a run of the preset hydrogen")
    if model.config.data.seed == seed:
        raise UserError(f"--seed {seed} is that of the training samples: choose another")
    return model


def baselines(
    options: argparse.Namespace,
    model: sampling.Model,
    wave: Superposition,
    start: np.ndarray,
    times: np.ndarray,
    truth: list[np.ndarray],
    evaluations: int,
) -> dict[str, list[np.ndarray]]:
    """Return the points of each baseline at all times but the first; Langevin dynamics has multiples of `evaluations` scores."""
    found = {
        f"Langevin, true score, x{factor}": best_langevin(wave.score, start, times, truth, factor * evaluations, options.seed)
        for factor in (1, 10)
    }
    if options.score_samples:
        score = learn_score(model.config, options.score_samples)
        found["Langevin, learned score, x1"] = best_langevin(score, start, times, truth, evaluations, options.seed)
    fresh = [wave.metropolis(options.num, t, rng_of(options.seed, -place)) for place, t in enumerate(times[1:], start=1)]
    return {**found, "not moved": [start] * options.times, "independent samples (floor)": fresh}


def cells_of(distances: list[float]) -> list[str]:
    """Return the mean of the distances with its standard error, and the largest."""
    return [with_error(*mean_and_error(distances), ".3g", ".1g"), f"{max(distances):.2g}"]


def langevin(score: Score, start: np.ndarray, times: np.ndarray, evaluations: int, size: float, seed: int) -> list[np.ndarray]:
    """Follow the density from its samples `start` at times[0]; return what is there at the others. Each step is at a time of its own."""
    rng, x, found = rng_of(seed, 1000), start, []
    steps = evaluations // (len(times) - 1)
    for first, last in pairwise(times):
        for step in range(1, steps + 1):
            # Beside a node the score is large, and a step may end where psi is 0 in float64. There is no score there: points diffuse.
            slope = np.nan_to_num(score(x, first + (last - first) * step / steps), nan=0.0, posinf=0.0, neginf=0.0)
            x = x + 0.5 * size * slope + np.sqrt(size) * rng.normal(size=x.shape)
        found.append(x)
    return found


def best_langevin(
    score: Score, start: np.ndarray, times: np.ndarray, truth: list[np.ndarray], evaluations: int, seed: int
) -> list[np.ndarray]:
    """Return the result of the step size whose mean MMD^2 is least."""
    runs = [langevin(score, start, times, evaluations, size, seed) for size in STEP_SIZES]
    return min(runs, key=lambda run: sum(mmd_squared(x[:1000], y[:1000], KERNEL) for x, y in zip(run, truth, strict=True)))


def learn_score(settings: Config, samples: int, batch: int = 500) -> Score:
    """Learn grad log q_t by sliced score matching with an MLP as large as the action's, from the samples that trained the action."""
    options = settings.action
    dataset = open_dataset(settings.data)
    assert isinstance(dataset, SnapshotDataset)
    assert options.kind == "mlp"
    torch.manual_seed(0)
    network = MLP(3, options.width, options.depth, options.time_frequency, options.time_features)
    stream, path, times, steps = training_stream(dataset, 0), build_path(settings), StratifiedTimes(), samples // batch
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)

    def train() -> None:
        for step in range(steps):
            items = stream.__getitems__(range(step * batch, (step + 1) * batch))
            sample = path.sample(times.sample(0, step, range(batch), batch)[0].float(), items.noise, items.images)
            optimizer.zero_grad()
            sliced_loss(network, sample.t, sample.x, torch.randn_like(sample.x)).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            decay.step()

    progress(f"learned the score from {steps * batch:,} samples in {seconds(train):.0f} s")
    units = dataset.units
    inverse = torch.linalg.inv(units.axes)

    def score(x: np.ndarray, t: float) -> np.ndarray:
        with torch.no_grad():
            slope = network(torch.full((len(x),), t / SPAN), units.transform(torch.as_tensor(x)))
        return (slope.double() @ inverse).numpy()

    return score


def sliced_loss(network: nn.Module, t: Tensor, x: Tensor, directions: Tensor) -> Tensor:
    """Return the mean of 1/2 |f|^2 + e . df/dx e over the batch, e being random directions."""
    value, change = jvp(lambda point: network(t, point), (x,), (directions,))[:2]
    return (0.5 * value.square().sum(dim=1) + (directions * change).sum(dim=1)).mean()


def plot(times: np.ndarray, simulated: np.ndarray, truth: list[np.ndarray], distances: dict[str, list[float]]) -> Any:
    """Return a figure: densities in the plane of the orbit at some times, above the distances over time."""
    shown = np.linspace(0, len(times) - 1, 5).round().astype(int)
    figure, axes = new_figure(3, len(shown), width=2.4, height=2.5)
    reach = 12 * BOHR_RADIUS
    bins = np.linspace(-reach, reach, 36)
    for column, place in enumerate(shown):
        for row, (name, points) in enumerate({"Metropolis": truth[place], "action": simulated[place]}.items()):
            axes[row, column].hist2d(points[:, 0], points[:, 1], bins=[bins, bins], cmap="gray_r")
            axes[row, column].set(title=f"{name}, t = {times[place]:,.0f}", aspect="equal", xlabel="x (hbar = m = e = ε₀ = 1)")
        for row in range(2):
            axes[row, column].set_ylabel("y" if column == 0 else "")
    grid = axes[2, 0].get_gridspec()
    for axis in axes[2]:
        axis.remove()
    below = figure.add_subplot(grid[2, :])
    for number, (name, values) in enumerate(distances.items()):
        below.plot(times[1:], np.maximum(values, 1e-5), color="black", ls=LINES[number], marker=MARKERS[number], ms=4, lw=1, label=name)
    below.set(yscale="log", xlabel="time t (hbar = m = e = ε₀ = 1)", ylabel="MMD² to Metropolis samples\n(below 1e-5 shown there)")
    below.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


if __name__ == "__main__":
    main()
