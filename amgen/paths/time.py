"""How the times of a training batch are drawn.

A sampler turns places in the global batch of a step into times and their density p(t). Times are a function of (seed, place), and for the
adaptive sampler of what it has seen, so that they do not depend on how the batch is divided among processes and passes.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from amgen.core.randomness import Purpose, uniform


class TimeSampler(ABC):
    """Draws times in [0, 1).

    Attributes:
        adaptive: whether it wants to learn from the loss of each step.
    """

    adaptive: bool = False

    @abstractmethod
    def draw(self, seed: int, step: int, positions: range, batch_size: int) -> tuple[Tensor, Tensor]:
        """Draw the times of some members of a global batch.

        Args:
            seed: seed of the run.
            step: number of the optimisation step.
            positions: places in the global batch to draw for.
            batch_size: size of the global batch.

        Returns:
            Times and their density p(t), each of shape (len(positions),), float64.
        """

    def statistics(self, t: Tensor, values: Tensor) -> Tensor:
        """Sum up what there is to learn from the loss `values` (B,) at times `t` (B,); sums of parts of a batch are added together."""
        raise TypeError(f"{type(self).__name__} does not learn")

    def learn(self, statistics: Tensor) -> None:
        """Take in the sum of `statistics` over the global batch of a step."""
        raise TypeError(f"{type(self).__name__} does not learn")

    def state(self) -> list[list[float]]:
        """Return what has been learned, for a checkpoint."""
        return []

    def load(self, state: list[list[float]]) -> None:
        """Take over what had been learned."""
        if state:
            raise TypeError(f"{type(self).__name__} does not learn")


class UniformTimes(TimeSampler):
    """Times uniform on [0, 1), independent of each other."""

    def draw(self, seed: int, step: int, positions: range, batch_size: int) -> tuple[Tensor, Tensor]:
        """Draw one time for each place of the stream."""
        times = uniform(seed, Purpose.TIME, range(step * batch_size + positions.start, step * batch_size + positions.stop))
        return times, torch.ones_like(times)


class StratifiedTimes(TimeSampler):
    """One time from each of `batch_size` equal strata of [0, 1), all with the same offset: t_i = (i + offset) / batch_size.

    Each time is uniform on [0, 1), so p(t) = 1, while the batch as a whole covers the interval evenly, which lowers the variance of the
    loss.
    """

    def draw(self, seed: int, step: int, positions: range, batch_size: int) -> tuple[Tensor, Tensor]:
        """Draw from the strata of the places, with the offset of the step."""
        offset = uniform(seed, Purpose.TIME, [step])
        times = (torch.arange(positions.start, positions.stop, dtype=torch.float64) + offset) / batch_size
        return times, torch.ones_like(times)


class AdaptiveTimes(StratifiedTimes):
    """Stratified times whose density follows the running standard deviation of the loss (arXiv 2210.06662, appendix).

    p(t) is constant on each of `bins` equal bins: a share `floor` uniform, the rest in proportion to the standard deviation of the time
    integrand over the samples seen in the bin, older steps counting less. Uniform until every bin has seen two samples. Losses divide by
    p(t), so their expectation stays what it is.

    Args:
        bins: number of bins.
        memory: decay, per step, of the sums that the deviation is made of.
        floor: share of the density that stays uniform, in (0, 1].
    """

    adaptive = True

    def __init__(self, bins: int = 32, memory: float = 0.99, floor: float = 0.01):
        self.bins = bins
        self.memory = memory
        self.floor = floor
        self._sums = torch.zeros(3, bins, dtype=torch.float64)  # counts, values, squares

    def density(self) -> Tensor:
        """Return p on each bin, shape (bins,), with mean 1."""
        count, total, squares = self._sums
        if (count < 2 * self.memory).any():
            return torch.ones_like(count)
        deviation = (squares / count - (total / count).square()).clamp(min=0).sqrt()
        if not deviation.sum() > 0:
            return torch.ones_like(count)
        return self.floor + (1 - self.floor) * deviation / deviation.mean()

    def draw(self, seed: int, step: int, positions: range, batch_size: int) -> tuple[Tensor, Tensor]:
        """Map stratified uniform times through the inverse of the distribution function, piecewise linear."""
        uniforms, _ = super().draw(seed, step, positions, batch_size)
        density = self.density()
        ends = (density / self.bins).cumsum(0)
        ends = ends / ends[-1]
        which = torch.searchsorted(ends, uniforms, right=True).clamp(max=self.bins - 1)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        inside = (uniforms - starts[which]) / (ends - starts)[which]
        return (which + inside) / self.bins, density[which]

    def statistics(self, t: Tensor, values: Tensor) -> Tensor:
        """Return counts, sums and sums of squares for each bin, shape (3, bins), float64."""
        values = values.double()
        which = (t.double() * self.bins).long().clamp(0, self.bins - 1)
        rows = torch.stack([torch.ones_like(values), values, values.square()])
        return rows.new_zeros(3, self.bins).index_add_(1, which, rows)

    def learn(self, statistics: Tensor) -> None:
        """Add a step's sums to the fading ones."""
        self._sums = self.memory * self._sums + statistics.to(self._sums)

    def state(self) -> list[list[float]]:
        """Return the sums."""
        return self._sums.tolist()

    def load(self, state: list[list[float]]) -> None:
        """Take over sums."""
        self._sums = torch.tensor(state, dtype=torch.float64)
