"""Drawing many images: divided among processes, written as they come, going on where it was interrupted."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amgen.config import SamplingConfig
from amgen.errors import UserError
from amgen.output import Codes, ImageFolder, save_grid
from amgen.processes import Processes
from amgen.progress import Progress
from amgen.sampling import Model, Request, effective_sample_size, generate_all, resample

SOLVER_SETTINGS = ("solver", "steps", "step_grid", "rho", "tolerance")
GRID_LIMIT = 400
"""Most images in a grid; the first ones."""


@dataclass
class Drawn:
    """What came of drawing.

    Attributes:
        images: how many were drawn now; others were there already.
        seconds: how long that took.
        evaluations: gradients of the action for the hungriest batch (NFE).
        log_weights: of all images, in the order of their indices, where they carry weights.
        written: a line for each thing written.
        noun: images or points.
    """

    images: int
    seconds: float
    evaluations: int
    log_weights: list[float] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    noun: str = "images"


def starts_of(noise: Tensor, seeds: Sequence[int] | None, between: str | None) -> list[int]:
    """Return which entries of given noise (N, ...) to start from: those that `seeds` name, by default all.

    Raises:
        UserError: if an entry does not exist, or images between two of a seed are asked for as well.
    """
    if between is not None:
        raise UserError("--noise and --between each say what to start from: leave one out")
    indices = list(range(len(noise)) if seeds is None else seeds)
    beyond = [index for index in indices if index >= len(noise)]
    if beyond:
        raise UserError(f"--seeds: there is no noise {beyond[0]}: the file holds 0 to {len(noise) - 1}")
    return indices


def settings_of_codes(
    file: Path, codes: Codes, model: Model, changes: Mapping[str, Any], request: Request
) -> tuple[dict[str, Any], list[str]]:
    """Return the settings that lead codes back to their images, and lines that say what was taken over and what was not.

    Solver and guidance are those that the images were encoded with, but for what `changes` ask for.

    Args:
        file: where the codes are from.
        codes: the codes.
        model: the model that is to draw from them.
        changes: settings asked for by name; None where the ones of the codes are to be used.
        request: what else is asked for: a class in place of those of the codes, the seed, and images that the model starts from.

    Raises:
        UserError: if the codes belong to other weights or images, or to classes that the model has not.
    """
    made, given = codes.settings, {key: value for key, value in changes.items() if value is not None}
    classes = model.config.action.classes
    if codes.classes is not None and (not classes or not 0 <= int(codes.classes.min()) <= int(codes.classes.max()) < classes):
        raise UserError(f"--noise {file} holds classes that this model has not: encode the images with it")
    if "weights_sha256" not in made:
        return given, [f"{file} does not say which weights, guidance and classes its noise was made with: it is taken as it is"]
    if made["weights_sha256"] != model.weights_sha256:
        raise UserError(
            f"--noise {file} was made with other weights (SHA-256 {str(made['weights_sha256'])[:12]}..., not "
            f"{model.weights_sha256[:12]}...): encode the images with this model"
        )
    images, label = request.images, request.label
    if model.path.choices and made.get("seed") != request.seed:
        raise UserError(f"--noise {file} was made with --seed {made.get('seed')}, not {request.seed}: give that one")
    if images is not None and made.get("data_fingerprint") != images.source.fingerprint():
        raise UserError(f"--noise {file} was made from other images than {images.source.description}: give them (--condition-data)")
    solver = {key: made[key] for key in SOLVER_SETTINGS if key in made}
    if not given.keys() & {*SOLVER_SETTINGS, "noise_level"}:
        given |= {**solver, "noise_level": 0.0}
    notes = [f"{file}: made with {', '.join(f'{key} {value}' for key, value in solver.items())}, guidance {made.get('guidance')}"]
    if given.setdefault("guidance", made.get("guidance")) != made.get("guidance"):
        notes.append(f"guidance {given['guidance']:g} is not the noise's: the images will be others")
    if label is not None and codes.classes is not None and (codes.classes != label).any():
        notes.append(f"label {label} is not the class that all of the noise was made with: the images will be others")
    return given, notes


def draw(
    model: Model,
    options: SamplingConfig,
    request: Request,
    indices: Sequence[int],
    processes: Processes,
    folder: ImageFolder | None = None,
    grid: Path | None = None,
    resampled: bool = False,
    say: Callable[[str], None] = print,
) -> Drawn:
    """Draw the images `indices`; every process takes batches in turn.

    Args:
        model: the model.
        options: solver and batch size.
        request: seed, class and what else to generate.
        indices: which images.
        processes: those that share the work; each calls this function.
        folder: where images are written; those already there are not drawn again, but for the picture.
        grid: file for a picture of the first images (at most 400).
        resampled: also draw indices in proportion to the weights, for the folder and for the grid.
        say: takes lines of progress, on the main process.
    """
    # What the main process finds holds for all, and nobody writes before it has looked.
    missing = indices if folder is None else processes.agree(folder.missing(indices) if processes.main else [])
    there: set[int] = set() if folder is None else set(indices).difference(missing)
    pictured = set(indices[:GRID_LIMIT]) if grid is not None else set()
    again = [index for index in indices if index in pictured & there]
    total = len(missing) + len(again)
    if there and processes.main:
        say(f"{len(there):,} of {len(indices):,} {model.config.noun} are there already")

    start, progress = time.perf_counter(), Progress(total, model.config.noun, say, processes, "drawing")
    pictures: dict[int, list[Tensor]] = {}
    weights: dict[int, float] = {}
    evaluations = 0
    drawing = [generate_all(model, options, wanted, request, processes, say) for wanted in (missing, again) if wanted]
    for samples in itertools.chain(*drawing):
        if folder is not None and samples.indices[0] not in there:
            folder.write(samples)
        pictures |= samples.by_index(pictured)
        if samples.log_weights is not None:
            weights |= zip(samples.indices, samples.log_weights.tolist(), strict=True)
        evaluations = max(evaluations, samples.evaluations)
        progress.advance(len(samples.indices))
    evaluations = max(processes.gather([evaluations]))
    seconds = time.perf_counter() - start
    pictures = dict(processes.gather(list(pictures.items())))
    weights = dict(processes.gather(list(weights.items())))
    result = Drawn(total, seconds, evaluations, noun=model.config.noun)
    if not processes.main:
        return result
    if folder is not None:
        weights |= folder.weights(sorted(there.difference(weights)))
    weights = {index: weights[index] for index in indices} if weights else {}
    result.log_weights = list(weights.values())
    chosen = _resampled(indices, result.log_weights, request.seed) if resampled else None
    if folder is not None:
        result.written += folder.finish(weights, chosen)
    if grid is not None:
        shown = [index for index in (chosen or indices) if index in pictures][:GRID_LIMIT]
        save_grid(grid, [torch.stack(column) for column in zip(*(pictures[index] for index in shown), strict=True)])
        result.written.append(str(grid))
    return result


def _resampled(indices: Sequence[int], log_weights: Sequence[float], seed: int) -> list[int]:
    """Return indices drawn in proportion to the weights."""
    if not log_weights:
        raise UserError("--resample: the images of this model carry no weights (its dynamics are not unbalanced)")
    return [indices[place] for place in resample(log_weights, seed)]


def summary(drawn: Drawn) -> list[str]:
    """Return lines that say how fast it went and what the weights are worth."""
    lines = []
    if drawn.images:
        rate = drawn.images / drawn.seconds
        lines.append(f"{drawn.images:,} {drawn.noun} in {drawn.seconds:.1f} s, {rate:,.1f} {drawn.noun}/s, NFE {drawn.evaluations}")
    if drawn.log_weights:
        size = effective_sample_size(drawn.log_weights)
        lines.append(f"effective sample size {size:,.1f} of {len(drawn.log_weights):,} weighted {drawn.noun}")
    return lines
