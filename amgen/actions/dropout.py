"""Dropout with a mask for each sample.

A mask is a function of the sample's seed, the layer and the entry. So a sample has the same mask in every batch, pass and process. A layer
that is computed again has the same mask, without the state of a random generator.
"""

import torch
from torch import Tensor, nn

_FIRST, _SECOND, _STRIDE = 0x7FEB352D, 0x2C1B3C6D, 0x9E3779B1 - 2**32  # odd; products of int32 are taken modulo 2^32


class Dropout(nn.Module):
    """Dropout: in training, entries are zero with probability `rate`, and the others are scaled by 1 / (1 - rate).

    Args:
        rate: probability, in [0, 1).
        layer: number of the layer; each layer has its own masks.
    """

    def __init__(self, rate: float, layer: int = 0):
        super().__init__()
        self.rate = rate
        self.layer = layer
        self._threshold = round(rate * 2**32) - 2**31

    def forward(self, x: Tensor, dropout_seeds: Tensor | None) -> Tensor:
        """Return `x` (B, ...) with dropout.

        Args:
            x: features.
            dropout_seeds: seeds of the masks, int32 (B, 2), from `amgen.core.randomness.dropout_seeds`; needed in training.

        Raises:
            ValueError: if seeds are missing in training.
        """
        if not self.training or self.rate == 0:
            return x
        if dropout_seeds is None:
            raise ValueError("dropout in training needs a seed for each sample: amgen.core.randomness.dropout_seeds")
        return torch.where(self._kept(x, dropout_seeds), x / (1 - self.rate), 0.0)

    def _kept(self, x: Tensor, dropout_seeds: Tensor) -> Tensor:
        """Return which entries are kept, bool, shaped like `x`, from a 32-bit hash of (seed, layer, entry)."""
        entries = torch.arange(x[0].numel(), dtype=torch.int32, device=x.device)
        places = _mix(_mix(entries * _STRIDE) + (self.layer + 1) * 0x3504F333 % 2**31)
        draws = _mix((places ^ dropout_seeds[:, :1]) * _FIRST + dropout_seeds[:, 1:])
        return (draws >= self._threshold).view(x.shape)

    def extra_repr(self) -> str:
        """Return the options for `print`."""
        return f"rate={self.rate}, layer={self.layer}"


def _mix(x: Tensor) -> Tensor:
    """Return a bijective hash of 32-bit numbers."""
    x = (x ^ ((x >> 16) & 0xFFFF)) * _SECOND
    return x ^ ((x >> 15) & 0x1FFFF)
