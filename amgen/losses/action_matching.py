"""The action-matching objective (Neklyudov et al., arXiv 2210.06662), in its two forms.

Symbols: s(t, x) the action, v = grad_x s its velocity, q_t the marginals, u_t = d/dt x_t the velocity along a path, w(t) >= 0 a weight,
p(t) the density that times are drawn from, `|.|^2` a sum over all but the batch dimension.

Marginal form (theorem 2.2 of the paper, weighted), which needs samples of q_t and nothing else:

    L = E_q0[w(0) s_0] - E_q1[w(1) s_1] + E_{t ~ p} 1/p(t) E_qt[ w(t) (1/2 |v|^2 + d_t s) + w'(t) s ]

Conditional form. Along a path d/dt [w s_t(x_t)] = w' s + w (d_t s + v . u), so integrating over t cancels the boundary terms, d_t s and
w' against E w v . u, and completing the square leaves a regression:

    L = E_{t ~ p} w(t)/p(t) E[ 1/2 |v - u|^2 ] + const

Both have the same minimiser and the same expected gradient. The conditional form has far less variance and needs no derivative in t.

A loss is a module that holds the action, so that it can be wrapped for distributed training and compiled as one function: inner
gradients are taken with `torch.func`.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import grad

from amgen.actions import Action
from amgen.losses.weights import TimeWeight
from amgen.paths import PathSample


@dataclass
class LossTerms:
    """Per-sample terms of a loss.

    Attributes:
        loss: what is averaged and minimised, shape (B,).
        terms: named parts of interest, each (B,), detached.
    """

    loss: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


class ActionMatchingLoss(nn.Module):
    """Base of the losses: an action, a time weight, and what both forms need of them."""

    def __init__(self, action: Action, weight: TimeWeight):
        super().__init__()
        self.action = action
        self.weight = weight

    def forward(self, sample: PathSample) -> LossTerms:
        """Return the per-sample terms for a batch drawn from a path."""
        raise TypeError("use one of the forms: ConditionalLoss, MarginalLoss")


class ConditionalLoss(ActionMatchingLoss):
    """w(t)/p(t) 1/2 |grad_x s - u|^2."""

    def forward(self, sample: PathSample) -> LossTerms:
        """Return the per-sample terms."""

        def total_action(x: Tensor) -> Tensor:
            return self.action(sample.t, x, sample.label, sample.condition).sum()

        velocity = grad(total_action)(sample.x)
        error = 0.5 * _squared_norm(velocity - sample.velocity)
        return LossTerms(self.weight(sample.t) / sample.density * error, {"velocity_error": error.detach()})


class MarginalLoss(ActionMatchingLoss):
    """The paper's loss, with boundary samples from the same pairs as the interior ones."""

    def forward(self, sample: PathSample) -> LossTerms:
        """Return the per-sample terms."""

        def total_action(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            action = self.action(t, x, sample.label, sample.condition)
            return action.sum(), action

        (time_derivative, velocity), action = grad(total_action, argnums=(0, 1), has_aux=True)(sample.t, sample.x)
        kinetic = 0.5 * _squared_norm(velocity)
        interior = self.weight(sample.t) * (kinetic + time_derivative)
        if not self.weight.is_constant:
            interior = interior + self.weight.derivative(sample.t) * action
        boundary = self._boundary(sample)
        terms = {"kinetic": kinetic.detach(), "boundary": boundary.detach()}
        return LossTerms(boundary + interior / sample.density, terms)

    def _boundary(self, sample: PathSample) -> Tensor:
        """Return w(0) s_0(x_0) - w(1) s_1(x_1), (B,), evaluating in one pass the ends whose weight is not zero."""
        ends = [(0.0, self.weight.at_start, sample.start), (1.0, -self.weight.at_end, sample.end)]
        ends = [end for end in ends if end[1] != 0]
        if not ends:
            return torch.zeros_like(sample.t)
        count = len(ends)
        action = self.action(
            torch.cat([torch.full_like(sample.t, time) for time, _, _ in ends]),
            torch.cat([x for _, _, x in ends]),
            None if sample.label is None else sample.label.repeat(count),
            None if sample.condition is None else sample.condition.repeat(count, 1, 1, 1),
        )
        values = action.unflatten(0, (count, -1))
        return sum((sign * value for (_, sign, _), value in zip(ends, values, strict=True)), torch.zeros_like(sample.t))


def _squared_norm(x: Tensor) -> Tensor:
    """Sum of squares over all but the batch dimension, in float32 at least."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.to(dtype).square().flatten(1).sum(dim=1)
