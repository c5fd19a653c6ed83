"""Where does mass go? Unbalanced Action Matching beside Action Matching, on three bells whose weights move while they stay in place.

The run is that of `amgen train mixture-unbalanced`; Action Matching is trained beside it, in the folder of that run's name and -balanced,
on the same weighted samples by the marginal form, which balanced dynamics can only explain by transport. For both: the shares of the bells
at t = 1 against the exact ones, how far points were moved, the effective sample size, and the total mass.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments import MARKERS, new_figure, save_figure, save_report

from amgen import sampling
from amgen.config import Config, change
from amgen.core.errors import UserError
from amgen.data.systems.mixture import Mixture
from amgen.data.systems.simulation import rng_of
from amgen.sampling import effective_sample_size
from amgen.sampling.populations import SimulatedPopulation, simulate_population
from amgen.training.main import train

BALANCED = {"dynamics": {"kind": "balanced"}, "loss": {"form": "marginal"}}


def main() -> None:
    """Train what is missing, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory of `amgen train mixture-unbalanced`")
    parser.add_argument("--num", type=int, default=4000, help="points to carry")
    parser.add_argument("--seed", type=int, default=1, help="seed of the points; the training's is 0")
    parser.add_argument("--json", type=Path, help="file for the report")
    parser.add_argument("--figure", type=Path, help="file for the figure: .png, .pdf or .svg")
    options = parser.parse_args()
    model = sampling.load(options.run)
    if model.config.data.kind != "simulated" or model.config.data.system != "mixture":
        raise UserError(f"{options.run} is not a run of the preset mixture-unbalanced")
    beside = options.run.with_name(f"{options.run.name}-balanced")
    train(balanced(model.config), beside)

    mixture, times = Mixture(), np.linspace(0, 1, 11)
    points, _ = mixture.sample(options.num, rng_of(options.seed, 0))
    runs = {"uAM": model, "AM": sampling.load(beside)}
    carried = {name: simulate_population(run, torch.tensor(points), times.tolist()) for name, run in runs.items()}
    rows = {name: measure(mixture, found) for name, found in carried.items()}
    print(
        f"{options.num} points, seed {options.seed}; exact shares {np.round(mixture.shares(0), 3)} at t = 0, {mixture.shares(1)} at t = 1"
    )
    print(f"{'':4} {'shares at t = 1':>22} {'distance':>9} {'moved':>6} {'ESS':>7} {'of ideal':>8} {'mass':>6}")
    for name, row in rows.items():
        shares = " ".join(f"{share:.3f}" for share in row["shares"])
        print(
            f"{name:4} {shares:>22} {row['distance']:9.3f} {row['moved']:6.2f} {row['effective_sample_size']:7.0f} "
            f"{row['effective_sample_size'] / row['ideal_sample_size']:8.2f} {row['mass']:6.3f}"
        )
    for name, run in runs.items():
        print(f"{name}: {run.in_words(run.describe())}, NFE {carried[name].evaluations}")
    if options.json:
        save_report({"points": options.num, "seed": options.seed, **rows}, options.json)
    if options.figure:
        draw(options.figure, mixture, carried)


def balanced(settings: Config) -> Config:
    """Return the options of Action Matching on the same samples."""
    return change(settings, {**BALANCED, "data": {**settings.data.model_dump(mode="json"), "times": None, "origin": None, "axes": None}})


def measure(mixture: Mixture, carried: SimulatedPopulation) -> dict[str, Any]:
    """Return what became of the population at t = 1."""
    log_weights = carried.log_weights[-1]
    weights = np.exp(log_weights.numpy())
    end, start = carried.points[-1].double().numpy(), carried.points[0].double().numpy()
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


def shares_of(mixture: Mixture, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the share of the weight that is nearest to each bell."""
    sums = np.bincount(mixture.nearest(points), weights=weights, minlength=len(mixture.centres))
    return sums / sums.sum()


def draw(file: Path, mixture: Mixture, carried: dict[str, SimulatedPopulation]) -> None:
    """Draw where points end, as large as their weight, and the shares over time."""
    figure, axes = new_figure(1, 3, width=3.6, height=3.4)
    for axis, (name, found) in zip(axes[0], carried.items(), strict=False):
        chosen = slice(0, 500)
        start, end = found.points[0, chosen].numpy(), found.points[-1, chosen].numpy()
        axis.plot(*np.stack([start, end]).transpose(2, 0, 1), color="0.8", lw=0.4, zorder=1)
        axis.scatter(*end.T, s=6 * np.exp(found.log_weights[-1, chosen].numpy()), color="black", lw=0, alpha=0.6, zorder=2)
        axis.set(xlabel="x₁", ylabel="x₂", title=f"{name}: points at t = 1, area = mass")
        axis.set_aspect("equal", adjustable="datalim")
    right = axes[0, 2]
    for number, (name, found) in enumerate(carried.items()):
        shares = np.stack(
            [shares_of(mixture, x.double().numpy(), w.exp().numpy()) for x, w in zip(found.points, found.log_weights, strict=True)]
        )
        for bell, series in enumerate(shares.T):
            right.plot(
                found.times, series, ls="", marker=MARKERS[number], ms=4, color="black", mfc="none", label=name if bell == 0 else None
            )
    exact = np.stack([mixture.shares(t) for t in (0, 1)])
    for bell, series in enumerate(exact.T):
        right.plot((0, 1), series, color="0.5", lw=1, label="exact" if bell == 0 else None)
        right.annotate(
            f"bell {bell + 1}", (0.02, series[0]), textcoords="offset points", xytext=(0, 8 if series[1] <= series[0] else -14), fontsize=8
        )
    right.set(xlabel="time t", ylabel="share of the mass", ylim=(0, 0.72))
    right.legend(frameon=False, fontsize=8, loc="upper center")
    save_figure(figure, file)


if __name__ == "__main__":
    main()
