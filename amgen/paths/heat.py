"""From a blurred image to a sharp one: the heat equation, backwards in time."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from amgen.core.devices import has_float64
from amgen.core.errors import UserError
from amgen.core.names import HEAT_BLUR, HEAT_NOISE
from amgen.data.images import to_float, to_uint8
from amgen.paths.base import Conditioning, Path, expand


class HeatPath(Path):
    """x_t = D^T B(t) D x_1 + a(t) eps: an image blurred by the heat equation, less and less towards t = 1, with noise.

    D is the orthonormal two-dimensional discrete cosine transform (DCT-II). It makes the heat equation with insulated borders diagonal:

        B(t) = exp(-f^2 tau(t)),    f^2 = pi^2 (i^2 / H^2 + j^2 / W^2) at frequency (i, j),
        tau(t) = blur^2 (1 - t)^2 / 2,    a(t) = noise (1 - t).

    The heat equation for a time tau is a Gaussian blur of standard deviation sqrt(2 tau), here blur (1 - t) pixels. Detail of size 1/f
    appears when the blur has about that size, and the velocity is bounded. Compare Rissanen et al., arXiv 2206.13397. Blur and noise
    decrease together, so that another schedule would only be another clock: this path takes none.

    The condition is the blurred image at t = 0 without noise, rounded to 8 bits. The blur damps detail but does not erase it: without the
    rounding, the network could recover the image from digits that no image file holds.

    Args:
        blur: standard deviation of the blur at t = 0, in pixels.
        noise: standard deviation of the noise at t = 0.

    Raises:
        UserError: unless both are positive.

    Example:
        >>> import torch
        >>> from amgen.paths import HeatPath
        >>> path = HeatPath(blur=2.0)
        >>> noise, images = torch.zeros(4, 1, 8, 8), torch.rand(4, 1, 8, 8)
        >>> start, end = path.sample(torch.zeros(4), noise, images), path.sample(torch.ones(4), noise, images)
        >>> bool(start.x.std() < images.std()), end.x.allclose(images, atol=1e-6)
        (True, True)
    """

    conditional = True

    def __init__(self, blur: float = HEAT_BLUR, noise: float = HEAT_NOISE):
        for name, value in {"blur": blur, "noise": noise}.items():
            if not value > 0:
                raise UserError(f"path.{name}={value}: expected a positive number")
        self.blur = blur
        self.noise = noise

    def condition_channels(self, channels: int) -> int:
        """Return the channels of the blurred image."""
        return channels

    def conditioning(self, data: Tensor, auxiliary: Tensor | None = None) -> Conditioning:
        """Return the blurred image, (B, C, H, W)."""
        return Conditioning(to_float(to_uint8(self._start(data))).to(data.dtype))

    def noise_scale(self, t: Tensor) -> Tensor:
        """Return a(t)."""
        return self.noise * (1 - t)

    def interpolate(self, t: Tensor, noise: Tensor, data: Tensor, conditioning: Conditioning) -> tuple[Tensor, Tensor]:
        """Return x_t and u_t = D^T B' D x_1 + a' eps at times `t` (B,), with B'/B = blur^2 (1 - t) f^2."""
        spectrum, rate = _transform(data), self._rate(t, data)
        damped = (-0.5 * expand(1 - t, data) * rate).exp() * spectrum
        x, velocity = _back(damped).to(data.dtype), _back(rate * damped).to(data.dtype)
        return x + expand(self.noise_scale(t), data) * noise, velocity - self.noise * noise

    def prior(self, noise: Tensor, data: Tensor | None = None, conditioning: Conditioning | None = None) -> Tensor:
        """Return the blurred images, not rounded, with noise."""
        if data is None:
            raise UserError("this model sharpens blurred images: give the images to start from (--condition-data)")
        return self._start(data) + self.noise * noise

    def shown(self, data: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the blurred image."""
        assert conditioning.condition is not None
        return conditioning.condition

    def baselines(self, data: Tensor, conditioning: Conditioning) -> dict[str, Tensor]:
        """Return the blurred image."""
        return {"blurred": self.shown(data, conditioning)}

    def posterior_noise(self, t: Tensor, x: Tensor, velocity: Tensor, conditioning: Conditioning) -> Tensor:
        """Return E[eps | x_t]: at each frequency (R x - v) / (R a - a') with R = B'/B, by the affine relation of x_t and u_t.

        The denominator is noise (R (1 - t) + 1), which is at least noise.
        """
        rate = self._rate(t, x)
        noise = (rate * _transform(x) - _transform(velocity)) / (self.noise * (rate * expand(1 - t, x) + 1))
        return _back(noise).to(x.dtype)

    def _start(self, data: Tensor) -> Tensor:
        """Return images blurred as at t = 0."""
        nothing = torch.zeros_like(data)
        return self.interpolate(data.new_zeros(len(data)), nothing, data, Conditioning())[0]

    def _rate(self, t: Tensor, like: Tensor) -> Tensor:
        """Return B'/B = -tau' f^2 at times (B,) and the frequencies of images (B, C, H, W), shape (B, 1, H, W)."""
        rows, columns = (torch.arange(size, dtype=_wide(like), device=like.device) * (math.pi / size) for size in like.shape[2:])
        return self.blur**2 * expand(1 - t, like) * (rows[:, None] ** 2 + columns**2)


def _transform(x: Tensor) -> Tensor:
    """Return D x of images (B, C, H, W)."""
    dtype = _wide(x)
    return _cosines(x.shape[2], dtype, x.device) @ x.to(dtype) @ _cosines(x.shape[3], dtype, x.device).T


def _back(spectrum: Tensor) -> Tensor:
    """Return D^T of spectra (B, C, H, W): the images with these spectra."""
    dtype, device = spectrum.dtype, spectrum.device
    return _cosines(spectrum.shape[2], dtype, device).T @ spectrum @ _cosines(spectrum.shape[3], dtype, device)


@lru_cache(maxsize=32)
def _cosines(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the orthonormal DCT-II of `size` values: row k is cos(pi k (n + 1/2) / size), normalised."""
    places = torch.arange(size, dtype=torch.float64)
    waves = (math.pi / size * places[:, None] * (places + 0.5)).cos() * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves.to(device, dtype)


def _wide(x: Tensor) -> torch.dtype:
    """Return the dtype of the transform: float64, which no GPU rounds to TensorFloat-32, if the device has it."""
    return torch.float64 if has_float64(x.device) else x.dtype
