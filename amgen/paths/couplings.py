"""Which noise is joined with which image, and which point of a population with which point of the next time.

A coupling is a joint distribution of (x_0, x_1) with the given marginals. Any will do for Action Matching; one whose paths cross less has
a smoother velocity, which is learned sooner and followed in fewer steps.
"""

from abc import ABC, abstractmethod

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from amgen.paths.base import wrap


class Coupling(ABC):
    """Decides which noise goes with which data."""

    group: int
    """Consecutive members of the training stream that are coupled among themselves; 1 when each stands alone."""

    @abstractmethod
    def assign(self, noise: Tensor, data: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the order in which to take the noise.

        Args:
            noise: x_0, (B, ...), B a multiple of `group`.
            data: x_1, same shape.
            labels: classes, (B,), where they condition the action. Noise then stays within the class of its image: exchanged
                between classes it would no longer be standard normal given the class, which is where sampling starts.

        Returns:
            A permutation, int64 (B,): `noise[order[i]]` goes with `data[i]`.
        """

    def link(self, chains: Tensor) -> Tensor:
        """Return chains (B, K + 1, D + 1), B a multiple of `group`, joined anew: each point to one of the next time, masses with theirs."""
        linked = [chains[:, 0]]
        for points in chains.unbind(dim=1)[1:]:
            linked.append(points[self.assign(points[:, :-1], linked[-1][:, :-1])])
        return torch.stack(linked, dim=1)


class IndependentCoupling(Coupling):
    """Noise and data are independent, as they were drawn."""

    group = 1

    def assign(self, noise: Tensor, data: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the order unchanged."""
        return torch.arange(len(noise))


class OptimalTransportCoupling(Coupling):
    """Exact optimal transport (squared Euclidean cost) within groups of fixed size (Tong et al., arXiv 2302.00482).

    An assignment rather than draws from the plan: every image of a batch is used once. Groups have a size of their own, so that the
    pairing need not depend on the batch size, the number of processes or accumulation.

    Args:
        group: members of a group.
        period: of every entry, for points on a torus, where distances are measured the shorter way round; None for none.
    """

    def __init__(self, group: int, period: float | None = None):
        self.group = group
        self.period = period

    def assign(self, noise: Tensor, data: Tensor, labels: Tensor | None = None) -> Tensor:
        """Solve one assignment problem for each group, or for each class within it."""
        order = torch.empty(len(noise), dtype=torch.int64)
        for start in range(0, len(noise), self.group):
            members = torch.arange(start, start + self.group)
            classes = [members] if labels is None else [members[labels[members] == label] for label in labels[members].unique()]
            for rows in classes:
                cost = self._cost(data[rows].flatten(1), noise[rows].flatten(1))
                order[rows] = rows[torch.from_numpy(linear_sum_assignment(cost.numpy())[1])]
        return order

    def _cost(self, first: Tensor, second: Tensor) -> Tensor:
        """Return |a - b|^2 of all pairs, up to a factor and terms that no assignment changes."""
        if self.period is None:
            return -(first @ second.T)
        return wrap(first[:, None] - second, self.period).square().sum(dim=2)
