"""Actions s(t, x): a body f(t, x) and a head that reduces it to one scalar.

Only the offset for unbalanced dynamics adds a constant to s. The losses of other dynamics do not depend on a constant, so that a parameter
for it would get no gradient.
"""

import math

import torch
from torch import Tensor, nn

from amgen.actions.layers import TimeEmbedding, wide


class Action(nn.Module):
    """Base of the actions: s(t, x), one scalar for each sample.

    Args:
        body: f(t, x), called as `body(t, x, label, condition, dropout_seeds)`; its output is the second argument of `combine`.
        offset: c(t), (B,) to (B,), which is added to s; for unbalanced dynamics, whose growth is lambda s.
        period: period of s in every entry of x. Body and head then get cos(2 pi x / period) and sin(2 pi x / period), concatenated along
            dimension 1, in place of x. None for no period.
    """

    def __init__(self, body: nn.Module, offset: nn.Module | None = None, period: float | None = None):
        super().__init__()
        self.body = body
        self.offset = offset
        self.period = period

    def forward(
        self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None, dropout_seeds: Tensor | None = None
    ) -> Tensor:
        """Return s, shape (B,).

        Args:
            t: times, (B,).
            x: points, (B, ...).
            label: classes, int64 (B,), for a class-conditional body.
            condition: condition of the body, (B, K, H, W); s is not differentiated in it.
            dropout_seeds: seeds of the dropout masks, int32 (B, 2), for training with dropout.
        """
        if self.period is not None:
            angle = (2 * math.pi / self.period) * x
            x = torch.cat([angle.cos(), angle.sin()], dim=1)
        action = self.combine(x, self.body(t, x, label, condition, dropout_seeds))
        return action if self.offset is None else action + self.offset(t)

    def combine(self, x: Tensor, f: Tensor) -> Tensor:
        """Return one scalar for each sample, (B,), from `x` (B, ...) and the output `f` of the body."""
        raise TypeError("use one of the heads: DotAction, SquareAction, PooledAction")


class TimeOffset(nn.Module):
    """c(t), a scalar that depends on time only; zero before training."""

    def __init__(self, time_frequency: float, features: int = 32):
        super().__init__()
        self.embedding = TimeEmbedding(features, time_frequency)
        self.out = nn.Linear(features, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, t: Tensor) -> Tensor:
        """Return c at times (B,), shape (B,)."""
        with torch.autocast(t.device.type, enabled=False):
            return self.out(self.embedding(t)).squeeze(1)


class DotAction(Action):
    """s = <x, f(t, x)>, the head that trains best.

    Example:
        >>> import torch
        >>> from amgen.actions import DotAction, UNet
        >>> action = DotAction(UNet(channels=1, size=8, width=8, multipliers=[1, 2], blocks=1, out_channels=1))
        >>> action(torch.rand(4), torch.randn(4, 1, 8, 8)).shape
        torch.Size([4])
    """

    def combine(self, x: Tensor, f: Tensor) -> Tensor:
        """Return the inner product of `x` and `f`, both (B, ...)."""
        return _sum(x * f)


class SquareAction(Action):
    """s = 1/2 |x - f(t, x)|^2.

    Example:
        >>> import torch
        >>> from amgen.actions import MLP, SquareAction
        >>> SquareAction(MLP(dimension=2, width=16, depth=2))(torch.rand(4), torch.randn(4, 2)).shape
        torch.Size([4])
    """

    def combine(self, x: Tensor, f: Tensor) -> Tensor:
        """Return half the squared distance of `x` and `f`, both (B, ...)."""
        return 0.5 * _sum((x - f).square())


class PooledAction(Action):
    """s = w . mean over the pixels of f(t, x), for a body that returns features of images, (B, F, H, W), or of points, (B, F).

    Args:
        body: f(t, x).
        features: F.
        offset: as for `Action`.
        period: as for `Action`.

    Example:
        >>> import torch
        >>> from amgen.actions import MLP, PooledAction
        >>> action = PooledAction(MLP(dimension=2, width=16, depth=2, features_only=True), features=16)
        >>> action(torch.rand(4), torch.randn(4, 2)).shape
        torch.Size([4])
    """

    def __init__(self, body: nn.Module, features: int, offset: nn.Module | None = None, period: float | None = None):
        super().__init__(body, offset, period)
        self.weight = nn.Parameter(torch.randn(features) / features**0.5)

    def combine(self, x: Tensor, f: Tensor) -> Tensor:
        """Return the weighted sum of the pooled features."""
        return _sum((f.mean(dim=(2, 3), dtype=wide(f.dtype)) if f.dim() == 4 else f) * self.weight)


def _sum(terms: Tensor) -> Tensor:
    """Return the sum over all but the batch dimension, in float32 at least: half precision is too coarse for thousands of pixels."""
    return terms.flatten(1).sum(dim=1, dtype=wide(terms.dtype))
