"""Types of dynamics that an action describes, each with its transport cost.

Symbols: s(t, x) is the action, y = grad_x s, v the velocity, c(v) the transport cost and c*(y) its convex conjugate. The velocity is
v = grad c*(y). For the cost 1/2 |v|^2, which all types but `ConvexCost` have, v = y. Source: Neklyudov et al., arXiv 2210.06662, sections 2
and 3.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


class DynamicsType:
    """Base of the types of dynamics, with the cost 1/2 |v|^2."""

    def conjugate(self, gradient: Tensor) -> Tensor:
        """Return c*(y) of gradients (B, ...), shape (B,)."""
        return 0.5 * squared_norm(gradient)

    def velocity(self, gradient: Tensor) -> Tensor:
        """Return grad c*(y) of gradients (B, ...), same shape."""
        return gradient

    def fenchel_young(self, gradient: Tensor, velocity: Tensor) -> Tensor:
        """Return the Fenchel-Young loss c*(y) + c(u) - y . u >= 0 of gradients y and velocities u, both (B, ...), shape (B,).

        It is zero where u = grad c*(y). For the quadratic cost it is 1/2 |y - u|^2.
        """
        return 0.5 * squared_norm(gradient - velocity)


@dataclass(frozen=True)
class Balanced(DynamicsType):
    """dx/dt = grad s: Action Matching.

    Example:
        >>> import torch
        >>> from amgen.dynamics import Balanced
        >>> gradient, velocity = torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 0.0]])
        >>> Balanced().velocity(gradient).tolist(), Balanced().fenchel_young(gradient, velocity).tolist()
        ([[3.0, 4.0]], [8.0])
    """


@dataclass(frozen=True)
class Entropic(DynamicsType):
    """dx = grad s dt + sigma(t) dW: entropic Action Matching.

    In conditional form the target of the drift is u - sigma^2 eps / (2 a_t). It grows without bound towards the data, where a_t = 0, unless
    sigma vanishes there, as sigma (1 - t) and sigma sqrt(a_t) do.

    Attributes:
        sigma: maps times (B,) to noise scales (B,), elementwise.

    Example:
        >>> import torch
        >>> from amgen.dynamics import Entropic
        >>> Entropic(lambda t: 0.5 * (1 - t)).sigma(torch.tensor([0.0, 1.0])).tolist()
        [0.5, 0.0]
    """

    sigma: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Unbalanced(DynamicsType):
    """dx/dt = grad s, d(log weight)/dt = lambda s: unbalanced Action Matching.

    A growth rate g = lambda s costs g^2 / (2 lambda). With a small lambda the dynamics mostly move mass; with a large one they mostly
    create and destroy it.

    Attributes:
        rate: lambda > 0.

    Example:
        >>> from amgen.dynamics import Unbalanced
        >>> Unbalanced(rate=0.01)
        Unbalanced(rate=0.01)
    """

    rate: float


@dataclass(frozen=True)
class ConvexCost(DynamicsType):
    """dx/dt = grad c*(grad s) for the cost c(v) = |v|^p / p, with the conjugate c*(y) = |y|^q / q, 1/p + 1/q = 1.

    Attributes:
        power: p > 1; 2 is Action Matching.

    Example:
        >>> import torch
        >>> from amgen.dynamics import ConvexCost
        >>> cost = ConvexCost(power=3.0)
        >>> cost.dual_power
        1.5
        >>> gradient = torch.tensor([[0.0, 4.0]])
        >>> cost.velocity(gradient).tolist()  # |y|^(q - 2) y
        [[0.0, 2.0]]
        >>> cost.fenchel_young(gradient, cost.velocity(gradient)).abs().item() < 1e-6
        True
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
    """Return the sum of squares over all but the batch dimension, in float32 at least, shape (B,)."""
    return x.to(_wide(x)).square().flatten(1).sum(dim=1)


def _norm(x: Tensor) -> Tensor:
    """Return the Euclidean norm over all but the batch dimension, (B,), above zero, where its powers have no derivative."""
    square = squared_norm(x)
    return square.clamp_min(torch.finfo(square.dtype).eps ** 2).sqrt()


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
