"""Distances between two sets of points: maximum mean discrepancy (MMD) and Wasserstein distances.

They need no features, and points may have weights, so they suit populations of cells or particles. Points are NumPy arrays (N, D) and (M,
D).
"""

from collections.abc import Callable

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from amgen.core.errors import UserError

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""A kernel k: takes points (N, D) and (M, D), returns the matrix of k(x_i, y_j), (N, M)."""

BLOCK = 1000
"""Number of rows of a kernel matrix that are in memory at once."""


def gaussian_kernel(precision: float, factor: float = 1.0) -> Kernel:
    """Return the kernel k(x, y) = factor * exp(-precision |x - y|^2).

    Args:
        precision: inverse square of the length scale, above 0; 1 / (2 sigma^2) for a Gaussian of standard deviation sigma.
        factor: k(x, x).
    """

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return factor * np.exp(-precision * cdist(x, y, "sqeuclidean"))

    return kernel


def mmd_squared(
    x: np.ndarray, y: np.ndarray, kernel: Kernel, x_weights: np.ndarray | None = None, y_weights: np.ndarray | None = None
) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, JMLR 13, lemma 6).

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y). It is 0 for equal distributions. The estimate is unbiased, so it may be below 0. The
    first two means leave out the pairs of a point with itself.

    Args:
        x: points of one distribution, (N, D), N >= 2.
        y: points of the other distribution, (M, D), M >= 2.
        kernel: k.
        x_weights: weights of the points x, (N,), not necessarily normalised; None for equal weights.
        y_weights: weights of the points y, (M,).

    Example:
        >>> import numpy as np
        >>> from amgen.evaluation.distances import gaussian_kernel, mmd_squared
        >>> x, y = np.random.default_rng(0).normal(size=(2, 500, 3))
        >>> abs(mmd_squared(x, y, gaussian_kernel(0.5))) < 0.01
        True
        >>> mmd_squared(x, y + 1, gaussian_kernel(0.5)) > 0.1
        True
    """
    a, b = _normalised(x_weights, len(x)), _normalised(y_weights, len(y))
    return _within(x, a, kernel) + _within(y, b, kernel) - 2 * _between(x, a, y, b, kernel)


def wasserstein(
    x: np.ndarray, y: np.ndarray, power: int = 1, x_weights: np.ndarray | None = None, y_weights: np.ndarray | None = None
) -> float:
    """Return the Wasserstein distance W_p between two sets of points, exactly (Peyré and Cuturi 2019, arXiv 1803.00567, section 2.4).

    W_p = (min over couplings of E |x - y|^p)^(1/p) with Euclidean distances, in the unit of the points. It is at least 0, and biased
    upwards: two sets from the same distribution have a distance above 0, which falls with their sizes. Time and memory grow as N M and
    more.

    Args:
        x: points of one distribution, (N, D).
        y: points of the other distribution, (M, D).
        power: p, at least 1.
        x_weights: weights of the points x, (N,), not necessarily normalised; None for equal weights.
        y_weights: weights of the points y, (M,).

    Raises:
        UserError: if the sets have different sizes or weights, and POT is not installed.

    Example:
        A shifted copy: the distance is the length of the shift.

        >>> import numpy as np
        >>> from amgen.evaluation.distances import wasserstein
        >>> x = np.random.default_rng(0).normal(size=(100, 2))
        >>> round(wasserstein(x, x + np.array([3.0, 4.0])), 6)
        5.0
    """
    cost = cdist(x, y) ** power
    if len(x) == len(y) and x_weights is None and y_weights is None:
        return float(cost[linear_sum_assignment(cost)].mean() ** (1 / power))
    try:
        import ot
    except ImportError:
        raise UserError("the Wasserstein distance of sets with different sizes or weights needs POT: pip install 'amgen[ot]'") from None
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
