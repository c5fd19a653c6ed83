"""Brownian motion as a function of (seed, image index, time), whatever grid it is looked at on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from amgen.randomness import Purpose, derive_seed, gaussian


@dataclass
class _Interval:
    """A dyadic interval of [0, 1], in units of the finest one, with W at its ends and its number in the tree."""

    first: int
    last: int
    w_first: Tensor
    w_last: Tensor
    node: int


class BrownianMotion:
    """W(t) for t in [0, 1], one path for each index, by Lévy's construction.

    W(1) is drawn first; the middle of each dyadic interval is its ends' mean plus a normal of a quarter of its length in variance, drawn
    for (seed, index, interval). So W(t) depends on neither the step grid, its direction nor the batch, and a finer grid refines the same
    path. Times are rounded to multiples of 2^-DEPTH. The intervals around the last time are kept, which makes neighbouring times cheap.

    Args:
        seed: seed of the sampling.
        indices: index of each image.
        shape: shape of one image.
        device: where W is wanted; it is drawn on the CPU, so that devices agree.
        dtype: its dtype.
    """

    DEPTH = 16

    def __init__(
        self,
        seed: int,
        indices: Sequence[int],
        shape: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.seed = seed
        self.indices = indices
        self.shape = shape
        self.device = torch.device(device)
        self.dtype = dtype
        end = self._normal(0)
        self._intervals = [_Interval(0, 2**self.DEPTH, torch.zeros_like(end), end, 1)]

    def increment(self, start: float, end: float) -> Tensor:
        """Return W(end) - W(start), (B, *shape)."""
        before = self(start)
        return self(end) - before

    def __call__(self, t: float) -> Tensor:
        """Return W(t), (B, *shape)."""
        place = round(t * 2**self.DEPTH)
        if not 0 <= place <= 2**self.DEPTH:
            raise ValueError(f"t={t} lies outside [0, 1]")
        while not self._intervals[-1].first <= place <= self._intervals[-1].last:
            self._intervals.pop()
        while True:
            interval = self._intervals[-1]
            if place == interval.first:
                return interval.w_first
            if place == interval.last:
                return interval.w_last
            self._intervals.append(self._half(interval, place))

    def _half(self, interval: _Interval, place: int) -> _Interval:
        """Draw W in the middle of an interval, and return the half that holds `place`."""
        middle = (interval.first + interval.last) // 2
        length = (interval.last - interval.first) / 2**self.DEPTH
        w_middle = 0.5 * (interval.w_first + interval.w_last) + 0.5 * math.sqrt(length) * self._normal(interval.node)
        if place <= middle:
            return _Interval(interval.first, middle, interval.w_first, w_middle, 2 * interval.node)
        return _Interval(middle, interval.last, w_middle, interval.w_last, 2 * interval.node + 1)

    def _normal(self, node: int) -> Tensor:
        """Draw the standard normal of a node of the tree; node 0 is W(1)."""
        draw = gaussian(derive_seed(self.seed, Purpose.BROWNIAN, node), Purpose.BROWNIAN, self.indices, self.shape)
        return draw.to(self.device, self.dtype)
