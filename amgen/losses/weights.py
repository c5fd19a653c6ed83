"""Weights w(t) of the action-matching losses, with their derivatives."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, vmap


class TimeWeight:
    """w(t) >= 0 and w'(t), the latter by automatic differentiation.

    Args:
        function: maps times (B,) to weights (B,), elementwise, by differentiable torch operations.
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


TIME_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "constant": _constant,
    "1-t": lambda t: 1 - t,
    "(1-t)^2": lambda t: (1 - t).square(),
}
"""Weights known by name."""

CONSTANT = TimeWeight(_constant)
"""w(t) = 1."""
