"""Paths on which some pixels are known from the start: the others go from noise to data in straight lines."""

from abc import abstractmethod

import torch
from torch import Tensor

from amgen.errors import UserError
from amgen.paths.affine import LinearPath
from amgen.paths.base import Given


class KnownPixelsPath(LinearPath):
    """x_t = x_1 on known pixels, (1 - t) eps + t x_1 on the others (arXiv 2210.06662, section 4.2).

    The dynamics live on the free pixels alone: velocities, scores and noise are zero on the known ones.
    """

    guided = True

    @abstractmethod
    def given(self, data: Tensor, choices: Tensor | None = None) -> Given:
        """Return the condition and the free pixels of images (B, C, H, W)."""

    def interpolate(self, t: Tensor, noise: Tensor, data: Tensor, given: Given) -> tuple[Tensor, Tensor]:
        """Return x_t and u_t at times `t` (B,)."""
        x, velocity = super().interpolate(t, noise, data, given)
        return _merge(x, data, given), given.restrict(velocity)

    def prior(self, noise: Tensor, data: Tensor | None = None, given: Given | None = None) -> Tensor:
        """Put noise in place of the free pixels of `data`."""
        if data is None or given is None:
            raise UserError("this model completes images: give the images to start from (--condition-data)")
        return _merge(noise, data, given)

    def posterior_noise(self, t: Tensor, x: Tensor, velocity: Tensor, given: Given) -> Tensor:
        """Return E[eps | x_t] in the free pixels, zero in the known ones."""
        return given.restrict(super().posterior_noise(t, x, velocity, given))


class SuperResolutionPath(KnownPixelsPath):
    """Every factor-th pixel, in height and in width, is known.

    Condition: the known pixels interpolated linearly to the full size, a function of them alone.

    Args:
        factor: an integer of at least 2; sizes need not be multiples of it.
    """

    def __init__(self, factor: int = 2):
        if factor < 2:
            raise UserError(f"path.factor={factor}: expected at least 2")
        self.factor = factor

    def condition_channels(self, channels: int) -> int:
        """Return the channels of the interpolated image."""
        return channels

    def given(self, data: Tensor, choices: Tensor | None = None) -> Given:
        """Return the interpolated known pixels, and the pixels between them."""
        known = data[:, :, :: self.factor, :: self.factor]
        free = data.new_ones(len(data), 1, *data.shape[2:])
        free[:, :, :: self.factor, :: self.factor] = 0
        return Given(self.upsample(known, data.shape[2], data.shape[3]), free)

    def shown(self, data: Tensor, given: Given) -> Tensor:
        """Return the interpolated known pixels."""
        assert given.condition is not None
        return given.condition

    def upsample(self, known: Tensor, height: int, width: int) -> Tensor:
        """Interpolate known pixels (B, C, h, w) linearly to (B, C, height, width); beyond the last one its value goes on."""
        return self._weights(height, known) @ known @ self._weights(width, known).T

    def _weights(self, size: int, like: Tensor) -> Tensor:
        """Return the interpolation matrix (size, known) of one dimension; pixel i lies at i / factor among the known ones."""
        places = torch.arange(size, dtype=torch.float64) / self.factor
        count = -(-size // self.factor)
        distance = (places.clamp(max=count - 1)[:, None] - torch.arange(count)).abs()
        return (1 - distance).clamp(min=0).to(like)


class InPaintingPath(KnownPixelsPath):
    """A region is painted and its surroundings are known. Condition: the known pixels on a background of zeros, and the region's mask.

    Args:
        region: "half", the top or the bottom one; "box", with sides of a quarter to a half of the image's, anywhere; or "mask".
        mask: painted pixels, bool (H, W), for the region "mask".
    """

    def __init__(self, region: str = "half", mask: Tensor | None = None):
        if region not in ("half", "box", "mask") or (region == "mask") != (mask is not None):
            raise UserError(f"path.region={region!r}: expected half, box, or mask together with a mask")
        self.region = region
        self.mask = mask
        self.choices = {"half": 1, "box": 4, "mask": 0}[region]

    def condition_channels(self, channels: int) -> int:
        """Return the channels of the masked image and one for the mask."""
        return channels + 1

    def given(self, data: Tensor, choices: Tensor | None = None) -> Given:
        """Return the known pixels beside the mask, and the painted region."""
        free = self._region(data, choices)
        return Given(torch.cat([data * (1 - free), free], dim=1), free)

    def _region(self, data: Tensor, choices: Tensor | None) -> Tensor:
        """Return 1 where to paint and 0 elsewhere, (B, 1, H, W)."""
        count, _, height, width = data.shape
        if self.mask is not None:
            return self.mask.to(data).expand(count, 1, height, width)
        if choices is None:
            raise UserError(f"path.region={self.region} is drawn for each image: give its random numbers")
        rows, columns = torch.arange(height, device=data.device), torch.arange(width, device=data.device)
        if self.region == "half":
            bottom = choices[:, :1] < 0.5
            inside = (rows >= height // 2) == bottom
            return inside[:, None, :, None].expand(count, 1, height, width).to(data.dtype)
        tall, wide = _span(choices[:, 0], choices[:, 1], rows), _span(choices[:, 2], choices[:, 3], columns)
        return (tall[:, None, :, None] & wide[:, None, None, :]).to(data.dtype)


def _span(length: Tensor, place: Tensor, positions: Tensor) -> Tensor:
    """Return which positions (N,) lie in an interval a quarter to a half as long, anywhere among them, bool (B, N)."""
    size = len(positions)
    low = max(1, size // 4)
    extent = low + (length * (size // 2 - low + 1)).long()
    first = (place * (size - extent + 1)).long()
    return (positions >= first[:, None]) & (positions < (first + extent)[:, None])


def _merge(moving: Tensor, data: Tensor, given: Given) -> Tensor:
    """Take the free pixels from `moving` and the known ones, unchanged, from `data`."""
    assert given.free is not None
    return torch.where(given.free.bool(), moving, data)
