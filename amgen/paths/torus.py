"""Pixels on circles: from uniform values to data, without an end of the range."""

import math

from torch import Tensor

from amgen.paths.base import Conditioning, Path, expand, wrap


class TorusPath(Path):
    """x_t = x_1 + 2 (1 - t) e modulo 4, e uniform on [-1, 1] (after arXiv 2210.06662, section 4.2).

    Data in [-1, 1] takes half of a circle of circumference 4; at t = 0 every pixel is uniform on the circle, exactly, which is where
    generation starts. Points are represented in [-2, 2); velocities live in the unwrapped space, and the action must be periodic in x.
    """

    PERIOD = 4.0

    def interpolate(self, t: Tensor, noise: Tensor, data: Tensor, conditioning: Conditioning) -> tuple[Tensor, Tensor]:
        """Return x_t, wrapped, and u_t at times `t` (B,)."""
        spread = 0.5 * self.PERIOD * _uniform(noise)
        return self.finish(data + (1 - expand(t, data)) * spread), -spread

    def prior(self, noise: Tensor, data: Tensor | None = None, conditioning: Conditioning | None = None) -> Tensor:
        """Turn standard normal noise into uniform points of the circle."""
        return self.finish(0.5 * self.PERIOD * _uniform(noise))

    def log_prior(self, x: Tensor) -> Tensor:
        """Return log q_0 = -D log 4, wherever the points are, wrapped or not."""
        return x.new_full((len(x),), -x[0].numel() * math.log(self.PERIOD))

    def finish(self, x: Tensor) -> Tensor:
        """Wrap into [-2, 2)."""
        return wrap(x, self.PERIOD)


def _uniform(noise: Tensor) -> Tensor:
    """Turn standard normal numbers into ones uniform on [-1, 1]."""
    return (noise / math.sqrt(2)).erf()
