"""Actions s(t, x): a body f(t, x) and a head that makes one scalar of it.

But for the offset that unbalanced dynamics need, none of them has a parameter that adds a constant to s: other losses do not see one.
"""

import math

import torch
from torch import Tensor, nn

from amgen.actions.layers import TimeEmbedding, wide


class Action(nn.Module):
    """s(t, x), one scalar for each sample, made from the output of a body.

    `body(t, x, label, condition, keys)` returns what the head's `combine` takes. `label` (B,) and `condition` (B, K, H, W) inform the
    body and are not differentiated in; dropout masks are made from `keys`, int32 (B, 2).

    Args:
        body: f(t, x).
        offset: c(t), (B,) to (B,), added to s; for unbalanced dynamics, whose growth is s itself.
        period: makes s periodic in every entry of x: the body and the head see the cosine and the sine of it, stacked along dimension 1.
    """

    def __init__(self, body: nn.Module, offset: nn.Module | None = None, period: float | None = None):
        super().__init__()
        self.body = body
        self.offset = offset
        self.period = period

    def forward(
        self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None, dropout_seeds: Tensor | None = None
    ) -> Tensor:
        """Evaluate s at times `t` (B,) and points `x` (B, ...), shape (B,)."""
        if self.period is not None:
            angle = (2 * math.pi / self.period) * x
            x = torch.cat([angle.cos(), angle.sin()], dim=1)
        action = self.combine(x, self.body(t, x, label, condition, dropout_seeds))
        return action if self.offset is None else action + self.offset(t)

    def combine(self, x: Tensor, f: Tensor) -> Tensor:
        """Make one scalar for each sample of `x` (B, ...) and the body's output `f`."""
        raise TypeError("use one of the heads: DotAction, SquareAction, PooledAction")


class TimeOffset(nn.Module):
    """c(t), a scalar that depends on time alone; zero at first."""

    def __init__(self, time_frequency: float, features: int = 32):
        super().__init__()
        self.embedding = TimeEmbedding(features, time_frequency)
        self.out = nn.Linear(features, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, t: Tensor) -> Tensor:
        """Evaluate c at times (B,), shape (B,)."""
        with torch.autocast(t.device.type, enabled=False):
            return self.out(self.embedding(t)).squeeze(1)


class DotAction(Action):
    """s = <x, f(t, x)>, the head that trains best."""

    def combine(self, x: Tensor, f: Tensor) -> Tensor:
        """Return the inner product of `x` and `f`, both (B, ...)."""
        return _sum(x * f)


class SquareAction(Action):
    """s = 1/2 |x - f(t, x)|^2."""

    def combine(self, x: Tensor, f: Tensor) -> Tensor:
        """Return half the squared distance of `x` and `f`, both (B, ...)."""
        return 0.5 * _sum((x - f).square())


class PooledAction(Action):
    """s = w . mean over pixels of f(t, x), for a body that returns features (B, features, H, W), or those of points, (B, features)."""

    def __init__(self, body: nn.Module, features: int, offset: nn.Module | None = None, period: float | None = None):
        super().__init__(body, offset, period)
        self.weight = nn.Parameter(torch.randn(features) / features**0.5)

    def combine(self, x: Tensor, f: Tensor) -> Tensor:
        """Return the weighted sum of the pooled features."""
        return _sum((f.mean(dim=(2, 3), dtype=wide(f.dtype)) if f.dim() == 4 else f) * self.weight)


def _sum(terms: Tensor) -> Tensor:
    """Sum over all but the batch dimension, in float32 at least: thousands of pixels are too many for half precision."""
    return terms.flatten(1).sum(dim=1, dtype=wide(terms.dtype))
