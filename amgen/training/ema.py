"""Exponential moving averages of the weights, several rates at once."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from amgen.model.checkpoints import ema_name

WARM_UP = 9
"""Exponent of the warm-up: without a rate of its own, an average weighs the weights after u of N images in proportion to u^8, that is
9 u^8 / N^9, the limit of d = (1 + n) / (10 + n) = 1 - 9 / (10 + n) for many steps."""


class ExponentialAverages:
    """Averages a <- d a + (1 - d) w after each step, whose early values are not dominated by the initial weights.

    Rates below 1 are decays per step, d = min(rate, (1 + n) / (10 + n)) at the n-th step; another batch size makes another average of them.
    Rates of 1 and above are half-lives in images, and give the same average at any batch size, see `image_decay`.

    Every process updates its own copy, and because all have the same weights, all have the same averages.

    Args:
        module: the network.
        rates: the rate of each average.
        batch_size: images of a step, all processes together.
    """

    def __init__(self, module: nn.Module, rates: Sequence[float], batch_size: int):
        self.rates = list(rates)
        self.batch_size = batch_size
        self._current = module.state_dict()
        self.averages = {rate: {name: tensor.clone() for name, tensor in self._current.items()} for rate in self.rates}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after `step` steps, counted from 1, to the averages."""
        current = list(self._current.values())
        for rate, average in self.averages.items():
            torch._foreach_lerp_(list(average.values()), current, 1 - decay(rate, step, self.batch_size))

    def state(self) -> dict[str, Mapping[str, Tensor]]:
        """Return the averages by their names in checkpoints."""
        return {ema_name(rate): average for rate, average in self.averages.items()}

    def load(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore the averages of a checkpoint."""
        for rate, average in self.averages.items():
            for name, tensor in weights[ema_name(rate)].items():
                average[name].copy_(tensor)


def decay(rate: float, step: int, batch_size: int) -> float:
    """Return the decay d of an average at the `step`-th step, counted from 1, in [0, 1]."""
    if rate < 1:
        return min(rate, (1 + step) / (10 + step))
    return image_decay(rate, (step - 1) * batch_size, step * batch_size)


def image_decay(half_life: float, before: int, after: int) -> float:
    """Return the decay d of an average when training goes from `before` to `after` images, in [0, 1].

    With h the half-life, an average loses the share (ln 2 / h) du of itself over du images, so that d = 0.5^((after - before) / h).
    During the warm-up h is at most (ln 2 / 9) u = 0.077 u after u images: over a batch of B, d = 1 - B ln 2 / h = 1 - 9 B / u, which is
    (1 + n) / (10 + n) = 1 - 9 / (10 + n) at the step n = u / B once n is large. Integrated over the images of a step,

        d = exp(-int max(ln 2 / half_life, 9 / u) du) = (a / b)^9 0.5^((after - b) / half_life),

    where a and b are `before` and `after`, or the end 9 half_life / ln 2 of the warm-up where that comes first. Because these shares
    multiply, d over two steps of 16 images is d over one of 32.
    """
    end = WARM_UP * half_life / math.log(2)
    rise = min(before, end) / min(after, end)
    # The power itself, not its logarithm: it is 0 at the first step, which removes the initial weights.
    return float(rise**WARM_UP * 0.5 ** ((after - max(before, min(after, end))) / half_life))
