"""Mean and covariance of features, held so that few vectors of many dimensions cost no more than they must.

Of N < D vectors the covariance C has at most N - 1 directions: C = F'F with F the centred vectors over the square root of N - 1. What a
Fréchet distance needs of two covariances can then be had from N x N matrices, and C itself, D x D, is never made.
"""

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from amgen.core.errors import UserError

ROWS = 4096
"""Feature vectors that are looked at together, which bounds the memory."""
OFTEN = 4
"""How often the moments of real images are compared with others, at least about: at several numbers of images, and for the error."""


class Moments:
    """Mean (D,) and covariance (D, D) of features, float64.

    Args:
        mean: the mean.
        covariance: the covariance; by default that of `features`, made when it is asked for.
        features: the vectors (N, D) that these are the moments of.
        rows: which of them; by default all.
    """

    def __init__(self, mean: Tensor, covariance: Tensor | None = None, features: Tensor | None = None, rows: Tensor | None = None):
        self.mean = mean
        self._given = covariance
        self._features = features
        self._rows = rows

    @classmethod
    def of(cls, features: Tensor, rows: Tensor | None = None) -> "Moments":
        """Return the moments of features (N, D), or of those in `rows`, the covariance being the unbiased one.

        A few thousand rows are held in float64 at a time.

        Raises:
            UserError: if there are fewer than two.
        """
        rows = torch.arange(len(features)) if rows is None else rows
        if len(rows) < 2:
            raise UserError(f"a Fréchet distance needs at least 2 images on each side, not {len(rows)}")
        mean = torch.zeros(features.shape[1], dtype=torch.float64)
        for part in rows.split(ROWS):
            mean += features[part].double().sum(dim=0) / len(rows)
        return cls(mean, None, features, rows)

    @cached_property
    def covariance(self) -> Tensor:
        """Return the covariance."""
        if self._given is not None:
            return self._given
        covariance = torch.zeros(len(self.mean), len(self.mean), dtype=torch.float64)
        for part in self._parts():
            covariance += part.T @ part
        return covariance

    @cached_property
    def factor(self) -> Tensor | None:
        """Return F, float64 (N, D), with C = F'F; None where there are not fewer vectors than dimensions, or they are unknown."""
        if self._rows is None or len(self._rows) >= len(self.mean):
            return None
        return torch.cat(list(self._parts()))

    @cached_property
    def variance(self) -> float:
        """Return the trace of the covariance."""
        if self._given is not None:
            return float(self._given.trace())
        return float(sum(part.square().sum() for part in self._parts()))

    @cached_property
    def root(self) -> Tensor:
        """Return the symmetric square root of the covariance."""
        return power(self.covariance, 0.5)

    def between(self, factor: Tensor) -> Tensor:
        """Return F C F' (n, n) for vectors F, float64 (n, D), n < D.

        Of few vectors from those that C is made of, if C is not there yet: that takes n instead of D products for each.
        """
        there = self._given is not None or "covariance" in self.__dict__
        if there or len(factor) * OFTEN > len(self.mean):
            return factor @ self.covariance @ factor.T
        found = factor.new_zeros(len(factor), len(factor))
        for part in self._parts():
            product = factor @ part.T
            found += product @ product.T
        return found

    def _parts(self) -> Iterator[Tensor]:
        """Yield the rows of F, a few thousand at a time."""
        assert self._features is not None
        assert self._rows is not None
        divisor = (len(self._rows) - 1) ** 0.5
        for part in self._rows.split(ROWS):
            yield (self._features[part].double() - self.mean) / divisor


def power(matrix: Tensor, exponent: float) -> Tensor:
    """Return a power of a symmetric positive semidefinite matrix, on its range."""
    values, vectors = torch.linalg.eigh(matrix)
    positive = values > values.max() * len(values) * torch.finfo(values.dtype).eps
    powers = torch.where(positive, values.clamp(min=torch.finfo(values.dtype).tiny) ** exponent, 0)
    return (vectors * powers) @ vectors.T
