"""Dropout whose masks belong to the samples.

A mask is a function of the sample's key, the layer and the entry. A sample therefore loses the same features whatever batch, pass or
process it is part of, and computing a layer again repeats its mask without any state of a generator to restore.
"""

import torch
from torch import Tensor, nn

_FIRST, _SECOND, _STRIDE = 0x7FEB352D, 0x2C1B3C6D, 0x9E3779B1 - 2**32  # odd; products of int32 are taken modulo 2^32


class Dropout(nn.Module):
    """Set entries to zero with probability `rate` while training, and scale the others by 1 / (1 - rate).

    Args:
        rate: probability, in [0, 1).
        layer: number of the layer; others have other masks.
    """

    def __init__(self, rate: float, layer: int = 0):
        super().__init__()
        self.rate = rate
        self.layer = layer
        self._threshold = round(rate * 2**32) - 2**31

    def forward(self, x: Tensor, dropout_seeds: Tensor | None) -> Tensor:
        """Drop entries of `x` (B, ...) by `keys`, int32 (B, 2), of `amgen.randomness.keys`; None where nothing is to be dropped.

        Raises:
            ValueError: if keys are missing.
        """
        if not self.training or self.rate == 0:
            return x
        if dropout_seeds is None:
            raise ValueError("dropout needs a key for each sample (amgen.randomness.keys), or eval() where nothing is to be dropped")
        return torch.where(self._kept(x, dropout_seeds), x / (1 - self.rate), 0.0)

    def _kept(self, x: Tensor, dropout_seeds: Tensor) -> Tensor:
        """Return which entries stay, bool, shaped like `x`: hash (key, layer, entry) to 32 bits and compare."""
        entries = torch.arange(x[0].numel(), dtype=torch.int32, device=x.device)
        places = _mix(_mix(entries * _STRIDE) + (self.layer + 1) * 0x3504F333 % 2**31)
        draws = _mix((places ^ dropout_seeds[:, :1]) * _FIRST + dropout_seeds[:, 1:])
        return (draws >= self._threshold).view(x.shape)

    def extra_repr(self) -> str:
        """Say the rate when printed."""
        return f"rate={self.rate}, layer={self.layer}"


def _mix(x: Tensor) -> Tensor:
    """Scramble 32-bit numbers, one to one."""
    x = (x ^ ((x >> 16) & 0xFFFF)) * _SECOND
    return x ^ ((x >> 15) & 0x1FFFF)
