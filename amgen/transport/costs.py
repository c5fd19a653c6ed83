"""The cost of transport between two points, C = -log cos^2(min(d / (2 delta), pi/2)), or d^2 / 2 without growth."""

import math

import torch
from torch import Tensor


def wfr_cost(distance: Tensor, delta: float) -> Tensor:
    """Return the cost of moving mass over a distance.

    Args:
        distance: d >= 0, any shape.
        delta: length scale of growth; `math.inf` for balanced transport.

    Returns:
        -log cos^2(d / (2 delta)), infinite from pi delta on, of the same shape. It is d^2 / (4 delta^2) to leading order.
        For an infinite delta: d^2 / 2, which is the limit of 2 delta^2 times this cost.

    Example:
        >>> import torch
        >>> from amgen.transport import wfr_cost
        >>> wfr_cost(torch.tensor([0.0, 1.0, 4.0]), delta=1.0)
        tensor([0.0000, 0.2612,    inf])
    """
    return _cost_(distance.clone(), delta)


def _cost_(distance: Tensor, delta: float) -> Tensor:
    """Compute `wfr_cost` in the memory of its argument."""
    if math.isinf(delta):
        return distance.square_().mul_(0.5)
    # The quotient first: 2 * delta may overflow for the largest floats.
    angle = distance.div_(delta).mul_(0.5)
    beyond = angle >= math.pi / 2
    # 1 / cos^2 = 1 + tan^2 keeps all digits at both ends.
    return angle.clamp_(max=math.pi / 2).tan_().square_().log1p_().masked_fill_(beyond, math.inf)


def cost_matrix(x: Tensor, y: Tensor, delta: float) -> Tensor:
    """Return the costs of all pairs.

    Args:
        x: points, (N, D), float64.
        y: points, (M, D), float64.
        delta: length scale of growth; `math.inf` for balanced transport.

    Returns:
        C, (N, M), float64. A squared distance has an error of some 1e-15 times the squared size of the point sets.

    Example:
        >>> import torch
        >>> from amgen.transport import cost_matrix
        >>> points = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
        >>> cost_matrix(points, points, delta=float("inf"))
        tensor([[ 0.0000, 12.5000],
                [12.5000,  0.0000]], dtype=torch.float64)
    """
    # The product of the matrices loses digits for points that lie far from the origin.
    centre = (x.mean(dim=0) + y.mean(dim=0)) / 2
    x, y = x - centre, y - centre
    squares = (x @ y.T).mul_(-2).add_(x.square().sum(dim=1)[:, None]).add_(y.square().sum(dim=1))
    return _cost_(squares.clamp_(min=0).sqrt_(), delta)


def pair_costs(x: Tensor, y: Tensor, rows: Tensor, columns: Tensor, delta: float, block: int = 1 << 22) -> Tensor:
    """Return the costs of the pairs (x[rows[e]], y[columns[e]]), (E,), from the differences of the points."""
    found = torch.empty(len(rows), dtype=torch.float64)
    step = max(1, block // max(1, x.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        found[part] = _cost_((x[rows[part]] - y[columns[part]]).square_().sum(dim=1).sqrt_(), delta)
    return found
