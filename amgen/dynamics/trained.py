"""The dynamics of a trained action: velocity, growth, score, divergence and kinetic energy, without an autograd graph."""

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
"""Number of vector-Jacobian products that are computed together, over the batch; it bounds the memory of a divergence."""


@dataclass(frozen=True)
class MarginalNoise:
    """The noise g(t) = G sqrt(a_t) of an SDE with the same marginals as balanced dynamics,

        dx = (v + g^2/2 grad log q_t) dt + g dW.

    The score grad log q_t = -E[eps | x_t] / a_t grows without bound towards the data, where a_t = 0. g^2 vanishes there too, and g^2 / a_t
    is G^2 at every t.

    Attributes:
        level: G > 0.
        path: the path that the action was trained on.

    Raises:
        UserError: for a path without a noise scale a_t.

    Example:
        >>> import torch
        >>> from amgen.dynamics import MarginalNoise
        >>> from amgen.paths import LinearPath
        >>> MarginalNoise(2.0, LinearPath()).scale(torch.tensor([0.0, 0.75, 1.0])).tolist()
        [2.0, 1.0, 0.0]
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
        """Return g(t)^2 / a_t at times (B,), shape (B,); at t = 1, where both are zero, its limit."""
        return torch.full_like(t, self.level**2)


class Dynamics:
    """The dynamics of samples that an action describes.

    The action is evaluated through a frozen view: in eval mode, and without gradients in its parameters. The network itself is not touched,
    neither its modes nor its flags, so that it may be trained at the same time, in another thread too. The view shares the weights: it
    follows every optimiser step.

    Times are a scalar or one for each sample, (B,). Points are (B, ...).

    Args:
        action: s(t, x).
        dynamics: type of the dynamics; balanced by default.
        path: the path that the action was trained on, needed for the score.
        label: classes, int64 (B,), of a class-conditional action.
        conditioning: condition and free pixels of a conditional path. Known pixels do not move.
        guidance: g of classifier-free guidance, grad s = (1 - g) grad s(no class) + g grad s(class) (arXiv 2207.12598, with g = 1 + w).
        no_label: the label for no class; needed unless `guidance` is 1.
        noise: noise of an SDE with the same marginals as balanced dynamics; None for the ODE.

    Attributes:
        evaluations: number of evaluations of the action's gradient on a batch (NFE).

    Raises:
        UserError: for guidance without classes.

    Example:
        >>> import torch, amgen
        >>> from amgen.dynamics import Dynamics
        >>> from amgen.solvers import Heun, StepGrid
        >>> model = amgen.load("runs/digits")
        >>> dynamics = Dynamics(model.action, path=model.path)
        >>> x = Heun(StepGrid(4)).solve(dynamics.velocity, torch.randn(2, 1, 8, 8))
        >>> x.shape, dynamics.evaluations
        (torch.Size([2, 1, 8, 8]), 8)
        >>> dynamics.score(0.5, x).shape, dynamics.divergence(0.5, x).shape
        (torch.Size([2, 1, 8, 8]), torch.Size([2]))
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
        """Return dx/dt and d(log weight)/dt, (B,), from one evaluation; the growth is zero unless the dynamics are unbalanced."""
        velocity, action = self._evaluate(t, x)
        return velocity, self.dynamics.rate * action if isinstance(self.dynamics, Unbalanced) else torch.zeros_like(action)

    def growth(self, t: Tensor | float, x: Tensor) -> Tensor:
        """Return d(log weight)/dt = lambda s, (B,)."""
        return self.velocity_and_growth(t, x)[1]

    def drift(self, t: Tensor | float, x: Tensor) -> Tensor:
        """Return b of dx = b dt + g dW, shaped like `x`: the velocity, plus g^2/2 times the score if there is `noise`.

        g^2 grad log q_t is computed as -(g^2/a) E[eps | x_t]: both factors have a limit at t = 1.
        """
        velocity = self.velocity(t, x)
        if self.noise is None:
            return velocity
        path, times = self._gaussian_path(), self._times(t, x)
        share = self.noise.square_over_noise(times)
        return velocity - 0.5 * expand(share, x) * path.posterior_noise(times, x, velocity, self.conditioning)

    def diffusion(self, t: Tensor | float, x: Tensor) -> Tensor:
        """Return g(t), the factor of dW, broadcastable to `x`: zero on known pixels and for dynamics without noise."""
        times = self._times(t, x)
        if isinstance(self.dynamics, Entropic):
            return self.conditioning.restrict(expand(self.dynamics.sigma(times), x))
        return self.conditioning.restrict(expand(torch.zeros_like(times) if self.noise is None else self.noise.scale(times), x))

    def score(self, t: Tensor | float, x: Tensor) -> Tensor:
        """Return grad log q_t, shaped like `x`, from the velocity, for t < 1.

        It is exact for balanced dynamics on a path that is Gaussian given the data, with noise that is independent of the data.

        Raises:
            UserError: for other paths and dynamics.
        """
        return self._gaussian_path().score(self._times(t, x), x, self.velocity(t, x), self.conditioning)

    def divergence(self, t: Tensor | float, x: Tensor, probes: Tensor | None = None) -> Tensor:
        """Return div v over the free pixels, (B,).

        Args:
            t: times.
            x: points.
            probes: random signs (B, P, ...) for Hutchinson's unbiased estimate from P probes. Without them the divergence is exact and
                needs one vector-Jacobian product for each dimension.
        """
        return self.velocity_and_divergence(t, x, probes)[1].mean(dim=1)

    def velocity_and_divergence(self, t: Tensor | float, x: Tensor, probes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return dx/dt, shaped like `x`, and the estimates of div v, one for each probe, (B, P), from one evaluation of the gradient.

        Without probes the divergence is exact, (B, 1). Arguments as for `divergence`.
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
        """Return 1/2 |v|^2, (B,); its mean over q_t and t is the kinetic action of the learned dynamics."""
        return 0.5 * self.velocity(t, x).square().flatten(1).sum(dim=1)

    def _gaussian_path(self) -> Path:
        if self.path is None or not isinstance(self.dynamics, Balanced):
            raise UserError("the score is known for balanced dynamics on a known path only: give Dynamics the path of its training")
        return self.path

    def _times(self, t: Tensor | float, x: Tensor) -> Tensor:
        return torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(len(x))

    def _evaluate(self, t: Tensor | float, x: Tensor, differentiable: bool = False) -> tuple[Tensor, Tensor]:
        """Return the velocity and s; if `differentiable`, torch.func can differentiate both again."""
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
        """The frozen view of the action, which is made again if the action was moved or cast."""
        if not all(own.data_ptr() == other.data_ptr() for own, other in self._parameters):
            self._view = frozen_view(self.action)
            self._parameters = list(zip(self._view.parameters(), self.action.parameters(), strict=True))
        return self._view

    def _gradient(self, t: Tensor | float, x: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return grad s and s, detached, by one backward pass."""
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
