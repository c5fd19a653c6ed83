"""The motion of cells between times at which each is seen once: how well is a time predicted that was held out of training?

For each time between the first and the last: train without it, carry the cells of the time before it to it, and measure W1, W2 and MMD^2
to the cells found there, in the table's units. MMD^2 is unbiased, its kernel exp(-|x - y|^2 / median of |x - y|^2 over the cells found).
Compared are Action Matching (AM), its entropic (eAM) and unbalanced (uAM) kinds, each in conditional and marginal form, all with chains
coupled by optimal transport; the cells of the time before, not moved; the displacement interpolation of the exact optimal transport
between the neighbouring times (which needs no training); and, where torchcfm is installed, OT-CFM (arXiv 2302.00482), a vector field of the
same size, learned from as many samples with the same learning rates, carried by the same solver. Then uAM is trained on all times with the
number of rows as the mass, and the size of its population compared with that of the table.

Runs are kept in --runs, and a second call measures without training again.
"""

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments import MARKERS, mean_and_error, new_figure, save_figure, save_report

from amgen import config, sampling
from amgen.actions import MLP
from amgen.config import Config
from amgen.core.errors import UserError
from amgen.core.randomness import Purpose, derive_seed
from amgen.data import SnapshotDataset, Snapshots, open_dataset
from amgen.dynamics import Dynamics
from amgen.evaluation.distances import gaussian_kernel, mmd_squared, wasserstein
from amgen.sampling.populations import SimulatedPopulation, simulate_population
from amgen.solvers import FIXED_STEP, StepGrid
from amgen.training.main import train

MARGINAL = ["loss.form=marginal"]
ENTROPIC = [
    "dynamics.kind=entropic",
    "dynamics.sigma=0.3",
    "dynamics.schedule=constant",
    "path.noise=0.1",
    "sampling.solver=stochastic-heun",
]
UNBALANCED = ["dynamics.kind=unbalanced", "dynamics.rate=0.02", "data.counts=true"]
FAMILY = {
    "AM conditional": [],
    "AM marginal": MARGINAL,
    "eAM conditional": ENTROPIC,
    "eAM marginal": [*ENTROPIC, *MARGINAL],
    "uAM conditional": UNBALANCED,
    "uAM marginal": [*UNBALANCED, *MARGINAL],
}
METRICS = ("W1", "W2", "MMD2")
Cloud = tuple[np.ndarray, np.ndarray | None]
"""Points (N, D) and their weights (N,), None for equal ones."""


def main() -> None:
    """Train what is missing, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="table of cells, such as emt.csv")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each kind, with the seeds 0, 1, ...")
    parser.add_argument("--images", type=int, default=60_000, help="samples to train each on")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change an option of the preset")
    parser.add_argument("--runs", type=Path, default=Path("runs/cells"), help="folder for the runs")
    parser.add_argument("--json", type=Path, help="file for the report")
    parser.add_argument("--figure", type=Path, help="file for the figure: .png, .pdf or .svg")
    options = parser.parse_args()
    if importlib.util.find_spec("ot") is None:
        raise UserError("distances between populations of unequal size need POT: pip install 'amgen[ot]'")
    common = [f"data.path={options.data}", f"training.images={options.images}", "training.sample_every=0", *options.overrides]
    whole = open_dataset(config.load("cells", common).data)
    assert isinstance(whole, SnapshotDataset)

    found: dict[str, list[dict[str, float]]] = {}
    for time in whole.source.times[1:-1]:
        for name, clouds in predictions(common, options, whole.source, time).items():
            found.setdefault(name, []).append(average([measure(cloud, whole.source, time) for cloud in clouds]))
            print(f"held out {time:g}: {name:22} {describe(found[name][-1])}", flush=True)
    table = {name: average(rows) for name, rows in found.items()}
    print(f"mean over {len(whole.source.times) - 2} held-out times, {options.seeds} seeds, {options.images:,} samples each, {options.data}")
    for name, row in table.items():
        print(f"{name:22} {describe(row)}")
    sizes, population, model = grow(common, options, whole)
    print(f"{'time':>6} {'rows, share of the first':>25} {'mass of uAM':>20}")
    for place, time in enumerate(population.times):
        mean, error = mean_and_error([run[place] for run in sizes])
        print(f"{time:6g} {len(whole.source.points[place]) / len(whole.source.points[0]):25.3f} {mean:12.3f} +- {error:.3f}")
    if options.json:
        conditions = {
            "data": str(options.data),
            "fingerprint": whole.source.fingerprint(),
            "seeds": options.seeds,
            "images": options.images,
        }
        save_report({**conditions, "mean": table, "held out": found, "population": sizes}, options.json)
    if options.figure:
        draw(options.figure, whole, table, sizes, population, model)


def describe(row: dict[str, float]) -> str:
    """Return the metrics in words."""
    errors = {name: f" +- {row[name + ' error']:.4f}" if row[name + " error"] else " " * 10 for name in METRICS}
    return "  ".join(f"{name} {row[name]:.4f}{errors[name]}" for name in METRICS).rstrip()


def predictions(common: list[str], options: argparse.Namespace, cells: Snapshots, time: float) -> dict[str, list[Cloud]]:
    """Return what each method expects at the time held out, once for each seed."""
    place = list(cells.times).index(time)
    before = cells.points[place - 1]
    found: dict[str, list[Cloud]] = {"not moved": [(before, None)], "displacement, OT": [displace(cells, place)]}
    for name, overrides in FAMILY.items():
        clouds = []
        for seed in range(options.seeds):
            settings = config.load("cells", [*common, *overrides, f"seed={seed}", f"data.hold_out={time}"])
            model = trained(settings, options.runs / f"{name.replace(' ', '-')}-{time:g}-{seed}")
            carried = simulate_population(model, torch.tensor(before), [cells.times[place - 1], time], seed=seed)
            weights = carried.log_weights[-1].exp().numpy() if "uAM" in name else None
            clouds.append((carried.points[-1].double().numpy(), weights))
        found[name] = clouds
    if importlib.util.find_spec("torchcfm") is not None:
        settings = config.load("cells", [*common, f"data.hold_out={time}"])
        found["OT-CFM"] = [(flow_matching(settings, before, place, seed), None) for seed in range(options.seeds)]
    return found


def trained(settings: Config, run: Path) -> sampling.Model:
    """Train a run unless it is there, and load it."""
    train(settings, run)
    return sampling.load(run)


def displace(cells: Snapshots, place: int) -> Cloud:
    """Return the displacement interpolation between the neighbours of a time."""
    import ot

    first, last = cells.points[place - 1], cells.points[place + 1]
    plan = ot.emd(np.full(len(first), 1 / len(first)), np.full(len(last), 1 / len(last)), ot.dist(first, last), numItermax=10_000_000)
    i, j = plan.nonzero()
    share = (cells.times[place] - cells.times[place - 1]) / (cells.times[place + 1] - cells.times[place - 1])
    return (1 - share) * first[i] + share * last[j], plan[i, j]


def flow_matching(settings: Config, cells: np.ndarray, place: int, seed: int) -> np.ndarray:
    """Learn a vector field by OT-CFM from all times but the one at `place`, and carry the cells of the time before to it."""
    from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher

    dataset, options, training = open_dataset(settings.data), settings.action, settings.training
    assert isinstance(dataset, SnapshotDataset)
    assert options.kind == "mlp"
    torch.manual_seed(derive_seed(seed, Purpose.INITIAL_WEIGHTS, 0))
    np.random.seed(seed)  # noqa: NPY002 (POT's sampling of the plan in torchcfm)
    field = MLP(settings.shape[0], options.width, options.depth, options.time_frequency, options.time_features)
    matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=0.1)
    points = [dataset.units.transform(torch.as_tensor(part)) for part in dataset.source.points]
    first, span = dataset.source.times[0], dataset.source.times[-1] - dataset.source.times[0]
    times = [(time - first) / span for time in dataset.source.times]
    intervals = len(times) - 1
    steps, part = training.images // training.batch_size, training.batch_size // intervals
    optimizer = torch.optim.Adam(field.parameters(), lr=training.learning_rate)
    for step in range(steps):
        for group in optimizer.param_groups:
            rise = (step + 1) * training.batch_size / training.warmup_images
            group["lr"] = training.learning_rate * min(1.0, rise, (1 - step / steps) / training.decay)
        batches = []
        for number in range(intervals):
            start, end = (group[torch.randint(len(group), (part,))] for group in points[number : number + 2])
            t, x, velocity = matcher.sample_location_and_conditional_flow(start, end)
            length = times[number + 1] - times[number]
            batches.append((times[number] + length * t, x, velocity / length))
        t, x, velocity = (torch.cat(parts) for parts in zip(*batches, strict=True))
        optimizer.zero_grad()
        (field(t, x) - velocity).square().sum(dim=1).mean().backward()
        optimizer.step()
    whole = dataset.whole.times
    start, length = (whole[place - 1] - first) / span, (whole[place] - whole[place - 1]) / span
    solver = FIXED_STEP[settings.sampling.solver](StepGrid(settings.sampling.steps))
    with torch.no_grad():
        end = solver.solve(
            lambda s, x: length * field(torch.full((len(x),), start + length * s), x), dataset.units.transform(torch.as_tensor(cells))
        )
    return dataset.units.inverse_transform(end).double().numpy()


def measure(cloud: Cloud, cells: Snapshots, time: float) -> dict[str, float]:
    """Return the distances of a prediction from the cells found."""
    points, weights = cloud
    truth = cells.points[list(cells.times).index(time)]
    squares = np.square(truth[::3, None] - truth[None, ::3]).sum(axis=2)
    kernel = gaussian_kernel(1 / float(np.median(squares[squares > 0])))
    distances = [wasserstein(points, truth, power, weights) for power in (1, 2)]
    return dict(zip(METRICS, [*distances, mmd_squared(points, truth, kernel, weights)], strict=True))


def average(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the means of rows; standard errors are those over seeds, or of a mean of rows that have their own."""
    result = {}
    for name in METRICS:
        values = [row[name] for row in rows]
        errors = [row[name + " error"] for row in rows if name + " error" in row]
        mean, error = mean_and_error(values)
        if errors:
            error = float(np.sqrt(np.square(errors).sum())) / len(errors)
        result |= {name: mean, name + " error": error if np.isfinite(error) else 0.0}
    return result


def grow(
    common: list[str], options: argparse.Namespace, cells: SnapshotDataset
) -> tuple[list[list[float]], SimulatedPopulation, sampling.Model]:
    """Train uAM on all times; return the total mass at each of them for each seed, and the last population with its model."""
    sizes = []
    for seed in range(options.seeds):
        settings = config.load("cells", [*common, *UNBALANCED, f"seed={seed}"])
        model = trained(settings, options.runs / f"uAM-all-{seed}")
        population = simulate_population(model, torch.tensor(cells.source.points[0]), cells.source.times, seed=seed)
        sizes.append(population.log_weights.exp().mean(dim=1).tolist())
    return sizes, population, model


def plane_of(cells: SnapshotDataset) -> Callable[[np.ndarray], np.ndarray]:
    """Return the map to the first two principal components of all cells."""
    everything = np.concatenate(cells.source.points)
    centre = everything.mean(axis=0)
    axes = np.linalg.svd(everything - centre, full_matrices=False)[2][:2]
    return lambda points: (points - centre) @ axes.T


def draw(
    file: Path,
    cells: SnapshotDataset,
    table: dict[str, Any],
    sizes: list[list[float]],
    population: SimulatedPopulation,
    model: sampling.Model,
) -> None:
    """Draw trajectories, growth, the population's size and the distances."""
    figure, axes = new_figure(2, 2, width=4.6, height=3.7)
    plane, times = plane_of(cells), cells.source.times
    for place, points in enumerate(cells.source.points):
        gray = str(0.85 - 0.6 * place / (len(times) - 1))
        axes[0, 0].scatter(*plane(points).T, s=3, color=gray, marker=MARKERS[place % 4], lw=0.3, label=f"time {times[place]:g}")
    fine = np.linspace(times[0], times[-1], 10 * (len(times) - 1) + 1)
    few = simulate_population(model, torch.tensor(cells.source.points[0][:25]), fine.tolist())
    for path in few.points.double().numpy().transpose(1, 0, 2):
        axes[0, 0].plot(*plane(path).T, color="black", lw=0.7)
    axes[0, 0].set(xlabel="principal component 1", ylabel="principal component 2", title="cells, and 25 trajectories of uAM")
    axes[0, 0].legend(frameon=False, fontsize=7, markerscale=2)

    dynamics = Dynamics(model.action, model.dynamics, model.path)
    everything, growth = np.concatenate(cells.source.points), []
    for place, points in enumerate(cells.source.points):
        t = (times[place] - times[0]) / (times[-1] - times[0])
        x = cells.units.transform(torch.as_tensor(points)).to(model.device)
        growth.append(dynamics.growth(min(t, 1.0), x).cpu().numpy() / (times[-1] - times[0]))
    shown = axes[0, 1].scatter(*plane(everything).T, s=4, c=np.concatenate(growth), cmap="gray_r", edgecolors="0.6", lw=0.2)
    figure.colorbar(shown, ax=axes[0, 1], label="growth rate, per unit of time")
    axes[0, 1].set(xlabel="principal component 1", ylabel="principal component 2", title="growth of the cells at their times, uAM")

    counts = np.array([len(points) for points in cells.source.points]) / len(cells.source.points[0])
    means, errors = np.array([mean_and_error([run[place] for run in sizes]) for place in range(len(times))]).T
    axes[1, 0].plot(times, counts, color="0.6", lw=3, label="rows of the table")
    axes[1, 0].errorbar(times, means, np.nan_to_num(errors), color="black", ls="--", marker="o", capsize=3, label="mass of uAM")
    axes[1, 0].set(xlabel="time (table's unit)", ylabel="population, first time = 1", ylim=(0, None), xticks=times)
    axes[1, 0].legend(frameon=False)

    names = list(table)
    values, bars = ([table[name][key] for name in names] for key in ("W1", "W1 error"))
    axes[1, 1].errorbar(values, names, xerr=bars, color="black", ls="", marker="o", ms=4, capsize=3)
    axes[1, 1].grid(axis="y", color="0.85")
    axes[1, 1].invert_yaxis()
    axes[1, 1].set(xlabel="W1 to held-out cells (table's units), ± std. error")
    save_figure(figure, file)


if __name__ == "__main__":
    main()
