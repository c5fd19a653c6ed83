"""Actions s(t, x): a body f(t, x) and a head that makes one scalar of it.

None of them has a parameter that adds a constant to s: the balanced and entropic losses do not see one.
"""

import torch
from torch import Tensor, nn


class Action(nn.Module):
    """s(t, x), one scalar for each sample, made from the output of a body.

    `body(t, x, label, condition)` returns what the head's `combine` takes. `label` (B,) and `condition` (B, K, H, W) inform the body
    and are not differentiated in.
    """

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        """Evaluate s at times `t` (B,) and points `x` (B, ...), shape (B,)."""
        return self.combine(x, self.body(t, x, label, condition))

    def combine(self, x: Tensor, f: Tensor) -> Tensor:
        """Make one scalar for each sample of `x` (B, ...) and the body's output `f`."""
        raise TypeError("use one of the heads: DotAction, SquareAction, PooledAction")


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
    """s = w . mean over pixels of f(t, x), for a body that returns features (B, features, H, W)."""

    def __init__(self, body: nn.Module, features: int):
        super().__init__(body)
        self.weight = nn.Parameter(torch.randn(features) / features**0.5)

    def combine(self, x: Tensor, f: Tensor) -> Tensor:
        """Return the weighted sum of the pooled features."""
        return _sum(f.mean(dim=(2, 3)) * self.weight)


def _sum(terms: Tensor) -> Tensor:
    """Sum over all but the batch dimension, in float32 at least: thousands of pixels are too many for half precision."""
    dtype = torch.promote_types(terms.dtype, torch.float32)
    return terms.flatten(1).sum(dim=1, dtype=dtype)
