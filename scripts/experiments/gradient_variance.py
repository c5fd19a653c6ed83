"""How noisy are the gradients of the conditional and the marginal form of the loss, and what makes those of the marginal form less noisy?

A small network is trained in conditional form for some steps, so that gradients are those of training and not of the start. Then each form
is differentiated at the same weights over batches of the same stream: the conditional and the marginal form with stratified times, the
marginal form at the nodes of quadrature rules (times.kind=quadrature), and with its boundary terms at the ends of cells (loss.cells). The
variance is that of the gradient of one batch, summed over all parameters. A batch has as many evaluations of the action in all cases; with
a quadrature of n nodes it has n times fewer pairs.

The digits are learned on two paths, with two limits of the frequencies that embed the time; points are two Gaussians of two dimensions at
two times, and any table of snapshots (--table). Takes 10 minutes on one core.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from common import counted, new_parser, parse, print_conditions, print_table, progress, script
from torch import Tensor

from amgen import config
from amgen.config import Config
from amgen.data import open_dataset
from amgen.losses import ActionMatchingLoss
from amgen.model.build import build_action, build_cells, build_loss, build_path, build_times
from amgen.paths import PathSample
from amgen.training.batches import TrainingItems

PATHS = ("linear", "vp")
FREQUENCIES = (20, 1000)
BATCHES = {"digits": 64, "cells": 256}
"""Batch size of each preset."""
RULES = ("antithetic 2", "gauss 4")
CELLS = (4, 16, 64)
Estimators = dict[str, list[str]]
"""Changes of the configuration by the name of the estimator."""


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("--steps", type=int, default=200, help="steps of training before the measurement")
    parser.add_argument("--batches", type=int, default=100, help="batches to measure over")
    parser.add_argument(
        "--paths", nargs="*", type=str, choices=PATHS, default=PATHS, metavar="NAME", help="paths between noise and digits: %(choices)s"
    )
    parser.add_argument("--table", type=Path, help="table of snapshots to measure as well, such as emt.csv")
    parser.add_argument("--gaussians", action="store_true", help="measure two Gaussians in the plane as well")
    parser.add_argument(
        "--rules", nargs="*", type=str, default=RULES, metavar="RULE", help="quadratures, such as 'gauss 4': rule and nodes per interval"
    )
    parser.add_argument("--cells", nargs="*", type=int, default=CELLS, metavar="N", help="numbers of cells (loss.cells)")
    options = parse(parser, arguments)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, frequency, preset, overrides in subjects(options.paths, options.table, options.gaussians, Path(folder)):
            found = measure(preset, overrides, estimators(options.rules, options.cells), options.steps, options.batches)
            reference = found["conditional"]
            for estimator, variance in found.items():
                rows.append([name, frequency, estimator, f"{variance:.4g}", f"{variance / reference:.2f}"])
                progress(", ".join(map(str, rows[-1])))
    print_table(["data", "frequencies up to, rad", "form and times", "variance", "ratio"], rows)
    print_conditions(
        options,
        f"batches of {BATCHES['digits']} digits and of {BATCHES['cells']} points, over {options.batches} batches, after "
        f"{counted(options.steps, 'step')} of training",
        "weight 1-t for digits, constant for points",
        "seed 0",
    )


def subjects(paths: Sequence[str], table: Path | None, gaussians: bool, folder: Path) -> Iterator[tuple[str, float, str, list[str]]]:
    """Yield name, largest frequency of the embedding of t, preset and overrides of everything to measure on."""
    for path in paths:
        for frequency in FREQUENCIES:
            overrides = ["coupling.kind=independent", f"path.kind={path}", "loss.weight=1-t"]
            yield f"digits, {path}", frequency, "digits", [*overrides, f"action.time_frequency={frequency}"]
    tables = [("two Gaussians", two_gaussians(folder / "gaussians.csv"))] if gaussians else []
    for name, file in [*tables, *([(table.stem, table)] if table is not None else [])]:
        with file.open() as opened:
            dimension = len(opened.readline().split(",")) - 1
        yield name, 5, "cells", [f"data.path={file}", f"data.dimension={dimension}", "action.time_frequency=5"]


def two_gaussians(file: Path, count: int = 2000) -> Path:
    """Write a table of points of N(0, I) at time 0 and of N((2, 0), diag(0.5^2, 1.5^2)) at time 1; return the file."""
    points = np.random.default_rng(0).standard_normal((2, count, 2))
    points[1] = points[1] * [0.5, 1.5] + [2, 0]
    rows = np.concatenate([np.repeat([0, 1], count)[:, None], points.reshape(-1, 2)], axis=1)
    np.savetxt(file, rows, delimiter=",", header="samples,x1,x2", comments="")
    return file


def estimators(rules: Sequence[str], cells: Sequence[int]) -> Estimators:
    """Return the estimators to compare: both forms with stratified times, and the marginal form with each rule ('gauss 4')."""
    marginal = ["loss.form=marginal"]
    found = {"conditional": [], "marginal": marginal}
    for rule, nodes in map(str.split, rules):
        found[f"marginal, {rule} {nodes}"] = [*marginal, "times.kind=quadrature", f"times.rule={rule}", f"times.nodes={nodes}"]
    for count in cells:
        found[f"marginal, {count} cells"] = [*marginal, f"loss.cells={count}"]
    return found


def measure(preset: str, overrides: list[str], estimators: Estimators, steps: int, batches: int) -> dict[str, float]:
    """Return the total gradient variance of each estimator at the same weights, after training in conditional form."""
    first = resolve(preset, overrides)
    action = build_action(first)
    train(ActionSamples(first), build_loss(first, action, build_path(first)), steps)
    found = {}
    for name, changes in estimators.items():
        options = resolve(preset, [*overrides, *changes])
        samples = ActionSamples(options)
        loss = build_loss(options, action, samples.path)
        found[name] = total_variance(loss, (samples.at(step) for step in range(steps, steps + batches)), list(action.parameters()))
    return found


def resolve(preset: str, overrides: list[str]) -> Config:
    """Return the configuration with what the data decides."""
    options = config.load(preset, [*overrides, f"training.batch_size={BATCHES[preset]}"])
    record = open_dataset(options.data).record()
    return config.change(options, {"data": {**options.data.model_dump(mode="json"), **record}}) if record else options


class ActionSamples:
    """Batches of a run's training stream on its path."""

    def __init__(self, options: Config):
        self.path = build_path(options)
        self._cells = build_cells(options, self.path)
        self.size = options.training.batch_size
        self._items = TrainingItems(options, open_dataset(options.data), build_times(options), torch.float32)

    def at(self, step: int) -> PathSample:
        """Return the samples of a step, with both ends."""
        return self._items.__getitems__(range(self.size * step, self.size * (step + 1))).sample(self.path, boundary=True, cells=self._cells)


def train(samples: ActionSamples, loss: ActionMatchingLoss, steps: int) -> None:
    """Train the action of a loss for some steps."""
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
    for step in range(steps):
        optimizer.zero_grad()
        loss(samples.at(step)).loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
        optimizer.step()


def total_variance(loss: ActionMatchingLoss, samples: Iterator[PathSample], parameters: Sequence[Tensor]) -> float:
    """Return the variance over batches of the gradient, summed over its entries."""
    total = squares = torch.zeros((), dtype=torch.float64)
    count = 0
    for sample in samples:
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss(sample).loss.mean(), parameters)]).double()
        total, squares, count = total + gradient, squares + gradient.square(), count + 1
    return float(((squares - total.square() / count) / (count - 1)).sum())


if __name__ == "__main__":
    main()
