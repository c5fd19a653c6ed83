"""How well does Action Matching predict cells at a time that was held out of training?

For each time between the first and the last: train without it, simulate the cells of the time before it to it, and measure W1, W2 and MMD^2
to the cells found there, in the table's units. MMD^2 is unbiased, its kernel exp(-|x - y|^2 / median of |x - y|^2 over the cells found).
Compared are Action Matching (AM), its entropic (eAM) and unbalanced (uAM) dynamics, each in conditional and marginal form, with
multi-marginal tuples coupled by optimal transport, and the baselines of `cells_baselines.py`. Then uAM is trained on all times with the
number of rows as the mass, and the mass of its population is compared with the table's.

Runs are kept in --runs, and a second call measures without training again. With the defaults it takes hours on one core.
"""

import argparse
import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path

import cells_baselines
import numpy as np
import torch
from cells_baselines import Cloud
from cells_figure import plot
from common import (
    add_outputs,
    mean_and_error,
    new_parser,
    parse,
    print_conditions,
    print_table,
    progress,
    save_figure,
    save_report,
    script,
    seeds_in_words,
    train_and_load,
    with_error,
)

from amgen import config, sampling
from amgen.core.errors import UserError
from amgen.data import SnapshotDataset, Snapshots, open_dataset
from amgen.evaluation.distances import gaussian_kernel, mmd_squared, wasserstein
from amgen.sampling.populations import simulate_population

MARGINAL = ["loss.form=marginal"]
ENTROPIC = [
    "dynamics.kind=entropic",
    "dynamics.sigma=0.3",
    "dynamics.schedule=constant",
    "path.noise=0.1",
    "sampling.solver=stochastic-heun",
]
UNBALANCED = ["dynamics.kind=unbalanced", "dynamics.rate=0.02", "data.mass_from_counts=true"]
METHODS = {
    "AM conditional": [],
    "AM marginal": MARGINAL,
    "eAM conditional": ENTROPIC,
    "eAM marginal": [*ENTROPIC, *MARGINAL],
    "uAM conditional": UNBALANCED,
    "uAM marginal": [*UNBALANCED, *MARGINAL],
}
"""Changes of the preset."""
METRICS = ("W1", "W2", "MMD2")
Row = dict[str, float]
"""Each metric and `METRIC error`, its standard error, 0 where it is not known."""


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, measure and print."""
    options = parse_options(arguments)
    shared = [f"data.path={options.data}", f"training.images={options.images}", "training.sample_every=0", *options.overrides]
    whole = open_dataset(config.load("cells", shared).data)
    assert isinstance(whole, SnapshotDataset)
    held_out = measure_all(shared, options, whole.source)
    means = {name: average(rows) for name, rows in held_out.items()}
    masses, model = grow(shared, options, whole)

    print_table(["method", *METRICS], [[name, *cells_of(row)] for name, row in means.items()])
    print_table(["time", "rows, relative to the first", "mass of uAM"], mass_rows(whole.source, masses), "The size of the population:")
    print_conditions(
        options,
        f"means over {len(whole.source.times) - 2} held-out times",
        seeds_in_words(range(options.seeds)),
        f"{options.images:,} samples to train each",
    )
    if options.json:
        conditions = {
            "data": str(options.data),
            "fingerprint": whole.source.fingerprint(),
            "seeds": options.seeds,
            "images": options.images,
        }
        save_report({**conditions, "mean": means, "held out": held_out, "population": masses}, options.json)
    if options.figure:
        distances = {name: (row["W1"], row["W1 error"]) for name, row in means.items()}
        save_figure(plot(whole, distances, masses, model), options.figure)


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options.

    Raises:
        UserError: if POT is not installed.
    """
    parser = new_parser(__file__, __doc__)
    parser.add_argument("--data", type=Path, required=True, help="table of cells, such as emt.csv")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each method, with the seeds 0, 1, ...")
    parser.add_argument("--images", type=int, default=60_000, help="samples to train each on")
    parser.add_argument(
        "--set", type=str, dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change an option of the preset"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/cells"), help="folder for the runs")
    add_outputs(parser)
    options = parse(parser, arguments)
    if importlib.util.find_spec("ot") is None:
        raise UserError("distances between populations of unequal size need POT: pip install 'amgen[ot]'")
    return options


def measure_all(shared: list[str], options: argparse.Namespace, cells: Snapshots) -> dict[str, list[Row]]:
    """Return for each method a row for each held-out time."""
    found: dict[str, list[Row]] = {}
    for time in cells.times[1:-1]:
        for name, clouds in predictions(shared, options, cells, time).items():
            found.setdefault(name, []).append(average([measure(cloud, cells, time) for cloud in clouds]))
            progress(f"held out {time:g}: {name}: {', '.join(map(' '.join, zip(METRICS, cells_of(found[name][-1]), strict=True)))}")
    return found


def predictions(shared: list[str], options: argparse.Namespace, cells: Snapshots, time: float) -> dict[str, list[Cloud]]:
    """Return what each method predicts for the held-out time, once for each seed."""
    place = list(cells.times).index(time)
    before = cells.points[place - 1]
    found: dict[str, list[Cloud]] = {"not moved": [(before, None)], "displacement, OT": [cells_baselines.displacement(cells, place)]}
    for name, overrides in METHODS.items():
        found[name] = []
        for seed in range(options.seeds):
            settings = config.load("cells", [*shared, *overrides, f"seed={seed}", f"data.hold_out={time}"])
            model = train_and_load(settings, options.runs / f"{name.replace(' ', '-')}-{time:g}-{seed}")
            population = simulate_population(model, torch.tensor(before), [cells.times[place - 1], time], seed=seed)
            weights = population.log_weights[-1].exp().numpy() if "uAM" in name else None
            found[name].append((population.points[-1].double().numpy(), weights))
    if importlib.util.find_spec("torchcfm") is not None:
        settings = config.load("cells", [*shared, f"data.hold_out={time}"])
        found["OT-CFM"] = [(cells_baselines.flow_matching(settings, before, place, seed), None) for seed in range(options.seeds)]
    return found


def measure(cloud: Cloud, cells: Snapshots, time: float) -> Row:
    """Return the distances of a prediction from the cells found."""
    points, weights = cloud
    truth = cells.points[list(cells.times).index(time)]
    squares = np.square(truth[::3, None] - truth[None, ::3]).sum(axis=2)
    kernel = gaussian_kernel(1 / float(np.median(squares[squares > 0])))
    distances = [wasserstein(points, truth, power, weights) for power in (1, 2)]
    return dict(zip(METRICS, [*distances, mmd_squared(points, truth, kernel, weights)], strict=True))


def average(rows: Sequence[Row]) -> Row:
    """Return the means of rows; standard errors are those over the rows, or follow from the errors that the rows have."""
    result: Row = {}
    for name in METRICS:
        mean, error = mean_and_error([row[name] for row in rows])
        errors = [row[f"{name} error"] for row in rows if f"{name} error" in row]
        if errors:
            error = float(np.sqrt(np.square(errors).sum())) / len(errors)
        result |= {name: mean, f"{name} error": error if math.isfinite(error) else 0.0}
    return result


def cells_of(row: Row) -> list[str]:
    """Return the cells of a row under METRICS."""
    return [with_error(row[name], row[f"{name} error"] or None, ".4f", ".4f") for name in METRICS]


def grow(shared: list[str], options: argparse.Namespace, cells: SnapshotDataset) -> tuple[list[list[float]], sampling.Model]:
    """Train uAM on all times; return the total mass at each of them for each seed, and the model of the last seed."""
    masses = []
    for seed in range(options.seeds):
        settings = config.load("cells", [*shared, *UNBALANCED, f"seed={seed}"])
        model = train_and_load(settings, options.runs / f"uAM-all-{seed}")
        population = simulate_population(model, torch.tensor(cells.source.points[0]), cells.source.times, seed=seed)
        masses.append(population.log_weights.exp().mean(dim=1).tolist())
    return masses, model


def mass_rows(cells: Snapshots, masses: list[list[float]]) -> list[list[str]]:
    """Return a row for each time: the number of cells and the mass of uAM, both relative to the first time."""
    rows = []
    for place, time in enumerate(cells.times):
        mean, error = mean_and_error([run[place] for run in masses])
        share = len(cells.points[place]) / len(cells.points[0])
        rows.append([f"{time:g}", f"{share:.3f}", with_error(mean, error, ".3f", ".3f")])
    return rows


if __name__ == "__main__":
    main()
