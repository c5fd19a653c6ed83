"""Brownian motion as a function of (seed, image index, time), whatever grid it is looked at on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from amgen.randomness import Purpose, derive_seed, gaussian


@dataclass
class _Point:
    """W and its integral A = int_0^t W at a time, in units of the finest interval."""

    place: int
    w: Tensor
    integral: Tensor


@dataclass
class _Interval:
    """A dyadic interval of [0, 1] and its number in the tree."""

    first: _Point
    last: _Point
    node: int


class BrownianMotion:
    """W(t) and its integral for t in [0, 1], one path for each index, by Lévy's construction extended to the area (Foster, Lyons and
    Oberhauser 2020).

    Over an interval of length h, with dW its increment, let H = (1/h) int (W_r - W_a) dr - dW/2, which is N(0, h/12) and independent of
    dW. Given both, the middle is W_m - W_a = dW/2 + 3/2 H + Z, and the first half has H/4 - Z/2 + N/2, with Z ~ N(0, h/16) and N ~ N(0,
    h/12) drawn for (seed, index, interval). So the path depends on neither the step grid, its direction nor the batch, and a finer grid
    refines the same path. Times are rounded to multiples of 2^-DEPTH. The intervals around the last time are kept, which makes
    neighbouring times cheap.

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
        w, h = self._normals(0)
        zero = torch.zeros_like(w)
        start, end = _Point(0, zero, zero), _Point(2**self.DEPTH, w, 0.5 * w + h / math.sqrt(12))
        self._intervals = [_Interval(start, end, 1)]

    def increment(self, start: float, end: float) -> Tensor:
        """Return W(end) - W(start), (B, *shape)."""
        before = self._point(start).w
        return self._point(end).w - before

    def increment_and_area(self, start: float, end: float) -> tuple[Tensor, Tensor]:
        """Return W(end) - W(start) and the integral of W - W(start) over the step, I_(1,0), both (B, *shape)."""
        before, after = self._point(start), self._point(end)
        length = (after.place - before.place) / 2**self.DEPTH
        return after.w - before.w, after.integral - before.integral - length * before.w

    def __call__(self, t: float) -> Tensor:
        """Return W(t), (B, *shape)."""
        return self._point(t).w

    def _point(self, t: float) -> _Point:
        place = round(t * 2**self.DEPTH)
        if not 0 <= place <= 2**self.DEPTH:
            raise ValueError(f"t={t} lies outside [0, 1]")
        while not self._intervals[-1].first.place <= place <= self._intervals[-1].last.place:
            self._intervals.pop()
        while True:
            interval = self._intervals[-1]
            if place == interval.first.place:
                return interval.first
            if place == interval.last.place:
                return interval.last
            self._intervals.append(self._half(interval, place))

    def _half(self, interval: _Interval, place: int) -> _Interval:
        """Draw the middle of an interval, and return the half that holds `place`."""
        first, last = interval.first, interval.last
        length = (last.place - first.place) / 2**self.DEPTH
        whole = last.w - first.w
        area = (last.integral - first.integral) / length - first.w - 0.5 * whole
        z, n = self._normals(interval.node)
        z, n = z * math.sqrt(length / 16), n * math.sqrt(length / 12)
        half = 0.5 * whole + 1.5 * area + z
        half_area = 0.25 * area - 0.5 * z + 0.5 * n
        integral = first.integral + 0.5 * length * (first.w + 0.5 * half + half_area)
        middle = _Point((first.place + last.place) // 2, first.w + half, integral)
        if place <= middle.place:
            return _Interval(first, middle, 2 * interval.node)
        return _Interval(middle, last, 2 * interval.node + 1)

    def _normals(self, node: int) -> tuple[Tensor, Tensor]:
        """Draw the two standard normals of a node of the tree; node 0 is the whole interval's."""
        seed = derive_seed(self.seed, Purpose.BROWNIAN, node)
        draw = gaussian(seed, Purpose.BROWNIAN, self.indices, (2, *self.shape)).to(self.device, self.dtype)
        return draw[:, 0], draw[:, 1]
