"""Mean and covariance of features, stored such that few vectors with many dimensions cost little memory and time.

The covariance C of N < D vectors has rank N - 1 at most: C = F'F, where F (N, D) holds the centred vectors divided by sqrt(N - 1). The
Fréchet distance of two such covariances needs N x N matrices only. C itself, D x D, is never computed then.
"""

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from amgen.core.errors import UserError

ROWS = 4096
"""Number of feature vectors that are converted to float64 at once. It bounds the memory."""
EXPECTED_PRODUCTS = 4
"""About how often the moments of real images are used: for several numbers of generated images, and for the standard error."""


class Moments:
    """Mean (D,) and covariance (D, D) of features, float64. `Moments.of` makes them from features.

    Args:
        mean: the mean, (D,).
        covariance: the covariance, (D, D); None to compute it from `features` when it is needed.
        features: the feature vectors, (N, D).
        rows: indices of the vectors to use; None for all.

    Example:
        >>> import torch
        >>> moments = Moments.of(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
        >>> moments.mean.tolist(), moments.covariance.tolist()
        ([1.0, 1.0], [[2.0, 0.0], [0.0, 0.0]])
    """

    def __init__(self, mean: Tensor, covariance: Tensor | None = None, features: Tensor | None = None, rows: Tensor | None = None):
        self.mean = mean
        self._given = covariance
        self._features = features
        self._rows = rows

    @classmethod
    def of(cls, features: Tensor, rows: Tensor | None = None) -> "Moments":
        """Return the moments of features (N, D), or of the vectors at the indices `rows`. The covariance is the unbiased one.

        Raises:
            UserError: for fewer than two vectors.
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
        """The covariance, (D, D)."""
        if self._given is not None:
            return self._given
        covariance = torch.zeros(len(self.mean), len(self.mean), dtype=torch.float64)
        for part in self._parts():
            covariance += part.T @ part
        return covariance

    @cached_property
    def factor(self) -> Tensor | None:
        """F with C = F'F, float64, (N, D). None if N >= D, and if only mean and covariance are known."""
        if self._rows is None or len(self._rows) >= len(self.mean):
            return None
        return torch.cat(list(self._parts()))

    @cached_property
    def variance(self) -> float:
        """The total variance: the trace of the covariance."""
        if self._given is not None:
            return float(self._given.trace())
        return float(sum(part.square().sum() for part in self._parts()))

    @cached_property
    def root(self) -> Tensor:
        """The symmetric square root of the covariance, (D, D)."""
        return power(self.covariance, 0.5)

    def between(self, factor: Tensor) -> Tensor:
        """Return F C F', (n, n), for vectors F, float64, (n, D), n < D.

        If n is small and C is not computed yet, the result comes from the vectors: n instead of D products for each of them.
        """
        computed = self._given is not None or "covariance" in self.__dict__
        if computed or len(factor) * EXPECTED_PRODUCTS > len(self.mean):
            return factor @ self.covariance @ factor.T
        found = factor.new_zeros(len(factor), len(factor))
        for part in self._parts():
            product = factor @ part.T
            found += product @ product.T
        return found

    def _parts(self) -> Iterator[Tensor]:
        """Yield the rows of F, ROWS at a time."""
        assert self._features is not None
        assert self._rows is not None
        divisor = (len(self._rows) - 1) ** 0.5
        for part in self._rows.split(ROWS):
            yield (self._features[part].double() - self.mean) / divisor


def power(matrix: Tensor, exponent: float) -> Tensor:
    """Return a power of a symmetric positive semidefinite matrix (D, D). Eigenvalues that are zero up to rounding stay zero."""
    values, vectors = torch.linalg.eigh(matrix)
    positive = values > values.max() * len(values) * torch.finfo(values.dtype).eps
    powers = torch.where(positive, values.clamp(min=torch.finfo(values.dtype).tiny) ** exponent, 0)
    return (vectors * powers) @ vectors.T
