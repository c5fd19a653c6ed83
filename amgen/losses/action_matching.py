"""The action-matching objectives (Neklyudov et al., arXiv 2210.06662), for each kind of dynamics in two forms.

Symbols: s(t, x) the action, y = grad_x s, c* the conjugate of the transport cost (1/2 |y|^2 but for `ConvexCost`), q_t the marginals, u_t
= d/dt x_t the velocity along a path, w(t) >= 0 a weight, p(t) the density that times are drawn from, m_t the mass of a sample, r_t = d/dt
log m_t, sigma(t) the noise of entropic dynamics, lambda the rate of unbalanced ones. Sums of squares run over all but the batch dimension.

Marginal form (theorem 2.2 and section 3 of the paper, weighted), which needs samples of q_t, with their masses, and nothing else:

    L = E_q0[w(0) s_0] - E_q1[w(1) s_1] + E_{t ~ p} 1/p(t) E_qt[ w(t) (c*(y) + d_t s + sigma^2/2 Laplacian s + lambda/2 s^2) + w'(t) s ]

with the Laplacian for entropic and the square for unbalanced dynamics alone.

Conditional form. Along a path of a pair z, d/dt [m w s_t(x_t)] = m (w' s + w (d_t s + y . u + r s)); integrating over t cancels the
boundary terms, d_t s and w' against -E m w (y . u + r s). The Laplacian, by parts against the Gaussian q_t(. | x_1), is -E y . grad log
q_t(x_t | x_1). Completing squares leaves

    L = E_{t ~ p} w(t)/p(t) E m_t [ c*(y) + c(u') - y . u' + lambda/2 (s - r_t/lambda)^2 ] + const,
    u' = u + sigma^2/2 grad log q_t(x_t | x_1),

whose first three terms are 1/2 |y - u'|^2 for the quadratic cost. Both forms have the same minimiser and the same expected gradient. The
conditional one has far less variance, no derivative in t and none of third order.

A loss is a module that holds the action, so that it can be wrapped for distributed training and compiled as one function.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import grad, vjp, vmap

from amgen.actions import Action
from amgen.actions.second_order import input_gradient
from amgen.core.errors import UserError
from amgen.dynamics import Balanced, DynamicsType, Entropic, Unbalanced
from amgen.losses.weights import CONSTANT, TimeWeight
from amgen.paths import Path, PathSample
from amgen.paths.base import before_end, expand


@dataclass
class LossTerms:
    """Per-sample terms of a loss.

    Attributes:
        loss: what is averaged and minimised, shape (B,).
        interior: the integrand at the sample's time, before division by p(t), (B,), detached.
        terms: named parts of interest, each (B,), detached.
    """

    loss: Tensor
    interior: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


class ActionMatchingLoss(nn.Module):
    """Base of the losses.

    Args:
        action: s(t, x).
        path: where the samples come from.
        kind: what the action's gradient does to samples.
        weight: w(t).

    Raises:
        UserError: if the kind of dynamics cannot be learned on the path in this form; the message says what can.
    """

    def __init__(self, action: Action, path: Path, dynamics: DynamicsType | None = None, weight: TimeWeight = CONSTANT):
        super().__init__()
        self.action = action
        self.path = path
        self.dynamics = Balanced() if dynamics is None else dynamics
        self.weight = weight
        self.check()

    @property
    def needs_boundary(self) -> bool:
        """Whether samples must bring those of both ends: `path.sample(..., boundary=loss.needs_boundary)`."""
        return False

    @property
    def needs_score(self) -> bool:
        """Whether samples must bring their conditional score: `path.sample(..., score=loss.needs_score)`."""
        return False

    def check(self) -> None:
        """Refuse what cannot be learned."""

    def forward(self, sample: PathSample) -> LossTerms:
        """Return the per-sample terms for a batch drawn from the path."""
        raise TypeError("use one of the forms: ConditionalLoss, MarginalLoss")


class ConditionalLoss(ActionMatchingLoss):
    """Regression of the action's gradient, and of its growth, on those of the paths."""

    @property
    def needs_score(self) -> bool:
        """True for entropic dynamics."""
        return isinstance(self.dynamics, Entropic)

    def check(self) -> None:
        """Refuse entropic dynamics where the conditional score is missing or not integrable."""
        if not isinstance(self.dynamics, Entropic):
            return
        end = torch.ones(1, dtype=torch.float64)
        scale = self.path.noise_scale(end)
        if scale is None:
            raise UserError(
                "entropic dynamics in conditional form need x_t to be Gaussian given the data, which "
                f"{type(self.path).__name__} is not: use the marginal form"
            )
        if float(scale) < 1e-6 and self.weight.at_end * float(self.dynamics.sigma(end)) > 0:
            raise UserError(
                "the drift of entropic dynamics grows as 1/a_t towards the data, with unbounded variance in conditional form: let "
                "sigma(t) or w(t) vanish at t = 1, or use the marginal form"
            )

    def forward(self, sample: PathSample) -> LossTerms:
        """Return the per-sample terms."""

        def evaluate(x: Tensor) -> Tensor:
            return self.action(sample.t, x, sample.label, sample.conditioning.condition, sample.dropout_seeds)

        (gradient,), action = input_gradient(evaluate, sample.x)
        error = self.dynamics.fenchel_young(sample.conditioning.restrict(gradient), self._target(sample))
        terms = {"velocity_error": error.detach()}
        if isinstance(self.dynamics, Unbalanced):
            growth = 0 if sample.growth is None else sample.growth
            growth_error = 0.5 * self.dynamics.rate * (action - growth / self.dynamics.rate).square()
            terms["growth_error"] = growth_error.detach()
            error = error + growth_error
        interior = _weigh(sample.mass, self.weight(sample.t) * error)
        return LossTerms(interior / sample.density, interior.detach(), terms)

    def _target(self, sample: PathSample) -> Tensor:
        """Return what the gradient is to match, (B, ...)."""
        if not isinstance(self.dynamics, Entropic):
            return sample.velocity
        if sample.score is None:
            raise ValueError("entropic dynamics need the conditional score: path.sample(..., score=True)")
        half_variance = 0.5 * self.dynamics.sigma(before_end(sample.t)).square()  # at the time of the score
        return sample.velocity + expand(half_variance, sample.x) * sample.score


class MarginalLoss(ActionMatchingLoss):
    """The paper's loss.

    The Laplacian of entropic dynamics is estimated from the sample's probes (Hutchinson), or computed exactly where it has none.

    The interior and the boundaries are evaluated in one pass each. In a single pass of all of them the inner gradient would go through the
    boundaries as well, for nothing: a step took 1.4 to 1.6 times as long.
    """

    @property
    def needs_boundary(self) -> bool:
        """True."""
        return True

    def forward(self, sample: PathSample) -> LossTerms:
        """Return the per-sample terms."""

        def evaluate(t: Tensor, x: Tensor) -> Tensor:
            return self.action(t, x, sample.label, sample.conditioning.condition, sample.dropout_seeds)

        if isinstance(self.dynamics, Entropic):
            gradient, time_derivative, action, laplacian = _with_laplacian(evaluate, sample)
            time_derivative = time_derivative + 0.5 * self.dynamics.sigma(sample.t).square() * laplacian
        else:
            (time_derivative, gradient), action = input_gradient(evaluate, sample.t, sample.x)
            gradient = sample.conditioning.restrict(gradient)
        kinetic = self.dynamics.conjugate(gradient)
        integrand = kinetic + time_derivative
        if isinstance(self.dynamics, Unbalanced):
            integrand = integrand + 0.5 * self.dynamics.rate * action.square()
        interior = self.weight(sample.t) * integrand
        if not self.weight.is_constant:
            interior = interior + self.weight.derivative(sample.t) * action
        interior = _weigh(sample.mass, interior)
        boundary = self._boundary(sample)
        terms = {"kinetic": kinetic.detach(), "boundary": boundary.detach()}
        return LossTerms(boundary + interior / sample.density, interior.detach(), terms)

    def _boundary(self, sample: PathSample) -> Tensor:
        """Return w(0) m_0 s_0(x_0) - w(1) m_1 s_1(x_1), (B,), evaluating in one pass the ends whose weight is not zero."""
        boundary = sample.boundary
        if boundary is None:
            raise ValueError("the marginal form needs samples of both ends: path.sample(..., boundary=True)")
        ends = [
            (0.0, self.weight.at_start, boundary.start, boundary.start_mass),
            (1.0, -self.weight.at_end, boundary.end, boundary.end_mass),
        ]
        ends = [end for end in ends if end[1] != 0]
        if not ends:
            return torch.zeros_like(sample.t)
        count = len(ends)
        action = self.action(
            torch.cat([torch.full_like(sample.t, time) for time, *_ in ends]),
            torch.cat([x for _, _, x, _ in ends]),
            None if boundary.label is None else boundary.label.repeat(count),
            None if boundary.condition is None else boundary.condition.repeat(count, 1, 1, 1),
            None if boundary.dropout_seeds is None else boundary.dropout_seeds.repeat(count, 1),
        )
        values = action.unflatten(0, (count, -1))
        parts = [sign * _weigh(mass, value) for (_, sign, _, mass), value in zip(ends, values, strict=True)]
        return torch.stack(parts).sum(dim=0)


def _weigh(mass: Tensor | None, values: Tensor) -> Tensor:
    return values if mass is None else mass * values


def _with_laplacian(evaluate: Callable[[Tensor, Tensor], Tensor], sample: PathSample) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return grad_x s, d_t s, s and the Laplacian of s at the sample's points, which needs third derivatives in training."""

    def total(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        values = evaluate(t, x)
        return values.sum(), values

    def gradient_in_x(x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        (time_derivative, gradient), values = grad(total, argnums=(0, 1), has_aux=True)(sample.t, x)
        return sample.conditioning.restrict(gradient), (time_derivative, values)

    gradient, pullback, (time_derivative, values) = vjp(gradient_in_x, sample.x, has_aux=True)  # type: ignore[misc]
    return gradient, time_derivative, values, _trace(lambda direction: pullback(direction)[0], sample)


def _trace(product: Callable[[Tensor], Tensor], sample: PathSample) -> Tensor:
    """Return the trace of a batch of square matrices over the free pixels, (B,); `product` multiplies a batch of vectors by them.

    By the sample's probes e, as the mean of e . M e, or exactly, one basis vector after the other.
    """

    def along(direction: Tensor) -> Tensor:
        direction = sample.conditioning.restrict(direction)
        return (product(direction) * direction).flatten(1).sum(dim=1)

    if sample.probes is not None:
        return vmap(along, in_dims=1)(sample.probes).mean(dim=0)
    size = sample.x[0].numel()
    basis = torch.eye(size, dtype=sample.x.dtype, device=sample.x.device).reshape(size, 1, *sample.x.shape[1:])
    return vmap(along, chunk_size=64)(basis.expand(size, *sample.x.shape)).sum(dim=0)
