"""Brownian motion as a function of (seed, image index), on any grid of times, at a cost linear in the number of steps."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from amgen.core.randomness import Purpose, derive_seed, gaussian


@dataclass
class _Interval:
    """A piece of [0, 1], its number in the tree, and the motion over it.

    Attributes:
        first: where it begins.
        last: where it ends.
        node: 1 for the whole, 2 k and 2 k + 1 for the parts of k.
        increment: W(last) - W(first).
        area: integral of W - W(first) over the interval.
    """

    first: float
    last: float
    node: int
    increment: Tensor
    area: Tensor


class BrownianMotion:
    """W(t) and its integral for t in [0, 1], one path for each index.

    The motion over an interval of length h is split at a time of it by the law of what comes before, given the increment w and the area A =
    int (W - W(first)) over the whole, both Gaussian. With theta the share of the first part and q = 1 - 3 theta (1 - theta),

        increment: theta (3 theta - 2) w + 6 theta (1 - theta) A / h + sqrt(theta (1 - theta) q h) z,
        area:      theta^2 (theta - 1) w h + theta^2 (3 - 2 theta) A
                   + h^(3/2) [theta (1 - theta)]^(3/2) ((1/2 - theta) z / sqrt(q) + z' / sqrt(12 q)),

    z and z' standard normal, drawn for (seed, index, interval) in single precision and added up in double. At theta = 1/2 that is the
    construction of Foster, Lyons and Oberhauser (2020). An interval that holds several times of the grid is halved; one that holds a single
    time is split there. So every grid, however uneven, sees exactly a Brownian motion for about two splits a step. Grids of 2^k equal steps
    see the same path; others share it on the scale of their steps, which each refines in its own way. Nothing depends on the batch.

    Args:
        seed: seed of the sampling.
        indices: index of each image.
        shape: shape of one image.
        device: where the increments are wanted; they are drawn on the CPU, so that devices agree.
        dtype: their dtype.
    """

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

    def steps(self, times: Sequence[float]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield for each step from a time to the next W(end) - W(start) and the integral of W - W(start) over it, I_(1,0), (B, *shape).

        Raises:
            ValueError: if the times do not increase (they may repeat), or lie outside [0, 1].
        """
        if not (times[0] >= 0 and times[-1] <= 1 and all(first <= second for first, second in pairwise(times))):
            raise ValueError(f"times from {times[0]} to {times[-1]}: expected increasing ones in [0, 1]")
        nothing = torch.zeros(len(self.indices), *self.shape, dtype=torch.float64)
        increment, area, number = nothing, nothing, 1
        for piece in self._pieces(times):
            if piece.first >= times[0]:
                area = area + (piece.last - piece.first) * increment + piece.area
                increment = increment + piece.increment
            # More than once where times repeat: a step of no length.
            while number < len(times) and times[number] <= piece.last:
                yield self._outside(increment), self._outside(area)
                increment, area, number = nothing, nothing, number + 1
            if number == len(times):
                return

    def _pieces(self, times: Sequence[float]) -> Iterator[_Interval]:
        """Yield intervals from left to right that have no time in their interior."""
        waiting = [self._whole()]
        while waiting:
            interval = waiting.pop()
            low, high = bisect_right(times, interval.first), bisect_left(times, interval.last)
            middle = 0.5 * (interval.first + interval.last)
            if low >= high:
                yield interval
            elif times[low] == times[high - 1] or not interval.first < middle < interval.last:
                waiting += reversed(self._split(interval, times[low]))
            else:
                waiting += reversed(self._split(interval, middle))

    def _whole(self) -> _Interval:
        """Draw the motion over [0, 1]."""
        z, other = self._normals(0)
        return _Interval(0.0, 1.0, 1, z, 0.5 * z + other / math.sqrt(12))

    def _split(self, interval: _Interval, time: float) -> tuple[_Interval, _Interval]:
        """Draw the motion up to a time within an interval; what is left of it follows."""
        length = interval.last - interval.first
        before, after = time - interval.first, interval.last - time
        share, rest = before / length, after / length
        spread, quality = share * rest, 1 - 3 * share * rest
        z, other = self._normals(interval.node)
        increment = (
            share * (3 * share - 2) * interval.increment
            + (6 * spread / length) * interval.area
            + math.sqrt(spread * quality * length) * z
        )  # fmt: skip
        area = (
            (-share * spread * length) * interval.increment
            + (share**2 * (3 - 2 * share)) * interval.area
            + (length * spread) ** 1.5 / math.sqrt(quality) * ((0.5 - share) * z + other / math.sqrt(12))
        )
        return (
            _Interval(interval.first, time, 2 * interval.node, increment, area),
            _Interval(time, interval.last, 2 * interval.node + 1, interval.increment - increment, interval.area - area - after * increment),
        )

    def _normals(self, node: int) -> tuple[Tensor, Tensor]:
        """Draw the two standard normals of a node of the tree, float64; node 0 is the whole interval's."""
        seed = derive_seed(self.seed, Purpose.BROWNIAN, node % 2**63)
        first, second = gaussian(seed, Purpose.BROWNIAN, self.indices, (2, *self.shape)).double().unbind(dim=1)
        return first, second

    def _outside(self, values: Tensor) -> Tensor:
        """Return values where and in which precision they are wanted; some devices have no double one."""
        return values.to(self.dtype).to(self.device)
