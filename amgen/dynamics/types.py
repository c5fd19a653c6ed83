"""The kinds of dynamics that an action describes, each with the transport cost behind it.

Symbols: s(t, x) the action, y = grad_x s, v the velocity, c(v) the cost of moving, c*(y) its convex conjugate. The velocity is v = grad
c*(y); where the cost is 1/2 |v|^2, as it is for all kinds but the last, v = y. Source: Neklyudov et al., arXiv 2210.06662, sections 2 and
3.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


class DynamicsType:
    """Base of the kinds, with the cost 1/2 |v|^2."""

    def conjugate(self, gradient: Tensor) -> Tensor:
        """Return c*(y) of gradients (B, ...), shape (B,)."""
        return 0.5 * squared_norm(gradient)

    def velocity(self, gradient: Tensor) -> Tensor:
        """Return grad c*(y) of gradients (B, ...), same shape."""
        return gradient

    def fenchel_young(self, gradient: Tensor, velocity: Tensor) -> Tensor:
        """Return c*(y) + c(u) - y . u >= 0, shape (B,): how far y is from what moves samples at velocity u (zero when they fit).

        The gap of Fenchel and Young; 1/2 |y - u|^2 for the quadratic cost.
        """
        return 0.5 * squared_norm(gradient - velocity)


@dataclass(frozen=True)
class Balanced(DynamicsType):
    """dx/dt = grad s: Action Matching."""


@dataclass(frozen=True)
class Entropic(DynamicsType):
    """dx = grad s dt + sigma(t) dW: entropic Action Matching.

    Attributes:
        sigma: maps times (B,) to noise scales (B,), elementwise. In conditional form the drift to be learned is u - sigma^2 eps / (2 a_t),
            which grows without bound towards the data unless sigma vanishes there; sigma (1 - t) and sigma sqrt(a_t) do.
    """

    sigma: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Unbalanced(DynamicsType):
    """dx/dt = grad s, d(log weight)/dt = rate s: unbalanced Action Matching.

    Attributes:
        rate: lambda > 0. A growth g costs g^2 / (2 lambda), so that a small rate prefers to move mass and a large one to create it.
    """

    rate: float


@dataclass(frozen=True)
class ConvexCost(DynamicsType):
    """dx/dt = grad c*(grad s) for the cost c(v) = |v|^p / p, whose conjugate is |y|^q / q with 1/p + 1/q = 1.

    Attributes:
        power: p > 1; 2 is Action Matching.
    """

    power: float

    @property
    def dual_power(self) -> float:
        """Return q = p / (p - 1)."""
        return self.power / (self.power - 1)

    def conjugate(self, gradient: Tensor) -> Tensor:
        """Return |y|^q / q, shape (B,)."""
        return _norm(gradient) ** self.dual_power / self.dual_power

    def velocity(self, gradient: Tensor) -> Tensor:
        """Return |y|^(q-2) y."""
        scale = _norm(gradient) ** (self.dual_power - 2)
        return gradient * scale.to(gradient.dtype).reshape(-1, *[1] * (gradient.dim() - 1))

    def fenchel_young(self, gradient: Tensor, velocity: Tensor) -> Tensor:
        """Return |y|^q / q + |u|^p / p - y . u, shape (B,)."""
        product = (gradient * velocity).flatten(1).sum(dim=1, dtype=_wide(gradient))
        return self.conjugate(gradient) + _norm(velocity) ** self.power / self.power - product


def squared_norm(x: Tensor) -> Tensor:
    """Sum of squares over all but the batch dimension, in float32 at least."""
    return x.to(_wide(x)).square().flatten(1).sum(dim=1)


def _norm(x: Tensor) -> Tensor:
    """Euclidean norm over all but the batch dimension, kept off zero, where its powers have no derivative."""
    square = squared_norm(x)
    return square.clamp_min(torch.finfo(square.dtype).eps ** 2).sqrt()


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
