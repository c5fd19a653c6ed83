"""Couplings: which noise is paired with which image, and which point of a population with which point of the next time.

A coupling is a joint distribution of (x_0, x_1) with the given marginals. Action Matching works with every coupling. One whose paths cross
less has a smoother velocity: it is learned faster and needs fewer solver steps.
"""

from abc import ABC, abstractmethod

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from amgen.core.names import OT_GROUP
from amgen.paths.base import wrap


class Coupling(ABC):
    """A rule that pairs noise with data.

    Attributes:
        group: number of consecutive items of the training stream that are paired among themselves; 1 for none.
    """

    group: int

    @abstractmethod
    def assign(self, noise: Tensor, data: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return which noise is paired with which data.

        Args:
            noise: x_0, (B, ...), B a multiple of `group`.
            data: x_1, same shape.
            labels: classes, (B,), if they condition the action. Noise is then exchanged within each class only. Otherwise it would no
                longer be standard normal given the class, and sampling starts from standard normal noise.

        Returns:
            A permutation, int64 (B,): `noise[order[i]]` is paired with `data[i]`.
        """

    def link(self, tuples: Tensor) -> Tensor:
        """Return multi-marginal tuples in which each point is paired with one of the next time.

        Args:
            tuples: one point of each time, with its mass as the last entry, (B, K + 1, D + 1), B a multiple of `group`.

        Returns:
            The points of each time in a new order, same shape; masses move with their points.
        """
        linked = [tuples[:, 0]]
        for points in tuples.unbind(dim=1)[1:]:
            linked.append(points[self.assign(points[:, :-1], linked[-1][:, :-1])])
        return torch.stack(linked, dim=1)


class IndependentCoupling(Coupling):
    """Noise and data are independent: pairs stay as they are.

    Example:
        >>> import torch
        >>> from amgen.paths import IndependentCoupling
        >>> IndependentCoupling().assign(torch.randn(3, 1, 8, 8), torch.rand(3, 1, 8, 8)).tolist()
        [0, 1, 2]
    """

    group = 1

    def assign(self, noise: Tensor, data: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the order unchanged."""
        return torch.arange(len(noise))


class OptimalTransportCoupling(Coupling):
    """Exact optimal transport within groups of fixed size, for the squared Euclidean cost (Tong et al., arXiv 2302.00482).

    The plan is an assignment: every image of a group is used once. The size of a group is an option of its own. So the pairs do not depend
    on the batch size, the number of processes or gradient accumulation.

    Args:
        group: number of pairs in a group.
        period: period of every entry, for points on a torus, where the distance is that of the shorter way; None for no period.

    Example:
        >>> import torch
        >>> from amgen.paths import OptimalTransportCoupling
        >>> noise, data = torch.tensor([[0.0], [10.0], [20.0]]), torch.tensor([[21.0], [1.0], [11.0]])
        >>> OptimalTransportCoupling(group=3).assign(noise, data).tolist()
        [2, 0, 1]
    """

    def __init__(self, group: int = OT_GROUP, period: float | None = None):
        self.group = group
        self.period = period

    def assign(self, noise: Tensor, data: Tensor, labels: Tensor | None = None) -> Tensor:
        """Solve one assignment problem for each group, or for each class in it."""
        order = torch.empty(len(noise), dtype=torch.int64)
        for start in range(0, len(noise), self.group):
            members = torch.arange(start, start + self.group)
            classes = [members] if labels is None else [members[labels[members] == label] for label in labels[members].unique()]
            for rows in classes:
                cost = self._cost(data[rows].flatten(1), noise[rows].flatten(1))
                order[rows] = rows[torch.from_numpy(linear_sum_assignment(cost.numpy())[1])]
        return order

    def _cost(self, first: Tensor, second: Tensor) -> Tensor:
        """Return |a - b|^2 of all pairs, up to a factor and to terms that are the same for every assignment."""
        if self.period is None:
            return -(first @ second.T)
        return wrap(first[:, None] - second, self.period).square().sum(dim=2)
