"""The action-matching losses (Neklyudov et al., arXiv 2210.06662), for each type of dynamics in two forms.

Symbols: s(t, x) is the action, y = grad_x s, c* the conjugate of the transport cost (1/2 |y|^2 except for `ConvexCost`), q_t the marginals,
u_t = d/dt x_t the velocity along a path, w(t) >= 0 a weight, p(t) the density of the times, m_t the mass of a sample, r_t = d/dt log m_t,
sigma(t) the noise of entropic dynamics and lambda the rate of unbalanced ones. Sums of squares are over all but the batch dimension.

Marginal form (theorem 2.2 and section 3 of the paper, weighted). It needs samples of q_t, with their masses, and nothing else:

    L = E_q0[w(0) s_0] - E_q1[w(1) s_1] + E_{t ~ p} 1/p(t) E_qt[ w(t) (c*(y) + d_t s + sigma^2/2 Laplacian s + lambda/2 s^2) + w'(t) s ]

with the Laplacian for entropic dynamics only and the square for unbalanced dynamics only.

Conditional form. It needs the velocity of the paths. Along a path of a pair z,

    d/dt [m w s_t(x_t)] = m (w' s + w (d_t s + y . u + r s)).

Integrated over t, this replaces the boundary terms, d_t s and w' by -E m w (y . u + r s). Integration by parts against the Gaussian
q_t(. | x_1) replaces the Laplacian by -E y . grad log q_t(x_t | x_1). Completing the squares gives

    L = E_{t ~ p} w(t)/p(t) E m_t [ c*(y) + c(u') - y . u' + lambda/2 (s - r_t/lambda)^2 ] + const,
    u' = u + sigma^2/2 grad log q_t(x_t | x_1),

where the first three terms are the Fenchel-Young loss, 1/2 |y - u'|^2 for the quadratic cost. Both forms have the same minimiser and the
same expected gradient. The conditional form has a much smaller variance, no derivative in t and no third derivatives.

A loss is a module that contains the action. So it can be wrapped for distributed training and compiled as a whole.
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
        loss: the loss of each sample, shape (B,); its mean is minimised.
        interior: the integrand at the time of the sample, before the division by p(t), (B,), detached.
        terms: parts of the loss by name, for logs, each (B,), detached.
    """

    loss: Tensor
    interior: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


class ActionMatchingLoss(nn.Module):
    """Base of the losses.

    Args:
        action: s(t, x).
        path: the path of the samples.
        dynamics: type of the dynamics; balanced by default.
        weight: w(t).

    Raises:
        UserError: if these dynamics cannot be learned on the path in this form; the message says what can.
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
        """Whether the loss needs samples of both ends: `path.sample(..., boundary=loss.needs_boundary)`."""
        return False

    @property
    def needs_score(self) -> bool:
        """Whether the loss needs the conditional score: `path.sample(..., score=loss.needs_score)`."""
        return False

    def check(self) -> None:
        """Refuse dynamics that cannot be learned on the path."""

    def forward(self, sample: PathSample) -> LossTerms:
        """Return the per-sample terms for a batch of samples of the path."""
        raise TypeError("use one of the forms: ConditionalLoss, MarginalLoss")


class ConditionalLoss(ActionMatchingLoss):
    """The conditional form: regression of grad s, and for unbalanced dynamics of s, on the velocity and the growth of the paths.

        loss = w(t)/p(t) m [ c*(y) + c(u') - y . u' + lambda/2 (s - r/lambda)^2 ],    u' = u + sigma^2/2 grad log q_t(x_t | x_1)

    For balanced dynamics this is w(t)/(2 p(t)) |grad s - u|^2.

    Example:
        >>> import torch
        >>> from amgen.actions import DotAction, UNet
        >>> from amgen.losses import ConditionalLoss
        >>> from amgen.paths import LinearPath
        >>> action = DotAction(UNet(channels=1, size=8, width=8, multipliers=[1, 2], blocks=1, out_channels=1))
        >>> loss = ConditionalLoss(action, LinearPath())
        >>> sample = loss.path.sample(torch.rand(4), torch.randn(4, 1, 8, 8), torch.rand(4, 1, 8, 8))
        >>> terms = loss(sample)
        >>> terms.loss.shape, list(terms.terms)
        (torch.Size([4]), ['velocity_error'])
        >>> terms.loss.mean().backward()
    """

    @property
    def needs_score(self) -> bool:
        """True for entropic dynamics."""
        return isinstance(self.dynamics, Entropic)

    def check(self) -> None:
        """Refuse entropic dynamics if the conditional score does not exist or the loss has no finite variance."""
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
        """Return the target u' of the gradient, (B, ...)."""
        if not isinstance(self.dynamics, Entropic):
            return sample.velocity
        if sample.score is None:
            raise ValueError("entropic dynamics need the conditional score: path.sample(..., score=True)")
        half_variance = 0.5 * self.dynamics.sigma(before_end(sample.t)).square()  # at the time of the score
        return sample.velocity + expand(half_variance, sample.x) * sample.score


class MarginalLoss(ActionMatchingLoss):
    """The marginal form, the loss of the paper: it needs samples of the marginals q_t and of both ends, and no velocities.

        loss = w(0) m_0 s_0(x_0) - w(1) m_1 s_1(x_1) + m/p(t) [ w (c*(y) + d_t s + sigma^2/2 Laplacian s + lambda/2 s^2) + w' s ]

    The Laplacian of entropic dynamics is Hutchinson's estimate from the probes of the sample, or exact if it has none.

    Example:
        >>> import torch
        >>> from amgen.actions import DotAction, UNet
        >>> from amgen.losses import MarginalLoss
        >>> from amgen.paths import LinearPath
        >>> action = DotAction(UNet(channels=1, size=8, width=8, multipliers=[1, 2], blocks=1, out_channels=1))
        >>> loss = MarginalLoss(action, LinearPath())
        >>> noise, data = torch.randn(4, 1, 8, 8), torch.rand(4, 1, 8, 8)
        >>> sample = loss.path.sample(torch.rand(4), noise, data, boundary=loss.needs_boundary)
        >>> terms = loss(sample)
        >>> terms.loss.shape, list(terms.terms)
        (torch.Size([4]), ['kinetic', 'boundary'])
    """

    # Interior and boundaries are evaluated in one pass each. In a single pass the inner gradient would go through the boundaries as well,
    # without need: a step took 1.4 to 1.6 times as long.

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
        """Return w(0) m_0 s_0(x_0) - w(1) m_1 s_1(x_1), (B,), by one pass over the ends with a positive weight.

        If the boundary is that of a cell [a, b] of times, it is that of a and b, divided by (b - a) p(t): see `amgen.paths.cells`.
        """
        boundary = sample.boundary
        if boundary is None:
            raise ValueError("the marginal form needs samples of both ends: path.sample(..., boundary=True)")
        ends: list[tuple[Tensor, float | Tensor, Tensor, Tensor | None]]
        if boundary.cell is None:
            both = [
                (0.0, self.weight.at_start, boundary.start, boundary.start_mass),
                (1.0, -self.weight.at_end, boundary.end, boundary.end_mass),
            ]
            ends = [(torch.full_like(sample.t, time), sign, x, mass) for time, sign, x, mass in both if sign != 0]
        else:
            first, last = boundary.cell
            scale = 1 / ((last - first) * sample.density)
            ends = [
                (first, self.weight(first) * scale, boundary.start, boundary.start_mass),
                (last, -self.weight(last) * scale, boundary.end, boundary.end_mass),
            ]
        if not ends:
            return torch.zeros_like(sample.t)
        count = len(ends)
        action = self.action(
            torch.cat([time for time, *_ in ends]),
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
    """Return grad_x s, d_t s, s and the Laplacian of s at the points of the sample; training then needs third derivatives."""

    def total(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        values = evaluate(t, x)
        return values.sum(), values

    def gradient_in_x(x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        (time_derivative, gradient), values = grad(total, argnums=(0, 1), has_aux=True)(sample.t, x)
        return sample.conditioning.restrict(gradient), (time_derivative, values)

    gradient, pullback, (time_derivative, values) = vjp(gradient_in_x, sample.x, has_aux=True)  # type: ignore[misc]
    return gradient, time_derivative, values, _trace(lambda direction: pullback(direction)[0], sample)


def _trace(product: Callable[[Tensor], Tensor], sample: PathSample) -> Tensor:
    """Return the trace over the free pixels of a batch of square matrices M, (B,); `product` returns M times a batch of vectors.

    It is the mean of e . M e over the probes e of the sample, or exact, by one product for each basis vector.
    """

    def along(direction: Tensor) -> Tensor:
        direction = sample.conditioning.restrict(direction)
        return (product(direction) * direction).flatten(1).sum(dim=1)

    if sample.probes is not None:
        return vmap(along, in_dims=1)(sample.probes).mean(dim=0)
    size = sample.x[0].numel()
    basis = torch.eye(size, dtype=sample.x.dtype, device=sample.x.device).reshape(size, 1, *sample.x.shape[1:])
    return vmap(along, chunk_size=64)(basis.expand(size, *sample.x.shape)).sum(dim=0)
