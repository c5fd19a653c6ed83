"""Both forms of the loss against each other, against closed forms and against plain autograd."""

import numpy as np
import pytest
import torch
from helpers import small_action
from torch import Tensor

from amgen.actions import Action
from amgen.dynamics import Entropic
from amgen.losses import TIME_WEIGHTS, ActionMatchingLoss, ConditionalLoss, MarginalLoss, TimeWeight
from amgen.paths import AffinePath, LinearPath, PathSample, SuperResolutionPath, TrigonometricPath

DIMENSION = 3


def integrate_over_time(loss: ActionMatchingLoss, x_0: Tensor, x_1: Tensor, nodes: int = 48) -> Tensor:
    """Integrate a loss over t in [0, 1] along each pair by Gauss-Legendre quadrature, shape (B,)."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    total = torch.zeros(len(x_0), dtype=x_0.dtype, device=x_0.device)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        t = torch.full((len(x_0),), point, dtype=x_0.dtype, device=x_0.device)
        total = total + weight * loss(LinearPath().sample(t, x_0, x_1, boundary=True, score=True)).loss
    return total


@pytest.mark.parametrize("weight", TIME_WEIGHTS)
def test_forms_differ_by_the_kinetic_energy_of_the_path(weight: str, device: torch.device, dtype: torch.dtype) -> None:
    """Along each pair of ends, the integral of the marginal form is that of the conditional one minus int w 1/2 |u|^2.

    The integrands are smooth (highest frequency 3), so 48 Gauss nodes are exact to rounding: 1e-10 in float64 and 1e-4 in float32.
    """
    x_0, x_1 = torch.randn(2, 5, DIMENSION, dtype=dtype, device=device)
    action = small_action(DIMENSION, dtype, device)
    time_weight = TimeWeight(TIME_WEIGHTS[weight])
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4

    def gradients(values: Tensor) -> Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(values.sum(), list(action.parameters()))])

    marginal = integrate_over_time(MarginalLoss(action, LinearPath(), weight=time_weight), x_0, x_1)
    conditional = integrate_over_time(ConditionalLoss(action, LinearPath(), weight=time_weight), x_0, x_1)
    kinetic = 0.5 * (x_1 - x_0).square().sum(dim=1) * {"constant": 1, "1-t": 1 / 2, "(1-t)^2": 1 / 3}[weight]
    torch.testing.assert_close(marginal, conditional - kinetic, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradients(marginal), gradients(conditional), rtol=100 * tolerance, atol=100 * tolerance)


class GaussianAction(torch.nn.Module):
    """The optimal action between N(0, I) and N(m, diag(c^2)) on the linear path, with free coefficients around it.

    q_t has mean t m and variances V = (1-t)^2 + t^2 c^2, so v_i = m_i + V_i' / (2 V_i) (x_i - t m_i).
    """

    def __init__(self, mean: Tensor, scale: Tensor):
        super().__init__()
        self.mean, self.scale = mean, scale
        self.slope = torch.nn.Parameter(torch.ones_like(mean))
        self.offset = torch.nn.Parameter(torch.zeros_like(mean))

    def forward(
        self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None, dropout_seeds: Tensor | None = None
    ) -> Tensor:
        t = t[:, None]
        variance = (1 - t) ** 2 + t**2 * self.scale**2
        rate = (t * self.scale**2 - (1 - t)) / variance
        centred = x - t * self.mean
        return ((self.mean + self.offset) * centred + 0.5 * self.slope * rate * centred**2).sum(dim=1)

    def velocity(self, t: Tensor, x: Tensor) -> Tensor:
        variance = (1 - t[:, None]) ** 2 + t[:, None] ** 2 * self.scale**2
        return self.mean + (t[:, None] * self.scale**2 - (1 - t[:, None])) / variance * (x - t[:, None] * self.mean)


@pytest.fixture
def gaussian(device: torch.device, dtype: torch.dtype) -> GaussianAction:
    mean = torch.tensor([1.0, -2.0, 0.5], dtype=dtype, device=device)
    return GaussianAction(mean, torch.tensor([0.5, 1.5, 1.0], dtype=dtype, device=device))


def draw(action: GaussianAction, count: int) -> PathSample:
    x_0 = torch.randn(count, DIMENSION).to(action.mean)
    x_1 = action.mean + action.scale * torch.randn(count, DIMENSION).to(action.mean)
    t = ((torch.arange(count) + torch.rand(1)) / count).to(action.mean)
    return LinearPath().sample(t, x_0, x_1, boundary=True, score=True)


@pytest.mark.parametrize("form", [ConditionalLoss, MarginalLoss])
@pytest.mark.parametrize("weight", TIME_WEIGHTS)
def test_gradient_vanishes_at_the_gaussian_optimum(form: type[ActionMatchingLoss], weight: str, gaussian: GaussianAction) -> None:
    """At the closed form the mean gradient over 200 batches is zero to within 4 standard errors, for all six coefficients.

    A displaced action must fail the same test, so that it can tell.
    """
    loss = form(gaussian, LinearPath(), weight=TimeWeight(TIME_WEIGHTS[weight]))  # type: ignore[arg-type]

    def z_scores() -> Tensor:
        gradients = []
        for _ in range(200):
            mean = loss(draw(gaussian, 256)).loss.mean()
            gradients.append(torch.cat(torch.autograd.grad(mean, [gaussian.slope, gaussian.offset])))
        stacked = torch.stack(gradients)
        return (stacked.mean(dim=0) / (stacked.std(dim=0) / len(stacked) ** 0.5)).abs()

    assert z_scores().max() < 4
    with torch.no_grad():
        gaussian.slope += 0.2
        gaussian.offset += 0.2
    assert z_scores().max() > 8


@pytest.mark.parametrize(("form", "steps", "tolerance"), [(ConditionalLoss, 600, 0.003), (MarginalLoss, 1500, 0.004)])
def test_training_recovers_the_gaussian_velocity(
    form: type[ActionMatchingLoss], steps: int, tolerance: float, gaussian: GaussianAction, device: torch.device
) -> None:
    """A small network trained by each form reaches the analytic velocity: relative mean squared error below `tolerance`.

    Seeds 0 to 2 reach 0.0006 to 0.0009 (conditional) and 0.0011 to 0.0012 (marginal); the tolerances are about three times that. The
    marginal form has more variance, hence more steps and a wider tolerance. An untrained network is near 1.
    """
    gaussian = gaussian.float()
    gaussian.mean, gaussian.scale = gaussian.mean.float(), gaussian.scale.float()
    action = small_action(DIMENSION, torch.float32, device, width=64)
    loss = form(action, LinearPath())
    optimizer = torch.optim.Adam(action.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(draw(gaussian, 512)).loss.mean().backward()
        optimizer.step()
        schedule.step()
    assert relative_error(action, gaussian) < tolerance


def relative_error(action: Action, gaussian: GaussianAction) -> float:
    from amgen.dynamics import Dynamics

    sample = draw(gaussian, 4000)
    truth = gaussian.velocity(sample.t, sample.x)
    return float((Dynamics(action).velocity(sample.t, sample.x) - truth).square().mean() / truth.square().mean())


@pytest.mark.parametrize("form", [ConditionalLoss, MarginalLoss])
def test_importance_density_divides_the_interior(form: type[ActionMatchingLoss], dtype: torch.dtype, device: torch.device) -> None:
    """With p(t) = 2 the interior counts half, the boundary in full."""
    action = small_action(DIMENSION, dtype, device)
    loss = form(action, LinearPath())
    x_0, x_1 = torch.randn(2, 4, DIMENSION, dtype=dtype, device=device)
    t = torch.rand(4, dtype=dtype, device=device)
    once = loss(LinearPath().sample(t, x_0, x_1, boundary=True, score=True))
    half = loss(LinearPath().sample(t, x_0, x_1, density=torch.full_like(t, 2), boundary=True, score=True))
    boundary = once.terms.get("boundary", torch.zeros_like(t))
    torch.testing.assert_close(half.loss - boundary, (once.loss - boundary) / 2)


@pytest.mark.parametrize("form", [ConditionalLoss, MarginalLoss])
def test_gradient_matches_plain_autograd(form: type[ActionMatchingLoss], dtype: torch.dtype, device: torch.device) -> None:
    """The torch.func implementation and a plain double backward of the same formula agree to rounding."""
    action = small_action(DIMENSION, dtype, device)
    x_0, x_1 = torch.randn(2, 6, DIMENSION, dtype=dtype, device=device)
    t = torch.rand(6, dtype=dtype, device=device)
    sample = LinearPath().sample(t, x_0, x_1, boundary=True, score=True)

    x, time = sample.x.clone().requires_grad_(), t.clone().requires_grad_()
    velocity, time_derivative = torch.autograd.grad(action(time, x).sum(), [x, time], create_graph=True)
    if form is ConditionalLoss:
        plain = 0.5 * (velocity - (x_1 - x_0)).square().sum(dim=1)
    else:
        boundary = action(torch.zeros_like(t), x_0) - action(torch.ones_like(t), x_1)
        plain = boundary + 0.5 * velocity.square().sum(dim=1) + time_derivative

    ours = form(action, LinearPath())(sample).loss
    torch.testing.assert_close(ours, plain)
    parameters = list(action.parameters())
    expected = torch.autograd.grad(plain.mean(), parameters, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(ours.mean(), parameters), expected)


@pytest.mark.parametrize("weight", TIME_WEIGHTS)
def test_weight_derivative_matches_finite_differences(weight: str) -> None:
    """Central differences of quadratics are exact up to rounding over the step: 1e-9."""
    function = TimeWeight(TIME_WEIGHTS[weight])
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    step = 1e-5
    torch.testing.assert_close(function.derivative(t), (function(t + step) - function(t - step)) / (2 * step), rtol=0, atol=1e-9)
    assert function.at_start == 1
    assert function.at_end == (1 if weight == "constant" else 0)


def test_zero_weight_boundary_is_not_evaluated() -> None:
    """With w(1) = 0 the network sees t = 0 and the interior, and nothing at t = 1."""
    seen: list[Tensor] = []

    class Spy(torch.nn.Module):
        def forward(
            self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None, dropout_seeds: Tensor | None = None
        ) -> Tensor:
            seen.append(t.detach() if not torch._C._functorch.is_gradtrackingtensor(t) else torch.full((1,), 0.5))
            return (x**2).sum(dim=1) * t

    x_0, x_1 = torch.randn(2, 4, DIMENSION)
    MarginalLoss(Spy(), LinearPath(), weight=TimeWeight(TIME_WEIGHTS["1-t"]))(
        LinearPath().sample(torch.rand(4), x_0, x_1, boundary=True, score=True)
    )  # type: ignore[arg-type]
    assert torch.cat(seen).max() < 1
    assert torch.cat(seen).min() == 0


class AtRest(torch.nn.Module):
    """s = 0, so that the conditional loss is half the square of its target."""

    def forward(self, t: Tensor, x: Tensor, *rest: Tensor | None) -> Tensor:
        return 0 * x.flatten(1).sum(dim=1)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("path", [LinearPath(), TrigonometricPath(), SuperResolutionPath(2)], ids=lambda path: type(path).__name__)
def test_entropic_targets_have_their_limit_at_the_data(path: AffinePath, precision: torch.dtype) -> None:
    """At exactly t = 1 sigma is 0 and the score -eps/a infinite. u + sigma^2/2 score is u - S^2/2 eps for sigma = S sqrt(a), and u for

    S (1 - t). Before the end it is the quotient itself. Known pixels have neither noise nor velocity.
    """
    noise, data = torch.randn(3, 1, 4, 4, dtype=precision), torch.rand(3, 1, 4, 4, dtype=precision)
    t = torch.tensor([0.0, 0.5, 1.0], dtype=precision)
    sample = path.sample(t, noise, data, score=True)
    a = path.noise_scale(t)
    schedules = (
        (lambda t: 1.5 * path.noise_scale(t).sqrt(), torch.full((3,), 1.5**2, dtype=precision)),
        (lambda t: 1.5 * (1 - t), torch.stack([*((1.5 * (1 - t)) ** 2 / a)[:2], torch.zeros((), dtype=precision)])),
    )
    for sigma, variance_over_scale in schedules:
        target = sample.velocity - sample.conditioning.restrict(0.5 * variance_over_scale[:, None, None, None] * noise)
        found = ConditionalLoss(AtRest(), path, Entropic(sigma))(sample).loss  # type: ignore[arg-type]
        torch.testing.assert_close(found, 0.5 * target.square().flatten(1).sum(dim=1), rtol=1e-5, atol=1e-5)


def test_a_weight_that_vanishes_at_the_data_keeps_constant_noise_finite() -> None:
    """With w = 1 - t the loss of constant sigma is 0 at t = 1, whatever the drift."""
    sample = LinearPath().sample(torch.ones(2), torch.randn(2, DIMENSION), torch.randn(2, DIMENSION), score=True)
    loss = ConditionalLoss(AtRest(), LinearPath(), Entropic(torch.ones_like), TimeWeight(TIME_WEIGHTS["1-t"]))  # type: ignore[arg-type]
    assert loss(sample).loss.tolist() == [0, 0]
