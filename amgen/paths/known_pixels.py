"""Paths on which some pixels are known from the start; the others go from noise to data."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from amgen.core.devices import double
from amgen.core.errors import UserError
from amgen.core.names import REGION, SUPER_RESOLUTION_FACTOR, Region
from amgen.paths.affine import AffinePath
from amgen.paths.base import Conditioning, Constant
from amgen.paths.schedules import Linear, Schedule

Kernel = Callable[[Tensor], Tensor]
"""Weights of neighbours at distances in [0, 2], in units of the spacing of known pixels."""


class KnownPixelsPath(AffinePath):
    """x_t = x_1 on known pixels, a(t) eps + alpha(t) x_1 on the free ones (arXiv 2210.06662, section 4.2, with a = 1 - t and alpha = t).

    Only the free pixels move: velocities, scores and noise are zero on the known ones.

    Args:
        schedule: a(t) and alpha(t).
    """

    conditional = True

    @abstractmethod
    def conditioning(self, data: Tensor, auxiliary: Tensor | None = None) -> Conditioning:
        """Return the condition and the free pixels of images (B, C, H, W)."""

    def interpolate(self, t: Tensor, noise: Tensor, data: Tensor, conditioning: Conditioning) -> tuple[Tensor, Tensor]:
        """Return x_t and u_t at times `t` (B,)."""
        x, velocity = super().interpolate(t, noise, data, conditioning)
        return _merge(x, data, conditioning), conditioning.restrict(velocity)

    def prior(self, noise: Tensor, data: Tensor | None = None, conditioning: Conditioning | None = None) -> Tensor:
        """Put noise in place of the free pixels of `data`."""
        if data is None or conditioning is None:
            raise UserError("this model completes images: give the images to start from (--condition-data)")
        return _merge(noise, data, conditioning)

    def posterior_noise(self, t: Tensor, x: Tensor, velocity: Tensor, conditioning: Conditioning) -> Tensor:
        """Return E[eps | x_t] in the free pixels, zero in the known ones."""
        return conditioning.restrict(super().posterior_noise(t, x, velocity, conditioning))

    def score(self, t: Tensor, x: Tensor, velocity: Tensor, conditioning: Conditioning) -> Tensor:
        """Return grad log q_t in the free pixels, zero in the known ones."""
        return conditioning.restrict(super().score(t, x, velocity, conditioning))


class SuperResolutionPath(KnownPixelsPath):
    """Super-resolution: every factor-th pixel, in height and in width, is known.

    The condition is the image of the known pixels, interpolated linearly to the full size. It depends on the known pixels only.

    Args:
        factor: an integer of at least 2; sizes need not be multiples of it.
        schedule: a(t) and alpha(t) of the free pixels.

    Raises:
        UserError: for a factor below 2.

    Example:
        >>> import torch
        >>> from amgen.paths import SuperResolutionPath, Trigonometric
        >>> path = SuperResolutionPath(2, schedule=Trigonometric())
        >>> noise, images = torch.randn(4, 3, 8, 8), torch.rand(4, 3, 8, 8)
        >>> sample = path.sample(torch.rand(4), noise, images)
        >>> sample.conditioning.condition.shape, int(sample.conditioning.free[0].sum())
        (torch.Size([4, 3, 8, 8]), 48)
        >>> torch.equal(sample.x[:, :, ::2, ::2], images[:, :, ::2, ::2])
        True
    """

    def __init__(self, factor: int = SUPER_RESOLUTION_FACTOR, schedule: Schedule = Linear()):  # noqa: B008 (immutable)
        if factor < 2:
            raise UserError(f"path.factor={factor}: expected at least 2")
        super().__init__(schedule)
        self.factor = factor

    def condition_channels(self, channels: int) -> int:
        """Return the channels of the interpolated image."""
        return channels

    def conditioning(self, data: Tensor, auxiliary: Tensor | None = None) -> Conditioning:
        """Return the interpolated known pixels, and the pixels between them."""
        known = data[:, :, :: self.factor, :: self.factor]
        free = data.new_ones(len(data), 1, *data.shape[2:])
        free[:, :, :: self.factor, :: self.factor] = 0
        return Conditioning(self.upsample(known, data.shape[2], data.shape[3], _linear), free)

    def shown(self, data: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the interpolated known pixels."""
        assert conditioning.condition is not None
        return conditioning.condition

    def baselines(self, data: Tensor, conditioning: Conditioning) -> dict[str, Tensor]:
        """Return the known pixels interpolated linearly and by cubic convolution."""
        known = data[:, :, :: self.factor, :: self.factor]
        return {"bilinear": self.shown(data, conditioning), "bicubic": self.upsample(known, data.shape[2], data.shape[3], _cubic)}

    def upsample(self, known: Tensor, height: int, width: int, kernel: Kernel) -> Tensor:
        """Interpolate known pixels (B, C, h, w) to (B, C, height, width); beyond the outer ones their values are repeated."""
        exact = double(known)  # no GPU rounds this to TF32, so training and sampling see the same condition
        return (self._weights(height, exact, kernel) @ exact @ self._weights(width, exact, kernel).T).to(known)

    def _weights(self, size: int, like: Tensor, kernel: Kernel) -> Tensor:
        """Return the interpolation matrix (size, known) of one dimension; pixel i lies at i / factor among the known ones."""
        places = torch.arange(size, dtype=torch.float64)[:, None] / self.factor
        count = -(-size // self.factor)
        neighbours = places.floor() + torch.arange(-1, 3)
        weights = torch.zeros(size, count, dtype=torch.float64)
        weights.scatter_add_(1, neighbours.long().clamp(0, count - 1), kernel((places - neighbours).abs()))
        return weights.to(like)


class InPaintingPath(KnownPixelsPath):
    """In-painting: a region is painted and its surroundings are known.

    The condition is the image of the known pixels, with zeros in the region, and the mask of the region as one more channel.

    Args:
        region: "half" for the top or the bottom half; "box" for a box anywhere, each side a quarter to a half of the image's; or "mask".
        mask: the pixels to paint, bool (H, W), for the region "mask".
        schedule: a(t) and alpha(t) of the pixels in the region.

    Raises:
        UserError: for an unknown region, and if a mask is missing for the region "mask" or given for another one.

    Example:
        >>> import torch
        >>> from amgen.paths import InPaintingPath
        >>> path = InPaintingPath("mask", torch.eye(8, dtype=torch.bool))
        >>> noise, images = torch.randn(4, 1, 8, 8), torch.rand(4, 1, 8, 8)
        >>> sample = path.sample(torch.zeros(4), noise, images)
        >>> (sample.x != images).sum(dim=(1, 2, 3)).tolist()
        [8, 8, 8, 8]

        The regions "half" and "box" are random: each image needs `path.auxiliary` uniform numbers.

        >>> path = InPaintingPath("half")
        >>> sample = path.sample(torch.zeros(4), noise, images, auxiliary=torch.rand(4, path.auxiliary))
        >>> (sample.x != images).sum(dim=(1, 2, 3)).tolist()
        [32, 32, 32, 32]
    """

    def __init__(self, region: Region = REGION, mask: Tensor | None = None, schedule: Schedule = Linear()):  # noqa: B008 (immutable)
        if region not in ("half", "box", "mask") or (region == "mask") != (mask is not None):
            raise UserError(f"path.region={region!r}: expected half, box, or mask together with a mask")
        super().__init__(schedule)
        self.region = region
        self.mask = mask
        self._mask = None if mask is None else Constant(mask)
        self.auxiliary = {"half": 1, "box": 4, "mask": 0}[region]

    def condition_channels(self, channels: int) -> int:
        """Return the channels of the masked image and one for the mask."""
        return channels + 1

    def conditioning(self, data: Tensor, auxiliary: Tensor | None = None) -> Conditioning:
        """Return the known pixels beside the mask, and the painted region."""
        free = self._region(data, auxiliary)
        return Conditioning(torch.cat([data * (1 - free), free], dim=1), free)

    def baselines(self, data: Tensor, conditioning: Conditioning) -> dict[str, Tensor]:
        """Return the region filled with the mean of the image's known pixels, and with the value of the nearest known pixel.

        Where no pixel is known, both are the middle gray.
        """
        assert conditioning.free is not None
        known = 1 - conditioning.free
        total = data.where(known.bool(), 0.0).sum(dim=(2, 3), keepdim=True)
        filled = _merge(total / known.sum(dim=(2, 3), keepdim=True).clamp(min=1), data, conditioning)
        return {"mean of known pixels": filled, "nearest known pixel": _spread(filled, conditioning.free)}

    def _region(self, data: Tensor, auxiliary: Tensor | None) -> Tensor:
        """Return 1 where to paint and 0 elsewhere, (B, 1, H, W)."""
        count, _, height, width = data.shape
        if self._mask is not None:
            return self._mask.like(data).expand(count, 1, height, width)
        if auxiliary is None:
            raise UserError(f"path.region={self.region} is random for each image: give its uniform numbers (auxiliary)")
        rows, columns = torch.arange(height, device=data.device), torch.arange(width, device=data.device)
        if self.region == "half":
            bottom = auxiliary[:, :1] < 0.5
            inside = (rows >= height // 2) == bottom
            return inside[:, None, :, None].expand(count, 1, height, width).to(data.dtype)
        tall, wide = _span(auxiliary[:, 0], auxiliary[:, 1], rows), _span(auxiliary[:, 2], auxiliary[:, 3], columns)
        return (tall[:, None, :, None] & wide[:, None, None, :]).to(data.dtype)


def _span(length: Tensor, place: Tensor, positions: Tensor) -> Tensor:
    """Return which of the positions (N,) lie in an interval anywhere among them, a quarter to a half as long, bool (B, N)."""
    size = len(positions)
    low = max(1, size // 4)
    extent = low + (length * (size // 2 - low + 1)).long()
    first = (place * (size - extent + 1)).long()
    return (positions >= first[:, None]) & (positions < (first + extent)[:, None])


def _linear(distance: Tensor) -> Tensor:
    """Return the weight of a neighbour at a distance in [0, 2] in linear interpolation."""
    return (1 - distance).clamp(min=0)


def _cubic(distance: Tensor) -> Tensor:
    """Return the weight of a neighbour at a distance in [0, 2] in cubic convolution (Keys 1981, a = -1/2)."""
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance <= 1, near, far)


def _spread(images: Tensor, free: Tensor) -> Tensor:
    """Give every free pixel of images (B, C, H, W) the value of the known pixel nearest to it."""
    spread = images.clone()
    for image, mask in zip(spread, free[:, 0].cpu().numpy(), strict=True):
        rows, columns = torch.from_numpy(distance_transform_edt(mask, return_distances=False, return_indices=True)).long()
        image.copy_(image[:, rows, columns])
    return spread


def _merge(moving: Tensor, data: Tensor, conditioning: Conditioning) -> Tensor:
    """Take the free pixels from `moving` and the known ones, unchanged, from `data`."""
    assert conditioning.free is not None
    return torch.where(conditioning.free.bool(), moving, data)
