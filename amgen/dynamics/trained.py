"""What a trained action gives: velocity, growth, score, divergence and kinetic energy, without leaving an autograd graph behind."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, vjp, vmap

from amgen.actions import Action, frozen_view
from amgen.core.errors import UserError
from amgen.dynamics.types import Balanced, DynamicsType, Entropic, Unbalanced
from amgen.paths import Conditioning, Path
from amgen.paths.base import expand

JACOBIAN_PRODUCTS = 256
"""Products of one sample's Jacobian with a vector that are computed at once, which bounds the memory of a divergence."""


@dataclass(frozen=True)
class MarginalNoise:
    """The noise g(t) = G sqrt(a_t) of an SDE with the marginals of balanced dynamics, dx = (v + g^2/2 score) dt + g dW.

    The score -E[eps | x_t] / a_t grows without bound as a_t vanishes towards the data, and g^2 vanishes with it: g^2/a = G^2 at every t.

    Attributes:
        level: G > 0.
        path: the path that the dynamics were learned on.

    Raises:
        UserError: for a path that has no noise scale a_t.
    """

    level: float
    path: Path

    def __post_init__(self) -> None:
        if self.path.noise_scale(torch.ones(1)) is None:
            raise UserError(f"{type(self.path).__name__} is not Gaussian given the data: there is no noise that keeps its marginals")

    def scale(self, t: Tensor) -> Tensor:
        """Return g(t) at times (B,), shape (B,)."""
        noise = self.path.noise_scale(t)
        assert noise is not None  # refused above
        return self.level * noise.sqrt()

    def square_over_noise(self, t: Tensor) -> Tensor:
        """Return g(t)^2 / a_t at times (B,), shape (B,); at t = 1, where both vanish, its limit."""
        return torch.full_like(t, self.level**2)


class Dynamics:
    """The motion of samples that a trained action describes.

    The action is evaluated as in eval mode and without a graph for its parameters, and left as it was: a network that is being trained
    can be looked at in between. (It is switched while it is evaluated, so two threads should not share one that is not frozen.)

    Times are one scalar or one for each sample, (B,); points are (B, ...).

    Args:
        action: s(t, x).
        kind: what the gradient of s does to samples; balanced by default.
        path: the path that the action was trained on, for the score.
        label: classes, int64 (B,), of a class-conditional action.
        given: condition and free pixels, where the path gives some. Known pixels do not move.
        guidance: g of classifier-free guidance, grad s = (1 - g) grad s(no class) + g grad s(class) (arXiv 2207.12598, with g = 1 + w).
        no_label: the label that stands for no class; needed where `guidance` is not 1.
        noise: that of an SDE with the marginals of balanced dynamics; None for the ODE.

    Attributes:
        evaluations: how many times the gradient of the action has been evaluated on a batch (NFE).
    """

    def __init__(
        self,
        action: Action,
        dynamics: DynamicsType | None = None,
        path: Path | None = None,
        label: Tensor | None = None,
        conditioning: Conditioning | None = None,
        guidance: float = 1.0,
        no_label: int | None = None,
        noise: MarginalNoise | None = None,
    ):
        self.action = action
        self._view = frozen_view(action)
        self._parameters = list(zip(self._view.parameters(), action.parameters(), strict=True))
        self.dynamics = Balanced() if dynamics is None else dynamics
        self.path = path
        self.label = label
        self.conditioning = Conditioning() if conditioning is None else conditioning
        self.guidance = guidance
        self.no_label = no_label
        self.noise = noise
        if guidance != 1 and (label is None or no_label is None):
            raise UserError(f"guidance={guidance} needs classes and an action that was also trained without them (action.label_dropout)")
        self.evaluations = 0

    def velocity(self, t: Tensor | float, x: Tensor) -> Tensor:
        """Return dx/dt, or the drift of entropic dynamics, shaped like `x`."""
        return self.velocity_and_growth(t, x)[0]

    def velocity_and_growth(self, t: Tensor | float, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return dx/dt and d(log weight)/dt, (B,), from one evaluation; growth is zero but for unbalanced dynamics."""
        velocity, action = self._evaluate(t, x)
        return velocity, self.dynamics.rate * action if isinstance(self.dynamics, Unbalanced) else torch.zeros_like(action)

    def growth(self, t: Tensor | float, x: Tensor) -> Tensor:
        """Return d(log weight)/dt = lambda s, (B,)."""
        return self.velocity_and_growth(t, x)[1]

    def drift(self, t: Tensor | float, x: Tensor) -> Tensor:
        """Return b of dx = b dt + g dW, shaped like `x`: the velocity, and half of g^2 times the score where `noise` is given.

        g^2 score is taken as -(g^2/a) E[eps | x_t], of which both factors have a limit at t = 1.
        """
        velocity = self.velocity(t, x)
        if self.noise is None:
            return velocity
        path, times = self._gaussian_path(), self._times(t, x)
        share = self.noise.square_over_noise(times)
        return velocity - 0.5 * expand(share, x) * path.posterior_noise(times, x, velocity, self.conditioning)

    def diffusion(self, t: Tensor | float, x: Tensor) -> Tensor:
        """Return g(t), to be multiplied with dW: broadcastable to `x`, zero on known pixels and for dynamics without noise."""
        times = self._times(t, x)
        if isinstance(self.dynamics, Entropic):
            return self.conditioning.restrict(expand(self.dynamics.sigma(times), x))
        return self.conditioning.restrict(expand(torch.zeros_like(times) if self.noise is None else self.noise.scale(times), x))

    def score(self, t: Tensor | float, x: Tensor) -> Tensor:
        """Return grad log q_t, shaped like `x`, from the velocity, for a path that is Gaussian given the data and t < 1.

        The identity holds for noise that is independent of the data, and for balanced dynamics.

        Raises:
            UserError: for other paths and kinds.
        """
        return self._gaussian_path().score(self._times(t, x), x, self.velocity(t, x), self.conditioning)

    def divergence(self, t: Tensor | float, x: Tensor, probes: Tensor | None = None) -> Tensor:
        """Return div v over the free pixels, (B,).

        Args:
            t: times.
            x: points.
            probes: random signs (B, P, ...) for Hutchinson's unbiased estimate from P probes; by default the divergence is exact, at the
                price of one evaluation for each dimension.
        """
        return self.velocity_and_divergence(t, x, probes)[1].mean(dim=1)

    def velocity_and_divergence(self, t: Tensor | float, x: Tensor, probes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return dx/dt, shaped like `x`, and the estimates of div v, one for each probe, (B, P), from one evaluation of the gradient.

        Without probes the divergence is exact, (B, 1). For the rest see `divergence`.
        """
        size, chunk = x[0].numel(), max(1, JACOBIAN_PRODUCTS // len(x))
        with torch.no_grad():
            velocity, pullback = vjp(lambda point: self._evaluate(t, point, differentiable=True)[0], x)  # type: ignore[misc]

            def along(direction: Tensor) -> Tensor:
                direction = self.conditioning.restrict(direction)
                return (pullback(direction)[0] * direction).flatten(1).sum(dim=1)

            if probes is not None:
                return velocity, vmap(along, in_dims=1, out_dims=1, chunk_size=chunk)(probes)
            basis = torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, 1, *x.shape[1:])
            return velocity, vmap(along, chunk_size=chunk)(basis.expand(size, *x.shape)).sum(dim=0)[:, None]

    def kinetic_energy(self, t: Tensor | float, x: Tensor) -> Tensor:
        """Return 1/2 |v|^2, (B,); its mean over q_t and t is the action of the learned motion."""
        return 0.5 * self.velocity(t, x).square().flatten(1).sum(dim=1)

    def _gaussian_path(self) -> Path:
        if self.path is None or not isinstance(self.dynamics, Balanced):
            raise UserError("the score follows from the velocity of balanced dynamics on a known path alone")
        return self.path

    def _times(self, t: Tensor | float, x: Tensor) -> Tensor:
        return torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(len(x))

    def _evaluate(self, t: Tensor | float, x: Tensor, differentiable: bool = False) -> tuple[Tensor, Tensor]:
        """Return the velocity and s; with `differentiable`, torch.func can differentiate both again."""
        gradient = self._differentiable_gradient if differentiable else self._gradient
        if self.guidance == 1:
            slope, action = gradient(t, x, self.label)
        else:
            assert self.label is not None
            assert self.no_label is not None
            without, with_label = gradient(t, x, torch.full_like(self.label, self.no_label)), gradient(t, x, self.label)
            slope, action = (torch.lerp(a, b, self.guidance) for a, b in zip(without, with_label, strict=True))
        return self.dynamics.velocity(self.conditioning.restrict(slope)), action

    @property
    def _network(self) -> Action:
        """The frozen view of the action, made anew if the action was moved or cast since."""
        if not all(own.data_ptr() == other.data_ptr() for own, other in self._parameters):
            self._view = frozen_view(self.action)
            self._parameters = list(zip(self._view.parameters(), self.action.parameters(), strict=True))
        return self._view

    def _gradient(self, t: Tensor | float, x: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return grad s and s, detached; one backward, whose graph is freed on the way."""
        self.evaluations += 1
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            action = self._network(self._times(t, x), point, label, self.conditioning.condition)
            (slope,) = torch.autograd.grad(action.sum(), point)
        return slope, action.detach()

    def _differentiable_gradient(self, t: Tensor | float, x: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return grad s and s, by torch.func."""
        network = self._network

        def total_action(point: Tensor) -> tuple[Tensor, Tensor]:
            action = network(self._times(t, x), point, label, self.conditioning.condition)
            return action.sum(), action

        self.evaluations += 1
        slope, action = grad(total_action, has_aux=True)(x)
        return slope, action
