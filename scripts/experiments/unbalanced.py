"""Does unbalanced Action Matching grow mass where balanced Action Matching must transport it?

The data are three mixture components whose weights change while they stay in place. The run is that of `amgen train mixture-unbalanced`;
Action Matching is trained beside it, in the folder of that run's name and -balanced, on the same weighted samples by the marginal form,
which balanced dynamics can only explain by transport. For both: the shares of the components at t = 1 against the exact ones, half the sum
of the differences, the mean distance that points moved, the effective sample size (ESS), that of growth alone (ideal), and the total mass.
Takes some minutes on one core, training of the run aside.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    MARKERS,
    add_outputs,
    new_figure,
    new_parser,
    parse,
    print_conditions,
    print_table,
    save_figure,
    save_report,
    script,
    train_and_load,
)

from amgen import sampling
from amgen.config import Config, change
from amgen.core.errors import UserError
from amgen.data.systems.mixture import Mixture
from amgen.data.systems.simulation import rng_of
from amgen.sampling import effective_sample_size
from amgen.sampling.populations import SimulatedPopulation, simulate_population

BALANCED = {"dynamics": {"kind": "balanced"}, "loss": {"form": "marginal"}}


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, measure and print."""
    options = parse_options(arguments)
    model = sampling.load(options.run)
    if model.config.data.kind != "simulated" or model.config.data.system != "mixture":
        raise UserError(f"{options.run} is not a run of the preset mixture-unbalanced")
    mixture, times = Mixture(), np.linspace(0, 1, 11)
    points, _ = mixture.sample(options.num, rng_of(options.seed, 0))
    beside = train_and_load(balanced(model.config), options.run.with_name(f"{options.run.name}-balanced"))
    models = {"uAM": model, "AM": beside}
    populations = {name: simulate_population(run, torch.tensor(points), times.tolist()) for name, run in models.items()}
    rows = {name: measure(mixture, population) for name, population in populations.items()}
    print_table(
        ["method", "shares at t = 1", "distance", "moved", "ESS", "of ideal", "mass"],
        [["exact", in_words(mixture.shares(1)), *[""] * 5], *([name, *cells_of(row)] for name, row in rows.items())],
    )
    print_conditions(
        options,
        f"{options.num:,} points, seed {options.seed}",
        f"exact shares at t = 0: {in_words(mixture.shares(0))}",
        *(f"{name}: {run.in_words(run.describe())}, NFE {populations[name].evaluations}" for name, run in models.items()),
        device=model.device,
    )
    if options.json:
        save_report({"points": options.num, "seed": options.seed, **rows}, options.json)
    if options.figure:
        save_figure(plot(mixture, populations), options.figure)


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("run", type=Path, help="run directory of `amgen train mixture-unbalanced`")
    parser.add_argument("--num", type=int, default=4000, help="points to simulate")
    parser.add_argument("--seed", type=int, default=1, help="seed of the points; the training's is 0")
    add_outputs(parser)
    return parse(parser, arguments)


def balanced(settings: Config) -> Config:
    """Return the options of Action Matching on the same samples."""
    return change(settings, {**BALANCED, "data": {**settings.data.model_dump(mode="json"), "times": None, "origin": None, "axes": None}})


def measure(mixture: Mixture, population: SimulatedPopulation) -> dict[str, Any]:
    """Return what became of the population at t = 1."""
    log_weights = population.log_weights[-1]
    weights = np.exp(log_weights.numpy())
    end, start = population.points[-1].double().numpy(), population.points[0].double().numpy()
    shares = shares_of(mixture, end, weights)
    ratio = mixture.shares(1) / mixture.shares(0)
    ideal = float((mixture.shares(0) @ ratio) ** 2 / (mixture.shares(0) @ ratio**2) * len(end))
    return {
        "shares": shares.tolist(),
        "distance": float(0.5 * np.abs(shares - mixture.shares(1)).sum()),
        "moved": float(np.linalg.norm(end - start, axis=1).mean()),
        "effective_sample_size": effective_sample_size(log_weights.tolist()),
        "ideal_sample_size": ideal,
        "mass": float(weights.mean()),
    }


def cells_of(row: dict[str, Any]) -> list[str]:
    """Return the cells of a row of the table."""
    size, ideal = row["effective_sample_size"], row["ideal_sample_size"]
    numbers = [f"{row['distance']:.3f}", f"{row['moved']:.2f}", f"{size:,.0f}", f"{size / ideal:.2f}", f"{row['mass']:.3f}"]
    return [in_words(row["shares"]), *numbers]


def in_words(shares: Sequence[float] | np.ndarray) -> str:
    """Return shares in words."""
    return " ".join(f"{share:.3f}" for share in shares)


def shares_of(mixture: Mixture, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the share of the weight that is nearest to each component."""
    sums = np.bincount(mixture.nearest(points), weights=weights, minlength=len(mixture.centres))
    return sums / sums.sum()


def plot(mixture: Mixture, populations: dict[str, SimulatedPopulation]) -> Any:
    """Return a figure: where points end, with areas in proportion to their weights, and the shares over time."""
    figure, axes = new_figure(1, 3, width=3.6, height=3.4)
    for axis, (name, found) in zip(axes[0], populations.items(), strict=False):
        chosen = slice(0, 500)
        start, end = found.points[0, chosen].numpy(), found.points[-1, chosen].numpy()
        axis.plot(*np.stack([start, end]).transpose(2, 0, 1), color="0.8", lw=0.4, zorder=1)
        axis.scatter(*end.T, s=6 * np.exp(found.log_weights[-1, chosen].numpy()), color="black", lw=0, alpha=0.6, zorder=2)
        axis.set(xlabel="x₁", ylabel="x₂", title=f"{name}: points at t = 1, area = mass")
        axis.set_aspect("equal", adjustable="datalim")
    right = axes[0, 2]
    for number, (name, found) in enumerate(populations.items()):
        shares = np.stack(
            [shares_of(mixture, x.double().numpy(), w.exp().numpy()) for x, w in zip(found.points, found.log_weights, strict=True)]
        )
        for component, series in enumerate(shares.T):
            right.plot(
                found.times, series, ls="", marker=MARKERS[number], ms=4, color="black", mfc="none", label=name if component == 0 else None
            )
    exact = np.stack([mixture.shares(t) for t in (0, 1)])
    for component, series in enumerate(exact.T):
        right.plot((0, 1), series, color="0.5", lw=1, label="exact" if component == 0 else None)
        right.annotate(
            f"component {component + 1}",
            (0.02, series[0]),
            textcoords="offset points",
            xytext=(0, 8 if series[1] <= series[0] else -14),
            fontsize=8,
        )
    right.set(xlabel="time t", ylabel="share of the mass", ylim=(0, 0.72))
    right.legend(frameon=False, fontsize=8, loc="upper center")
    return figure


if __name__ == "__main__":
    main()
