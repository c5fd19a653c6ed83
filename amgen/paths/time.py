"""Samplers of the times of a training batch.

A sampler maps positions in the global batch of a step to times and their density p(t). The times are a function of the seed and the
position, and for the adaptive sampler also of the losses so far. So they do not depend on how the batch is divided among processes and
passes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from amgen.core.checks import quadrature_problem
from amgen.core.errors import UserError
from amgen.core.names import (
    ADAPTIVE_TIMES_BINS,
    ADAPTIVE_TIMES_FLOOR,
    ADAPTIVE_TIMES_MEMORY,
    BATCH_SIZE,
    QUADRATURE_NODES,
    QUADRATURE_RULE,
    QuadratureRule,
)
from amgen.core.randomness import Purpose, uniform


class TimeSampler(ABC):
    """A sampler of times in [0, 1).

    Attributes:
        adaptive: whether its density follows the losses: `learn` is then to be called after each step.
        group: number of consecutive items of the training stream that share one pair of noise and data, at different times.
    """

    adaptive: bool = False
    group: int = 1

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


GOLDEN = 0x9E3779B97F4A7C15
"""The golden ratio's fraction in units of 2^-64. Its multiples modulo 1 fill [0, 1) evenly."""


class QuadratureTimes(TimeSampler):
    """The nodes of a quadrature rule in t, the same pair of noise and data at all of them.

    In marginal form the boundary terms of a pair are the integral of d/dt [w s_t(x_t)] along its path. With one time for each
    pair, that integral and the derivatives in t differ by noise. At the nodes of a rule for the same pair they cancel, up to the error of
    the rule. So n consecutive items share a pair. Item i of them has the time t_i and the density p_i = 1 / (n w_i), with w_i the weight of
    the rule: the mean of f(t_i) / p_i is the rule for the integral of f.

    The rule is composite: it is applied to each interval between two `breaks`, where paths may have kinks. On an interval of length h it is

    - `antithetic`: cells of equal length; two nodes in each, at the same distance from its centre. The distance is uniform and is drawn
      anew for each cell of each pair. Exact if f is linear in each cell, and unbiased for every f (Hammersley and Morton, 1956);
    - `gauss`: the Gauss-Legendre nodes. Exact for polynomials of degree 2 nodes - 1; the error falls as h^(2 nodes);
    - `simpson`: an odd number of equidistant nodes, with both ends. Exact for polynomials of degree 3; the error falls as h^4.

    The nodes of `gauss` and `simpson` are fixed, so their errors do not average out, and the action is never trained between the nodes. An
    action that varies fast in t can lower the loss without bound there: its derivative in t at the nodes is not tied to its change
    between them.

    Args:
        rule: name of the rule.
        nodes: nodes in each interval: even for `antithetic`, odd and at least 3 for `simpson`.
        breaks: ends of the intervals, increasing from 0 to 1.

    Raises:
        UserError: if the rule cannot have so many nodes.

    Example:
        >>> from amgen.paths import QuadratureTimes
        >>> times = QuadratureTimes("gauss", nodes=2, breaks=[0, 0.5, 1])
        >>> t, density = times.sample(seed=0, step=0, positions=range(4), batch_size=4)
        >>> [round(time, 3) for time in t.tolist()], density.tolist()
        ([0.106, 0.394, 0.606, 0.894], [1.0, 1.0, 1.0, 1.0])
        >>> times.group  # consecutive items that share a pair
        4
        >>> round(float((t**3 / density).mean()), 12)  # exact: the integral of t^3 is 1/4
        0.25
    """

    def __init__(self, rule: QuadratureRule = QUADRATURE_RULE, nodes: int = QUADRATURE_NODES, breaks: Sequence[float] = (0.0, 1.0)):
        if problem := quadrature_problem(rule, nodes):
            raise UserError(problem)
        ends = np.asarray(breaks, dtype=np.float64)
        if len(ends) < 2 or ends[0] != 0 or ends[-1] != 1 or not (np.diff(ends) > 0).all():
            raise ValueError(f"breaks {list(breaks)}: expected increasing numbers from 0 to 1")
        self.rule = rule
        self.nodes = nodes
        self.group = nodes * (len(ends) - 1)
        starts, lengths = ends[:-1, None], np.diff(ends)[:, None]
        places, weights = _rule(rule, nodes)
        self._places = (starts + lengths * places).ravel()
        self._weights = (lengths * weights).ravel()
        # Half the length of a cell, with the sign of the node: where it lies is drawn for each pair.
        self._spread = (lengths * np.resize([-1.0, 1.0], nodes) / nodes).ravel() if rule == "antithetic" else None

    def sample(self, seed: int, step: int, positions: range, batch_size: int) -> tuple[Tensor, Tensor]:
        """Return the nodes of the positions: a function of the seed and of the item's index step batch_size + position."""
        items = step * batch_size + np.arange(positions.start, positions.stop, dtype=np.int64)
        node = items % self.group
        times = self._places[node]
        if self._spread is not None:
            cells = (items // 2).astype(np.uint64)  # groups are even, so a cell never spans two pairs
            shares = (cells * np.uint64(GOLDEN) >> np.uint64(11)) * 2.0**-53 + float(uniform(seed, Purpose.TIME, [0]))
            times = np.minimum(times + self._spread[node] * (shares % 1.0), np.nextafter(1.0, 0.0))
        return torch.from_numpy(times), torch.from_numpy(1 / (self.group * self._weights[node]))


def _rule(rule: QuadratureRule, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return places and weights of the nodes on [0, 1], each (nodes,); for `antithetic` the centres of their cells."""
    if rule == "gauss":
        places, weights = np.polynomial.legendre.leggauss(nodes)
        return (places + 1) / 2, weights / 2
    if rule == "simpson":
        weights = np.resize([2.0, 4.0], nodes)
        weights[[0, -1]] = 1
        return np.linspace(0, 1, nodes), weights / (3 * (nodes - 1))
    return (np.repeat(np.arange(nodes // 2), 2) + 0.5) / (nodes // 2), np.full(nodes, 1 / nodes)


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
