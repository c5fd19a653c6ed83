"""Pixel values as features."""

from pathlib import Path

import torch
from torch import Tensor

from amgen.core.errors import UserError
from amgen.data import to_float
from amgen.evaluation.features.base import FeatureExtractor
from amgen.evaluation.features.weights import check_no_weights


class PixelFeatures(FeatureExtractor):
    """The pixel values themselves, in [-1, 1]. The dimension is channels * size^2."""

    name, distance_name = "pixels", "FD (pixels)"
    preparation = "none"
    checksum = ""
    MAX_DIMENSION = 4096

    def __init__(self, weights: Path | None, device: torch.device):
        check_no_weights(self.name, weights)

    def check(self, channels: int, size: int) -> None:
        """Refuse images with too many pixels: the covariance matrix would not fit into memory."""
        self.dimension = channels * size**2
        if self.dimension > self.MAX_DIMENSION:
            raise UserError(
                f"features=pixels: {self.dimension} dimensions are too many (at most {self.MAX_DIMENSION}): choose other features"
            )

    def __call__(self, images: Tensor) -> Tensor:
        """Return the flattened pixels, (B, C H W)."""
        return to_float(images).flatten(1).cpu()
