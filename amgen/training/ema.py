"""Exponential moving averages of the weights, several rates at once."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from amgen.checkpoints import ema_name


class ExponentialAverages:
    """Averages a <- d a + (1 - d) w after each step, with d = min(rate, (1 + n) / (10 + n)) at the n-th step.

    The warm-up keeps early averages from being dominated by the initial weights. Every process updates its own copy, and because
    all have the same weights, all have the same averages.
    """

    def __init__(self, module: nn.Module, rates: Sequence[float]):
        self.rates = list(rates)
        self._current = module.state_dict()
        self.averages = {rate: {name: tensor.clone() for name, tensor in self._current.items()} for rate in self.rates}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps, counted from 1."""
        current = list(self._current.values())
        for rate, average in self.averages.items():
            decay = min(rate, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.values()), current, 1 - decay)

    def state(self) -> dict[str, Mapping[str, Tensor]]:
        """Return the averages under the names that checkpoints give them."""
        return {ema_name(rate): average for rate, average in self.averages.items()}

    def load(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over averages from a checkpoint."""
        for rate, average in self.averages.items():
            for name, tensor in weights[ema_name(rate)].items():
                average[name].copy_(tensor)
