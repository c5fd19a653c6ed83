"""Action or vector field? The Fréchet distance that each reaches in the same wall-clock time of training, on two data sets.

`baselines.py` describes the two. They share the U-Net and its initial weights, the pairs of noise and images, the times, the optimiser,
clipping and the batch size, and later the solver and the noise that images are generated from. A step of the action costs more, so the
field takes more steps in the same time. What else must be settled for the comparison to be fair:

Time. Each training has a clock of its own, which runs while it takes steps, data included. The two of a seed take turns of a second, in one
process, so that both see the same machine. A gradient of each comes first, so that what PyTorch sets up once is not counted.

Schedule. The number of steps is not known beforehand, so the learning rate rises and falls with the share of the time that has passed, as
it does in the preset `digits` with the share of the images. When the time is over it is zero: a step that ends late moves no weights.

Averages. The weights that are scored are averaged over the same share of each training, however many steps it has: a <- d a + (1 - d) w
with d = (1 + n) / (10 + n) at the n-th step gives the weights of step k a share in proportion to k^8, of mean age a tenth of the training.
A fixed rate would average over the same number of images for both, which is a smaller share of the field's training than of the action's.

Learning rates. Each method has its own. The defaults, 4e-3 for both, were the best of 2e-3, 4e-3 and 8e-3 by the distance in trainings of
130 to 560 steps on the digits of either size, one seed each.

Evaluations. Both have the same number in sampling, though one of the action costs about two of the field's (ms/generated).

Errors of single distances are due to the images that were generated, errors of means to the seeds. `loss` is the mean of 1/2 |v - u|^2 over
the last tenth of the steps. Data: the embedded digits, 8x8, and 16x16 gray images: the photographs in $AMGEN_DATA/cifar10-train.zip, or the
digits magnified where AMGEN_DATA is not set. Takes 2 methods x --seeds x --seconds for each data set, 25 minutes by default.
"""

import argparse
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from baselines import METHODS, Method, Training, alternate, generate
from common import (
    add_outputs,
    mean_and_error,
    new_parser,
    parse,
    print_conditions,
    print_table,
    progress,
    save_report,
    script,
    seeds_in_words,
    with_error,
)
from tasks import MAGNIFIED, MOST_REAL, Task, open_task
from torch import Tensor

from amgen import config
from amgen.core.errors import UserError
from amgen.core.files import make_folder
from amgen.evaluation.frechet import frechet_distance, frechet_error, matched_distance
from amgen.evaluation.moments import Moments
from amgen.solvers import FIXED_STEP, StepGrid
from amgen.visualization.grids import save_grid

MOST_GENERATED = 2_000
Row = dict[str, Any]


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Train, score and print the tables."""
    options = parse_options(arguments)
    photographs = os.environ.get("AMGEN_DATA")
    names = options.data or ["digits", str(Path(photographs) / "cifar10-train.zip") if photographs else MAGNIFIED]
    rates = {"action": options.learning_rate_action, "field": options.learning_rate_field}
    found = [compare(open_task(name, options.width, options.real), options, rates) for name in names]
    print_conditions(
        options,
        f"{options.seconds:g} s of training for each method and seed, {seeds_in_words(range(options.seeds))}",
        f"learning rates: {', '.join(f'{name} {rate:g}' for name, rate in rates.items())}",
        f"solver {options.solver}, steps {options.steps}",
    )
    if options.json:
        conditions = {
            "seconds": options.seconds,
            "seeds": options.seeds,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "learning_rates": rates,
            "solver": options.solver,
            "steps": options.steps,
        }
        save_report({**conditions, "sets": found}, options.json)


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options.

    Raises:
        UserError: naming an option whose number makes no comparison or whose place cannot be written to.
    """
    parser = new_parser(__file__, __doc__)
    parser.add_argument("--seconds", type=float, default=120, help="training of each method, seed and data set, seconds")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each method, with the seeds 0, 1, ...")
    parser.add_argument("--data", type=str, nargs="+", help=f"digits, {MAGNIFIED}, or folders or zips of images, which become 16x16 gray")
    parser.add_argument("--learning-rate-action", type=float, default=4e-3, help="highest learning rate of the action")
    parser.add_argument("--learning-rate-field", type=float, default=4e-3, help="highest learning rate of the field")
    parser.add_argument("--width", type=int, default=8, help="channels of the first level of the U-Net for 16x16 images")
    parser.add_argument("--threads", type=int, help="threads of PyTorch; default: its own choice")
    parser.add_argument("--num", type=int, help=f"images to generate; default: the number of real ones, at most {MOST_GENERATED:,}")
    parser.add_argument("--real", type=int, help=f"real images to compare with; default: all, at most {MOST_REAL:,}")
    parser.add_argument("--solver", type=str, choices=sorted(FIXED_STEP), default="ab2", metavar="NAME", help="solver of both: %(choices)s")
    parser.add_argument("--steps", type=int, default=8, help="steps of the solver")
    parser.add_argument("--out", type=Path, help="folder for a grid of images of each data set and method, from the last seed")
    add_outputs(parser, figure=False)
    options = parse(parser, arguments)
    least = {"seconds": 0, "seeds": 1, "learning_rate_action": 0, "learning_rate_field": 0, "threads": 1, "num": 8, "real": 8, "steps": 1}
    for name, bound in least.items():
        value = getattr(options, name)
        if value is not None and (not value >= bound or value == 0):  # `not >=` refuses NaN too
            raise UserError(f"--{name.replace('_', '-')} {value}: expected {'a positive number' if bound == 0 else f'at least {bound}'}")
    if options.out:
        make_folder(options.out)
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


def compare(task: Task, options: argparse.Namespace, rates: dict[str, float]) -> dict[str, Any]:
    """Train and score both methods on one task with every seed, print the table, and return the report."""
    rows: list[Row] = []
    for seed in range(options.seeds):
        settings = config.change(task.settings, {"seed": seed})
        trainings = [Training(method(settings), settings, task.dataset, rates[name], options.seconds) for name, method in METHODS.items()]
        alternate(trainings, options.seconds)
        for training in trainings:
            row, images = score(training, task, options)
            rows.append(row)
            progress(f"{task.name}: {row['method']}, seed {seed}: FD {with_error(row['fd'], row['fd_error'])}, {row['steps']:,} steps")
            if options.out and seed == options.seeds - 1:
                file = options.out / f"{task.name}-{training.method.name}.png"
                save_grid(file, [images[: settings.sampling.grid]])
                progress(f"wrote {file}")
    summary = summarise(rows)
    columns = [
        "method",
        "seed",
        "FD",
        f"FD at n = {rows[0]['matched_n']:,}",
        "/ floor",
        "loss",
        "steps",
        "images",
        "ms/step",
        "ms/generated",
    ]
    print_table(columns, [*map(cells_of, rows), *summary_cells(summary)], title(task, rows[0], [training.method for training in trainings]))
    print(f"\n{difference_in_words(summary)}")
    return {
        "data": task.description,
        "fingerprint": task.dataset.source.fingerprint(),
        "metric": task.extractor.distance_name,
        "features": task.extractor.describe(),
        "settings": task.settings.model_dump(mode="json"),
        "rows": rows,
        **summary,
    }


def score(training: Training, task: Task, options: argparse.Namespace) -> tuple[Row, Tensor]:
    """Generate images and measure them; return the row of the training, and the images."""
    method, settings, real = training.finish(), training.settings, task.reference
    assert real.features is not None
    num, solver = options.num or min(len(real.features), MOST_GENERATED), FIXED_STEP[options.solver](StepGrid(options.steps))
    start = time.perf_counter()
    images, evaluations = generate(method.velocity(), solver, num, settings)
    seconds = time.perf_counter() - start
    features = torch.cat([task.extractor(part) for part in images.split(100)])
    own = Moments.of(features)
    matched = matched_distance(features, real.features, 0)
    last = training.losses[-max(1, len(training.losses) // 10) :]
    row = {
        "method": method.name,
        "seed": settings.seed,
        "parameters": method.parameters,
        "fd": frechet_distance(own, real.moments),
        "fd_error": frechet_error(features, own, real.moments),
        "generated": num,
        "real": len(real.features),
        "matched_n": matched.n,
        "matched_fd": matched.generated,
        "matched_fd_error": matched.generated_error,
        "floor": matched.floor,
        "floor_error": matched.floor_error,
        "loss": sum(last) / len(last),
        "seconds": training.spent,
        "steps": len(training.losses),
        "images": training.images,
        "ms_per_step": 1e3 * training.spent / len(training.losses),
        "evaluations": evaluations,
        "ms_per_image": 1e3 * seconds / num,
    }
    return row, images


def title(task: Task, row: Row, methods: Sequence[Method]) -> str:
    """Return what stands above a table: the data, the networks, and between which images distances are."""
    settings, features = task.settings, task.extractor.describe()
    counts = ", ".join(f"{method.name} {method.parameters:,}" for method in methods)
    return "\n".join(
        [
            f"{task.description}: {len(task.dataset):,} images, batch {settings.training.batch_size}, coupling {settings.coupling.kind}; "
            f"parameters: {counts}.",
            f"{task.extractor.distance_name}: {features['dimension']} dimensions, preparation: {features['preparation']}; "
            f"{row['generated']:,} generated against {row['real']:,} real images, NFE {row['evaluations']}.",
            f"Floor (real against real, n = {row['matched_n']:,} a side): {with_error(row['floor'], row['floor_error'])}.",
        ]
    )


def cells_of(row: Row) -> list[str]:
    """Return the cells of one training."""
    distances = [with_error(row["fd"], row["fd_error"]), with_error(row["matched_fd"], row["matched_fd_error"])]
    counts = [f"{row['steps']:,}", f"{row['images']:,}", f"{row['ms_per_step']:.1f}", f"{row['ms_per_image']:.2f}"]
    return [row["method"], str(row["seed"]), *distances, f"{row['matched_fd'] / row['floor']:.2f}", f"{row['loss']:.4g}", *counts]


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Return means over seeds with their standard errors, None of one seed, and by what the methods differ.

    The difference is that of the two trainings of a seed, which share the data, the times, the noise and the machine.
    """
    found = {name: [row for row in rows if row["method"] == name] for name in METHODS}

    def mean(values: Sequence[float]) -> dict[str, float | None]:
        value, error = mean_and_error(values)
        return {"mean": value, "error": error if math.isfinite(error) else None}

    columns = ("fd", "matched_fd", "steps", "images", "ms_per_step")
    means = {name: {column: mean([row[column] for row in part]) for column in columns} for name, part in found.items()}
    both = list(zip(found["action"], found["field"], strict=True))
    return {
        "means": means,
        "difference": mean([action["fd"] - field["fd"] for action, field in both]),
        "step_ratio": mean([action["ms_per_step"] / field["ms_per_step"] for action, field in both]),
        "floor": rows[0]["floor"],
        "matched_n": rows[0]["matched_n"],
    }


def summary_cells(summary: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the means."""
    rows = []
    for name, means in summary["means"].items():
        distances = [with_error(means[column]["mean"], means[column]["error"]) for column in ("fd", "matched_fd")]
        counts = [f"{means['steps']['mean']:,.0f}", f"{means['images']['mean']:,.0f}", f"{means['ms_per_step']['mean']:.1f}", ""]
        rows.append([f"{name}, mean", "", *distances, f"{means['matched_fd']['mean'] / summary['floor']:.2f}", "", *counts])
    return rows


def difference_in_words(summary: dict[str, Any]) -> str:
    """Return by what the methods differ, in words."""
    fd, ratio = (with_error(summary[key]["mean"], summary[key]["error"]) for key in ("difference", "step_ratio"))
    return f"FD of the action minus that of the field, seed by seed: {fd}; time of a step, action over field: {ratio}."


if __name__ == "__main__":
    main()
