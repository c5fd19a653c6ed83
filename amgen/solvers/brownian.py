"""Brownian motion as a function of the seed and the index of the sample, on any grid of times, at a cost linear in the steps."""

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
    """An interval in [0, 1], its node in the binary tree, and the motion over it.

    Attributes:
        first: its start.
        last: its end.
        node: 1 for [0, 1]; 2 k and 2 k + 1 for the two parts of node k.
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

    An interval of length h with increment w and area A = int (W - W(first)) dt is split at a time inside it. Given w and A, the increment
    and the area of the first part are Gaussian. With theta the length of the first part over h, and q = 1 - 3 theta (1 - theta),

        increment: theta (3 theta - 2) w + 6 theta (1 - theta) A / h + sqrt(theta (1 - theta) q h) z,
        area:      theta^2 (theta - 1) w h + theta^2 (3 - 2 theta) A
                   + h^(3/2) [theta (1 - theta)]^(3/2) ((1/2 - theta) z / sqrt(q) + z' / sqrt(12 q)),

    with standard normal z and z', which are a function of the seed, the index and the interval. They are sampled in single precision and
    added in double precision. At theta = 1/2 this is the construction of Foster, Lyons and Oberhauser (SIAM J. Numer. Anal. 58, 2020). An
    interval with several times of the grid inside is halved, and one with a single time is split there. So the law is exact on every grid,
    for about two splits per step. Grids of 2^k equal steps see the same path. Other grids share the path up to the scale of their steps.
    Nothing depends on the batch.

    Args:
        seed: seed of the sampling.
        indices: index of each sample.
        shape: shape of one sample.
        device: device of the increments; they are sampled on the CPU, so that all devices agree.
        dtype: dtype of the increments.

    Example:
        >>> import torch
        >>> from amgen.solvers import BrownianMotion
        >>> motion = BrownianMotion(seed=0, indices=range(4), shape=(2,))
        >>> increments, areas = zip(*motion.steps([0.0, 0.5, 1.0]))
        >>> len(increments), increments[0].shape
        (2, torch.Size([4, 2]))
        >>> alone = BrownianMotion(seed=0, indices=[3], shape=(2,))
        >>> torch.equal(next(alone.steps([0.0, 0.5, 1.0]))[0][0], increments[0][3])
        True
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
        """Yield for each step from a time to the next W(end) - W(start) and the integral of W - W(start), both (B, *shape).

        Raises:
            ValueError: if the times decrease (equal times are allowed) or lie outside [0, 1].
        """
        if not (times[0] >= 0 and times[-1] <= 1 and all(first <= second for first, second in pairwise(times))):
            raise ValueError(f"times from {times[0]} to {times[-1]}: expected increasing ones in [0, 1]")
        nothing = torch.zeros(len(self.indices), *self.shape, dtype=torch.float64)
        increment, area, number = nothing, nothing, 1
        for piece in self._pieces(times):
            if piece.first >= times[0]:
                area = area + (piece.last - piece.first) * increment + piece.area
                increment = increment + piece.increment
            # More than once if times are equal: a step of length zero.
            while number < len(times) and times[number] <= piece.last:
                yield self._outside(increment), self._outside(area)
                increment, area, number = nothing, nothing, number + 1
            if number == len(times):
                return

    def _pieces(self, times: Sequence[float]) -> Iterator[_Interval]:
        """Yield intervals without a time in their interior, from left to right."""
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
        """Sample the motion over [0, 1]."""
        z, other = self._normals(0)
        return _Interval(0.0, 1.0, 1, z, 0.5 * z + other / math.sqrt(12))

    def _split(self, interval: _Interval, time: float) -> tuple[_Interval, _Interval]:
        """Sample the motion up to a time inside an interval; that of the rest follows."""
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
        """Sample the two standard normals of a node of the tree, float64; node 0 is for the whole interval."""
        seed = derive_seed(self.seed, Purpose.BROWNIAN, node % 2**63)
        first, second = gaussian(seed, Purpose.BROWNIAN, self.indices, (2, *self.shape)).double().unbind(dim=1)
        return first, second

    def _outside(self, values: Tensor) -> Tensor:
        """Return values in the dtype and on the device of the result; not all devices have float64."""
        return values.to(self.dtype).to(self.device)
