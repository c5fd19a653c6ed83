"""Weights w(t) of the action-matching losses and their derivatives."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, vmap

from amgen.core.names import TimeWeightName


class TimeWeight:
    """w(t) >= 0, with w'(t) by automatic differentiation.

    Args:
        function: maps times (B,) to weights (B,), elementwise, by differentiable torch operations.

    Attributes:
        at_start: w(0).
        at_end: w(1).
        is_constant: whether w(t) = 1.

    Example:
        >>> import torch
        >>> from amgen.losses import TIME_WEIGHTS, TimeWeight
        >>> weight = TimeWeight(TIME_WEIGHTS["1-t"])
        >>> t = torch.tensor([0.25, 0.5])
        >>> weight(t).tolist(), weight.derivative(t).tolist(), weight.at_end
        ([0.75, 0.5], [-1.0, -1.0], 0.0)
    """

    def __init__(self, function: Callable[[Tensor], Tensor]):
        self.function = function
        zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        self.at_start = float(function(zero))
        self.at_end = float(function(one))
        self.is_constant = function is _constant

    def __call__(self, t: Tensor) -> Tensor:
        """Return w(t), shape (B,)."""
        return self.function(t)

    def derivative(self, t: Tensor) -> Tensor:
        """Return w'(t), shape (B,)."""
        return vmap(grad(lambda time: self.function(time[None])[0]))(t)


def _constant(t: Tensor) -> Tensor:
    return torch.ones_like(t)


TIME_WEIGHTS: dict[TimeWeightName, Callable[[Tensor], Tensor]] = {
    "constant": _constant,
    "1-t": lambda t: 1 - t,
    "(1-t)^2": lambda t: (1 - t).square(),
}
"""Weights by their names in a configuration."""

CONSTANT = TimeWeight(_constant)
"""w(t) = 1."""
