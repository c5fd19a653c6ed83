"""Pixels on circles: from uniform values to data."""

import math

from torch import Tensor

from amgen.paths.base import Conditioning, Path, expand, wrap


class TorusPath(Path):
    """x_t = x_1 + 2 (1 - t) e modulo 4, e uniform on [-1, 1] (after arXiv 2210.06662, section 4.2).

    The range [-1, 1] of the data is half of a circle of circumference 4. At t = 0 every pixel is exactly uniform on the circle, and
    generation starts there. Points are represented in [-2, 2). Velocities u_t = -2 e are those of the unwrapped points, and the action must
    be periodic in x. x_t is not Gaussian given the data, so this path has no score.

    Example:
        >>> import torch
        >>> from amgen.paths import TorusPath
        >>> path = TorusPath()
        >>> noise, images = torch.randn(4, 1, 8, 8), torch.rand(4, 1, 8, 8)
        >>> start = path.sample(torch.zeros(4), noise, images).x
        >>> bool((-2 <= start).all() and (start < 2).all())
        True
        >>> path.sample(torch.ones(4), noise, images).x.allclose(images, atol=1e-6)
        True
    """

    PERIOD = 4.0

    def interpolate(self, t: Tensor, noise: Tensor, data: Tensor, conditioning: Conditioning) -> tuple[Tensor, Tensor]:
        """Return x_t, wrapped, and u_t at times `t` (B,)."""
        spread = 0.5 * self.PERIOD * _uniform(noise)
        return self.finish(data + (1 - expand(t, data)) * spread), -spread

    def prior(self, noise: Tensor, data: Tensor | None = None, conditioning: Conditioning | None = None) -> Tensor:
        """Transform standard normal noise into uniform points of the circle."""
        return self.finish(0.5 * self.PERIOD * _uniform(noise))

    def log_prior(self, x: Tensor) -> Tensor:
        """Return log q_0 = -D log 4, shape (B,): the same for all points."""
        return x.new_full((len(x),), -x[0].numel() * math.log(self.PERIOD))

    def finish(self, x: Tensor) -> Tensor:
        """Wrap into [-2, 2)."""
        return wrap(x, self.PERIOD)


def _uniform(noise: Tensor) -> Tensor:
    """Transform standard normal numbers into uniform ones on [-1, 1]."""
    return (noise / math.sqrt(2)).erf()
