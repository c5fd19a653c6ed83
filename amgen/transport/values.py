"""Values of the problem of transport, of its dual, and the distance between two populations."""

import math

import torch
from torch import Tensor


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Return KL(p | q) = sum p log(p/q) - p + q, a scalar, for p >= 0 and q > 0 of the same shape."""
    excess = (p - q) / q
    # p log(p/q) - p + q = q ((1 + z) log(1 + z) - z) with z = p/q - 1: exact to rounding where p is near q.
    return (q * (torch.where(excess > -1, (1 + excess) * torch.log1p(excess.clamp(min=-1 + 1e-16)), 0.0) - excess)).sum()


def primal_value(mass: Tensor, cost: Tensor, rows: Tensor, columns: Tensor, a: Tensor, b: Tensor) -> float:
    """Return sum P_ij C_ij + KL(P 1 | a) + KL(P^T 1 | b), an upper bound of the optimum for every P >= 0.

    Args:
        mass: entries of P, (E,), float64; all others are zero.
        cost: costs of these entries, (E,).
        rows: their rows, int64 (E,).
        columns: their columns, int64 (E,).
        a: masses of the rows, (N,), positive.
        b: masses of the columns, (M,), positive.

    Example:
        A point of mass 4 and one of mass 1 at the same place: the optimum is (2 - 1)^2, reached by P = 2.

        >>> import torch
        >>> from amgen.transport import primal_value
        >>> a, b = torch.tensor([4.0], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
        >>> pair = torch.tensor([0])
        >>> round(primal_value(torch.tensor([2.0], dtype=torch.float64), torch.zeros(1), pair, pair, a, b), 12)
        1.0
    """
    sent = torch.zeros_like(a).index_add_(0, rows, mass)
    received = torch.zeros_like(b).index_add_(0, columns, mass)
    return float((mass * cost).sum() + divergence(sent, a) + divergence(received, b))


def dual_value(f: Tensor, g: Tensor, a: Tensor, b: Tensor) -> float:
    """Return sum a (1 - e^-f) + sum b (1 - e^-g), a lower bound of the optimum if f_i + g_j <= C_ij for all pairs.

    Args:
        f: potentials of the rows, (N,), float64; infinity is allowed.
        g: potentials of the columns, (M,).
        a: masses of the rows, (N,).
        b: masses of the columns, (M,).

    Example:
        >>> import torch
        >>> from amgen.transport import dual_value
        >>> a, b = torch.tensor([4.0], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
        >>> f = torch.tensor([2.0], dtype=torch.float64).log()
        >>> round(dual_value(f, -f, a, b), 12)
        1.0
    """
    return float(-(a * torch.expm1(-f)).sum() - (b * torch.expm1(-g)).sum())


def wfr_distance(value: float, delta: float) -> float:
    """Return the Wasserstein-Fisher-Rao distance of an optimal value, in units of length times the root of mass.

    It is 2 delta sqrt(value): the root of twice the action 2 delta^2 value. For a growing delta it tends to the Wasserstein distance W_2.

    Args:
        value: optimal value of the problem, such as `Plan.primal`.
        delta: length scale of growth; for `math.inf` the value is half a squared distance.

    Example:
        Two points of mass 1 at distance 1, for growing delta:

        >>> import math
        >>> from amgen.transport import wfr_distance
        >>> for delta in (1.0, 10.0, 100.0):
        ...     print(round(wfr_distance(2 - 2 * math.cos(1 / (2 * delta)), delta), 5))
        0.98962
        0.9999
        1.0
    """
    value = max(value, 0.0)
    return math.sqrt(2 * value) if math.isinf(delta) else 2 * delta * math.sqrt(value)
