"""Probability paths q_t between noise (t = 0) and data (t = 1), known through samples x_t and their velocities.

Symbols: x_0 noise, x_1 data, t in [0, 1], u_t = d/dt x_t along the path that joins the pair (x_0, x_1).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class PathSample:
    """A batch of B points drawn along a path, and what the losses need to know of them.

    Attributes:
        t: times, in [0, 1], shape (B,).
        x: points x_t, shape (B, ...).
        velocity: u_t, same shape as `x`.
        density: p(t), the density that `t` was drawn from, shape (B,).
        start: x_0 of the same pairs, samples of q_0, same shape as `x`.
        end: x_1 of the same pairs, samples of q_1, same shape as `x`.
        label: class of each sample, int64, shape (B,); None for an unconditional action.
        condition: what the network sees beside `x` and is not differentiated in, (B, K, H, W); None for nothing.
    """

    t: Tensor
    x: Tensor
    velocity: Tensor
    density: Tensor
    start: Tensor
    end: Tensor
    label: Tensor | None = None
    condition: Tensor | None = None


class Path(ABC):
    """A family of curves x_t = I(t, x_0, x_1) that start at noise and end at data."""

    @abstractmethod
    def interpolate(self, t: Tensor, x_0: Tensor, x_1: Tensor) -> tuple[Tensor, Tensor]:
        """Return x_t and u_t = d/dt x_t, both shaped like `x_0` (B, ...), at times `t` (B,)."""

    def sample(
        self,
        t: Tensor,
        x_0: Tensor,
        x_1: Tensor,
        density: Tensor | None = None,
        label: Tensor | None = None,
    ) -> PathSample:
        """Draw points along the curves that join `x_0` with `x_1`; `density` is p(t), 1 by default."""
        x, velocity = self.interpolate(t, x_0, x_1)
        return PathSample(t, x, velocity, torch.ones_like(t) if density is None else density, x_0, x_1, label)

    def prior(self, noise: Tensor) -> Tensor:
        """Turn standard normal noise (B, ...) into samples of q_0, where generation starts."""
        return noise


def expand(t: Tensor, like: Tensor) -> Tensor:
    """Reshape `t` (B,) to (B, 1, ..., 1), with as many dimensions as `like`."""
    return t.reshape(-1, *[1] * (like.dim() - 1))
