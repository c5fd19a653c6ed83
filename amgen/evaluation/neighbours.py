"""Are generated images copies of training images? A score for it, and an image grid of the closest pairs."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from amgen.config import SamplingConfig
from amgen.core.errors import UserError
from amgen.core.randomness import Purpose, permutation
from amgen.evaluation import metrics
from amgen.evaluation.features import FeatureExtractor
from amgen.evaluation.reference import Reference
from amgen.evaluation.report import Evaluation
from amgen.evaluation.scores import Score
from amgen.sampling import Model, Request, generate_all
from amgen.visualization.grids import save_grid

PAIRS = 16
"""Number of generated images in the grid: those nearest to a training image."""


def nearness(features: Tensor, training: Reference, held_out: Reference | None, extractor: FeatureExtractor, seed: int) -> Score:
    """Return the probability that a generated image is closer to its nearest training image than a held-out real image is.

    0.5 is the value of new data. 1 means copies of training images, 0 images far from the data. Without held-out images, training images
    take their place; each is then compared with the other training images.

    Args:
        features: features of the generated images, (N, D).
        training: the training images.
        held_out: real images that were not used for training.
        extractor: the extractor that computed the features.
        seed: seed of the choice of training images.
    """
    assert training.features is not None
    assert training.indices is not None
    skip: Sequence[int] | None
    if held_out is None:
        order = permutation(seed, Purpose.EVALUATION_SPLIT, -3, len(training.features))[: len(features)]
        real, skip, what = training.features[order], order.tolist(), "a training image is to the other ones"
    else:
        assert held_out.features is not None
        real, skip, what = held_out.features, None, f"a held-out image ({held_out.description}) is"
    distances, places = metrics.nearest(features, training.features)
    usual = metrics.nearest(real, training.features, skip)[0]
    share, error = metrics.probability_smaller(distances, usual)
    closest = distances.argsort()[:PAIRS].tolist()
    details = {
        "median_generated": float(distances.median()),
        "median_real": float(usual.median()),
        "real": len(real),
        "pairs": [[index, training.indices[int(places[index])], float(distances[index])] for index in closest],
    }
    note = f"probability that a generated image is closer to the training images than {what}: 0.5 for new data, 1 for copies"
    return Score(extractor.score_name("nearness to training images"), share, error, note, details, lower_is_better=None)


def check_neighbours(file: Path, metrics: Sequence[str], reference: Reference) -> None:
    """Check that `save_neighbours` can work.

    Raises:
        UserError: if the metric `nearest` is not among the metrics, or the reference is a file of statistics.
    """
    if "nearest" not in metrics:
        raise UserError(f"--neighbours {file} shows the result of metrics=nearest: add it to --metrics")
    if reference.dataset is None:
        raise UserError(f"--neighbours {file}: {reference.description} holds no images: give images with --data")


def save_neighbours(
    file: Path, model: Model, options: SamplingConfig, request: Request, evaluation: Evaluation, reference: Reference
) -> None:
    """Save a grid of the generated images closest to training images, each above its nearest training image.

    The images are generated again from their seeds.

    Args:
        file: the image file.
        model: the model that was evaluated.
        options: the sampling settings of the evaluation.
        request: the request of the evaluation.
        evaluation: the result with the metric `nearest`.
        reference: the training images.
    """
    pairs = next(score.details["pairs"] for score in evaluation.scores if "pairs" in score.details)
    assert reference.dataset is not None
    generated = [samples.images for samples in generate_all(model, options, [index for index, _, _ in pairs], request)]
    save_grid(file, [torch.cat(generated), reference.dataset.images([index for _, index, _ in pairs])], len(pairs) // 2)
