"""Generating many images: divided among processes, written as they come, continued where it was interrupted."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from amgen.config import SamplingConfig
from amgen.core.errors import UserError
from amgen.core.processes import Processes
from amgen.core.progress import Progress
from amgen.model.trained import TrainedAction
from amgen.sampling.generate import generate_all
from amgen.sampling.request import Request
from amgen.sampling.weights import effective_sample_size, resample
from amgen.sampling.writer import ImageFolder
from amgen.visualization.grids import save_grid

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
    modality: str = "images"


def draw(
    model: TrainedAction,
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
        say(f"{len(there):,} of {len(indices):,} {model.config.modality} are there already")

    start, progress = time.perf_counter(), Progress(total, model.config.modality, say, processes, "drawing")
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
    result = Drawn(total, seconds, evaluations, modality=model.config.modality)
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
        lines.append(f"{drawn.images:,} {drawn.modality} in {drawn.seconds:.1f} s, {rate:,.1f} {drawn.modality}/s, NFE {drawn.evaluations}")
    if drawn.log_weights:
        size = effective_sample_size(drawn.log_weights)
        lines.append(f"effective sample size {size:,.1f} of {len(drawn.log_weights):,} weighted {drawn.modality}")
    return lines
