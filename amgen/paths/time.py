"""Samplers of the times of a training batch.

A sampler maps positions in the global batch of a step to times and their density p(t). The times are a function of the seed and the
position, and for the adaptive sampler also of the losses so far. So they do not depend on how the batch is divided among processes and
passes.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from amgen.core.names import ADAPTIVE_TIMES_BINS, ADAPTIVE_TIMES_FLOOR, ADAPTIVE_TIMES_MEMORY, BATCH_SIZE
from amgen.core.randomness import Purpose, uniform


class TimeSampler(ABC):
    """A sampler of times in [0, 1).

    Attributes:
        adaptive: whether its density follows the losses: `learn` is then to be called after each step.
    """

    adaptive: bool = False

    @abstractmethod
    def sample(self, seed: int, step: int, positions: range, batch_size: int) -> tuple[Tensor, Tensor]:
        """Sample the times of some members of a global batch.

        Args:
            seed: seed of the run.
            step: number of the optimisation step.
            positions: positions in the global batch.
            batch_size: size of the global batch.

        Returns:
            Times and their density p(t), each of shape (len(positions),), float64.
        """

    def statistics(self, t: Tensor, values: Tensor) -> Tensor:
        """Return the statistics of losses `values` (B,) at times `t` (B,) that `learn` needs; those of parts of a batch are added."""
        raise TypeError(f"{type(self).__name__} is not adaptive")

    def learn(self, statistics: Tensor) -> None:
        """Update the density by the sum of the `statistics` over the global batch of a step."""
        raise TypeError(f"{type(self).__name__} is not adaptive")

    def state(self) -> list[list[float]]:
        """Return the state of the density, for a checkpoint."""
        return []

    def load(self, state: list[list[float]]) -> None:
        """Restore a state."""
        if state:
            raise TypeError(f"{type(self).__name__} is not adaptive")


class UniformTimes(TimeSampler):
    """Independent times, uniform on [0, 1).

    Example:
        >>> from amgen.paths import UniformTimes
        >>> t, density = UniformTimes().sample(seed=0, step=0, positions=range(4), batch_size=4)
        >>> t.shape, density.tolist()
        (torch.Size([4]), [1.0, 1.0, 1.0, 1.0])
    """

    def sample(self, seed: int, step: int, positions: range, batch_size: int) -> tuple[Tensor, Tensor]:
        """Sample one time for each position of the stream."""
        times = uniform(seed, Purpose.TIME, range(step * batch_size + positions.start, step * batch_size + positions.stop))
        return times, torch.ones_like(times)


class StratifiedTimes(TimeSampler):
    """One time from each of `batch_size` equal strata of [0, 1), all with the same offset: t_i = (i + offset) / batch_size.

    Each time is uniform on [0, 1), so p(t) = 1. The batch as a whole covers the interval evenly, which lowers the variance of the loss.

    Example:
        >>> from amgen.paths import StratifiedTimes
        >>> t, density = StratifiedTimes().sample(seed=0, step=0, positions=range(4), batch_size=4)
        >>> (t * 4).floor().tolist()
        [0.0, 1.0, 2.0, 3.0]
    """

    def sample(self, seed: int, step: int, positions: range, batch_size: int) -> tuple[Tensor, Tensor]:
        """Sample from the strata of the positions, with the offset of the step."""
        offset = uniform(seed, Purpose.TIME, [step])
        times = (torch.arange(positions.start, positions.stop, dtype=torch.float64) + offset) / batch_size
        return times, torch.ones_like(times)


class AdaptiveTimes(StratifiedTimes):
    """Stratified times whose density follows the running standard deviation of the loss (arXiv 2210.06662, appendix).

    The density is constant on each of `bins` equal bins,

        p_i = floor + (1 - floor) d_i / mean(d),

    with d_i the standard deviation of the loss, before its division by p, over the samples in bin i; older steps have a smaller weight. p
    is uniform until every bin has two samples. Losses are divided by p(t), so their expectation does not depend on p.

    Args:
        bins: number of bins.
        memory: decay, per step, of the running sums.
        floor: fraction of the density that is uniform, in (0, 1].

    Example:
        >>> import torch
        >>> from amgen.paths import AdaptiveTimes
        >>> times = AdaptiveTimes(bins=2)
        >>> t = torch.tensor([0.1, 0.2, 0.6, 0.7])
        >>> losses = torch.tensor([0.9, 1.1, 0.0, 2.0])  # ten times the deviation in the second bin
        >>> times.learn(times.statistics(t, losses))
        >>> times.density()
        tensor([0.1900, 1.8100], dtype=torch.float64)
    """

    adaptive = True

    def __init__(
        self,
        bins: int = ADAPTIVE_TIMES_BINS,
        memory: float = 0.5 ** (BATCH_SIZE / ADAPTIVE_TIMES_MEMORY),
        floor: float = ADAPTIVE_TIMES_FLOOR,
    ):
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

    def sample(self, seed: int, step: int, positions: range, batch_size: int) -> tuple[Tensor, Tensor]:
        """Map stratified uniform times by the inverse of the distribution function, which is piecewise linear."""
        uniforms, _ = super().sample(seed, step, positions, batch_size)
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
        """Add the sums of a step to the running sums."""
        self._sums = self.memory * self._sums + statistics.to(self._sums)

    def state(self) -> list[list[float]]:
        """Return the running sums."""
        return self._sums.tolist()

    def load(self, state: list[list[float]]) -> None:
        """Restore running sums."""
        self._sums = torch.tensor(state, dtype=torch.float64)
