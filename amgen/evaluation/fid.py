"""Scoring a model: generate, extract features, compare with the real images."""

import time
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from amgen.config import SamplingConfig, change
from amgen.data import ImageDataset, open_dataset
from amgen.errors import UserError
from amgen.evaluation.features import extract, make_extractor
from amgen.evaluation.metrics import frechet_distance, matched_distance
from amgen.evaluation.report import Report
from amgen.kinds import Unbalanced
from amgen.sampling import Model, Request, describe_solver, generate_all

DEFAULT_NUM = 10_000


def evaluate(
    model: Model,
    options: SamplingConfig,
    features: str,
    num: int | None = None,
    request: Request = Request(),  # noqa: B008 (immutable)
    weights: Path | None = None,
    data: str | None = None,
) -> Report:
    """Measure the Fréchet distance of generated images from the images that the model was trained on.

    Args:
        model: the model.
        options: solver and batch size.
        features: name of the features.
        num: images to generate; by default as many as there are real ones, at most 10,000.
        request: seed, class and start images of what is generated.
        weights: file with the features' weights, where they take one.
        data: a folder, zip or data set of real images, by default the training images.

    Raises:
        UserError: if the features or the real images are not to be had, or the generated images carry weights.
        Diverged: if an image comes out with values that are not finite.
    """
    if isinstance(model.kind, Unbalanced):
        raise UserError(
            "images of unbalanced dynamics carry weights, which this distance does not take into account: "
            "compare class histograms with scripts/class_histogram.py"
        )
    channels, size, _ = model.config.image_shape
    extractor = make_extractor(features, channels, size, weights, model.device)
    dataset = open_dataset(change(model.config.images, {"path": data}))
    num = min(len(dataset), DEFAULT_NUM) if num is None else num
    clock, nfe = time.perf_counter(), 0
    seconds = {"generating": 0.0, "extracting": 0.0, "measuring": 0.0}

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name] += time.perf_counter() - clock
        clock = time.perf_counter()

    def generated_batches() -> Iterator[Tensor]:
        nonlocal nfe
        for samples in generate_all(model, options, range(num), request):
            nfe = max(nfe, samples.evaluations)
            lap("generating")
            yield samples.images
            lap("extracting")

    generated = extract(extractor, generated_batches())
    lap("generating")
    real = extract(extractor, real_batches(dataset, options.batch_size))
    lap("extracting")
    value, matched = frechet_distance(generated, real), matched_distance(generated, real, request.seed)
    lap("measuring")
    return Report(
        metric=extractor.metric,
        value=value,
        generated=len(generated),
        real=len(real),
        reference=dataset.source.description,
        matched=matched,
        features=extractor.describe(),
        model=model.describe(),
        sampling={**describe_solver(options), "NFE": nfe, "seed": request.seed, "label": request.label},
        seconds=seconds,
    )


def real_batches(dataset: ImageDataset, batch_size: int) -> Iterator[Tensor]:
    """Yield all images of a data set in order, uint8 (B, C, H, W)."""
    for start in range(0, len(dataset), batch_size):
        yield dataset.images(range(start, min(start + batch_size, len(dataset))))
