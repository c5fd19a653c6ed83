"""Pairs of points of neighbouring snapshots, sampled from plans of unbalanced optimal transport over whole snapshots.

Item n of the stream has one pair for each interval between two times. A pair (i, j) with the masses m_0 at its start and m_1 at its end is
sampled in proportion to (m_0 + m_1) / 2, and its masses are divided by that probability. So the mean of m_0 f(x_i) over items is the sum of
the masses of the first snapshot times f, that of m_1 f(x_j) is the sum over the second one, and pairs that die or are born are sampled too.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from amgen.core.errors import UserError
from amgen.core.randomness import Purpose, derive_seed, gaussian, permutation, uniform
from amgen.data.snapshots import SnapshotDataset
from amgen.data.stream import Batch, TrainingStream
from amgen.transport import Plan, cached_plan, plan_key, wfr_plan

FOLDER = "~/.cache/amgen/plans"
"""Where plans are kept, by a hash of the points, the masses and the settings of the solver."""

SCALE_POINTS = 1000
"""Most points of a time from which the scale of growth is measured."""

SCALE_QUANTILE = 0.95
"""Quantile of the transport distances that is the scale of growth."""

LEAST_TRANSPORTED = 0.01
"""Share of the mass below which a plan counts as one that transports nothing."""


class PairStream(TrainingStream):
    """A stream of pairs of points and masses, (B, 2 K, D + 1): rows 2 k and 2 k + 1 are the ends of the pair of interval k.

    Each interval has epochs of its own, as long as the larger of its two snapshots. In an epoch the pairs are a systematic sample of the
    plan in a shuffled order: a pair that has the share p of the probability occurs p times the length of the epoch, rounded up or down.

    Args:
        dataset: points at several times.
        seed: seed of the stream.
        plans: a plan for each two neighbouring times, from `neighbour_plans`.
    """

    dataset: SnapshotDataset

    def __init__(self, dataset: SnapshotDataset, seed: int, plans: Sequence[Plan]):
        self.dataset = dataset
        self.seed = seed
        self.plans = plans
        self._intervals = [_Interval(plan, *ends) for plan, ends in zip(plans, pairwise(dataset.tables), strict=True)]
        self._order = lru_cache(maxsize=2 * len(plans))(self._shuffled)

    def __getstate__(self) -> dict[str, object]:
        return {"dataset": self.dataset, "seed": self.seed, "plans": self.plans}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the items `indices` of the stream as one batch."""
        pairs = torch.cat([interval.pairs(self._places(k, indices)) for k, interval in enumerate(self._intervals)], dim=1)
        noise = gaussian(self.seed, Purpose.NOISE, indices, (pairs.shape[2] - 1,))
        return Batch(indices, pairs, noise, torch.zeros(len(indices), dtype=torch.int64), skipped=[False] * len(indices))

    def _places(self, interval: int, indices: Sequence[int]) -> Tensor:
        """Return where in the distribution function of an interval's plan the items lie, in [0, 1), float64 (B,)."""
        index, count = torch.as_tensor(indices), self._intervals[interval].count
        epochs = index // count
        places = torch.empty(len(index), dtype=torch.float64)
        for epoch in epochs.unique().tolist():
            here = epochs == epoch
            places[here] = self._order(interval, epoch)[index[here] % count]
        return places

    def _shuffled(self, interval: int, epoch: int) -> Tensor:
        """Return the places of one epoch: equidistant, with a random offset, in a random order."""
        seed, count = derive_seed(self.seed, Purpose.PAIR, interval), self._intervals[interval].count
        return (permutation(seed, Purpose.SHUFFLE, epoch, count) + uniform(seed, Purpose.PAIR, [epoch])) / count


class _Interval:
    """The pairs of one plan with their probabilities.

    Args:
        plan: the plan.
        first: points at the start, each with its mass as the last entry, (N, D + 1).
        last: points at the end, (M, D + 1).
    """

    def __init__(self, plan: Plan, first: Tensor, last: Tensor):
        self.count = max(len(first), len(last))
        weight = plan.start_mass + plan.end_mass
        probability = weight / weight.sum()
        self._distribution = probability.cumsum(dim=0)
        born, dead = (plan.rows < 0)[:, None], (plan.columns < 0)[:, None]
        start, end = first[plan.rows.clamp(min=0), :-1], last[plan.columns.clamp(min=0), :-1]
        # Mass that dies or is born stays where it is.
        start, end = torch.where(born, end, start), torch.where(dead, start, end)
        masses = torch.stack([plan.start_mass, plan.end_mass], dim=1) / probability[:, None]
        self._pairs = torch.cat([torch.stack([start, end], dim=1), masses[..., None].float()], dim=2)

    def pairs(self, places: Tensor) -> Tensor:
        """Return the pairs at places of the distribution function, (B, 2, D + 1)."""
        found = torch.searchsorted(self._distribution, places, right=True)
        return self._pairs[found.clamp(max=len(self._distribution) - 1)]


def neighbour_plans(dataset: SnapshotDataset, delta: float, group: int, say: Callable[[str], None] | None = None) -> list[Plan]:
    """Return a plan of transport for each two neighbouring times, from a file where it has been solved before.

    Args:
        dataset: points at several times.
        delta: length scale of growth in standardized coordinates; infinite for balanced transport.
        group: most points of a time that are solved together.
        say: takes a line about each plan.

    Raises:
        UserError: if nearly nothing is transported.
    """
    plans = []
    for (time, after), (first, last) in zip(pairwise(dataset.source.times), pairwise(dataset.tables), strict=True):
        ends = [(table[:, :-1].double(), table[:, -1].double() / len(table)) for table in (first, last)]
        (x, a), (y, b) = ends
        plan = _solved(plan_key(x, y, a, b, delta, group), partial(wfr_plan, x, y, a, b, delta, group))
        if say is not None:
            say(f"plan from {time:g} to {after:g}: {plan.summary()}")
        moved = float(plan.start_mass[plan.transported].sum() / plan.start_mass.sum())
        if moved < LEAST_TRANSPORTED:
            raise UserError(
                f"dynamics.delta={delta:g}: {moved:.1%} of the mass at time {time:g} has points within pi delta at time {after:g}, and the "
                "rest dies: choose a larger delta (in standardized coordinates), or auto"
            )
        plans.append(plan)
    return plans


def _solved(key: str, solve: Callable[[], Plan]) -> Plan:
    """Return a plan from the cache; where no cache can be written, solve it."""
    try:
        return cached_plan(Path(FOLDER).expanduser(), key, solve)
    except (UserError, RuntimeError, OSError):  # no home folder, or a full disk
        return solve()


def growth_scale(dataset: SnapshotDataset) -> float:
    """Return a length scale of growth for a population, delta in standardized coordinates, rounded to 3 digits.

    It is the 95 % quantile of the distances of balanced optimal transport between neighbouring times, the largest of all intervals; at most
    1,000 points of each time are used. So most of what moves today's neighbours apart is well within the reach pi delta of transport, and
    growth is used where transport would have to come from far.

    Raises:
        UserError: if nothing moves.
    """
    largest = 0.0
    for number, (first, last) in enumerate(pairwise(dataset.tables)):
        x, y = (_subset(table, 2 * number + side) for side, table in enumerate((first, last)))
        plan = wfr_plan(x[:, :-1].double(), y[:, :-1].double(), x[:, -1].double(), y[:, -1].double(), math.inf)
        distance = (x[plan.rows, :-1] - y[plan.columns, :-1]).norm(dim=1).double()
        order = distance.argsort()
        share = plan.start_mass[order].cumsum(dim=0) / plan.start_mass.sum()
        place = int(torch.searchsorted(share, torch.tensor(SCALE_QUANTILE, dtype=share.dtype)).clamp(max=len(order) - 1))
        largest = max(largest, float(distance[order[place]]))
    if largest == 0:
        raise UserError("dynamics.delta=auto: the points of all times are the same: set a number")
    return float(f"{largest:.3g}")


def _subset(table: Tensor, number: int) -> Tensor:
    """Return at most `SCALE_POINTS` rows, always the same ones."""
    return table if len(table) <= SCALE_POINTS else table[permutation(0, Purpose.PAIR, number, len(table))[:SCALE_POINTS]]
