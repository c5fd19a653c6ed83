"""Which noise is joined with which image.

A coupling is a joint distribution of (x_0, x_1) with the given marginals. Any will do for Action Matching; one whose paths cross less has
a smoother velocity, which is learned sooner and followed in fewer steps.
"""

from abc import ABC, abstractmethod

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


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
    """

    def __init__(self, group: int):
        self.group = group

    def assign(self, noise: Tensor, data: Tensor, labels: Tensor | None = None) -> Tensor:
        """Solve one assignment problem for each group, or for each class within it."""
        order = torch.empty(len(noise), dtype=torch.int64)
        for start in range(0, len(noise), self.group):
            members = torch.arange(start, start + self.group)
            classes = [members] if labels is None else [members[labels[members] == label] for label in labels[members].unique()]
            for rows in classes:
                # |a - b|^2 up to terms that no assignment changes.
                cost = -(data[rows].flatten(1) @ noise[rows].flatten(1).T)
                order[rows] = rows[torch.from_numpy(linear_sum_assignment(cost.numpy())[1])]
        return order
