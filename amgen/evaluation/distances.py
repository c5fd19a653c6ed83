"""Distances between samples of two distributions of points: maximum mean discrepancy and Wasserstein distances."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from amgen.core.errors import UserError

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""k(x, y) of points (N, D) and (M, D), shape (N, M)."""

BLOCK = 1000
"""Rows of a kernel matrix that are in memory at once."""


def gaussian_kernel(precision: float, factor: float = 1.0) -> Kernel:
    """Return k(x, y) = factor exp(-precision |x - y|^2)."""

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return factor * np.exp(-precision * cdist(x, y, "sqeuclidean"))

    return kernel


def mmd_squared(
    x: np.ndarray, y: np.ndarray, kernel: Kernel, x_weights: np.ndarray | None = None, y_weights: np.ndarray | None = None
) -> float:
    """Return the unbiased estimate of MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y) (Gretton et al. 2012, lemma 6).

    Args:
        x: samples of one distribution, (N, D).
        y: samples of the other, (M, D).
        kernel: k.
        x_weights: weights of the samples, (N,), in any unit; None for equal ones.
        y_weights: weights of the samples, (M,).
    """
    a, b = _normalised(x_weights, len(x)), _normalised(y_weights, len(y))
    return _within(x, a, kernel) + _within(y, b, kernel) - 2 * _between(x, a, y, b, kernel)


def wasserstein(
    x: np.ndarray, y: np.ndarray, power: int = 1, x_weights: np.ndarray | None = None, y_weights: np.ndarray | None = None
) -> float:
    """Return W_p = (min over couplings of E |x - y|^p)^(1/p), exactly, with Euclidean distances.

    Args:
        x: samples of one distribution, (N, D).
        y: samples of the other, (M, D).
        power: p, at least 1.
        x_weights: weights of the samples, (N,), in any unit; None for equal ones.
        y_weights: weights of the samples, (M,).

    Raises:
        UserError: if the numbers or weights differ and POT, which solves such problems, is not installed.
    """
    cost = cdist(x, y) ** power
    if len(x) == len(y) and x_weights is None and y_weights is None:
        return float(cost[linear_sum_assignment(cost)].mean() ** (1 / power))
    try:
        import ot
    except ImportError:
        raise UserError("transport between samples of unequal number or weight needs POT: pip install 'amgen[ot]'") from None
    a, b = _normalised(x_weights, len(x)), _normalised(y_weights, len(y))
    return float(ot.emd2(a, b, cost, numItermax=10_000_000)) ** (1 / power)


def _normalised(weights: np.ndarray | None, count: int) -> np.ndarray:
    """Return weights that sum to 1, float64."""
    if weights is None:
        return np.full(count, 1 / count)
    values = np.asarray(weights, dtype=np.float64)
    return values / values.sum()


def _between(x: np.ndarray, a: np.ndarray, y: np.ndarray, b: np.ndarray, kernel: Kernel) -> float:
    """Return sum_ij a_i b_j k(x_i, y_j)."""
    parts = [a[start : start + BLOCK] @ kernel(x[start : start + BLOCK], y) @ b for start in range(0, len(x), BLOCK)]
    return float(sum(parts))


def _within(x: np.ndarray, a: np.ndarray, kernel: Kernel) -> float:
    """Return the mean of k over pairs of different samples."""
    diagonal = sum(float(weight**2 * kernel(point[None], point[None])[0, 0]) for weight, point in zip(a, x, strict=True))
    return (_between(x, a, x, a, kernel) - diagonal) / (1 - float((a**2).sum()))
