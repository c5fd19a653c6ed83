import copy
import math
import threading
from collections.abc import Callable

import pytest
import torch
from helpers import small_action
from torch import Tensor

from amgen.actions import Action, DotAction, TimeOffset, UNet
from amgen.core.errors import UserError
from amgen.dynamics import ConvexCost, Dynamics, Entropic, MarginalNoise, Unbalanced
from amgen.paths import (
    ColourisationPath,
    Conditioning,
    LinearPath,
    Path,
    TorusPath,
    Trigonometric,
    TrigonometricPath,
    VariancePreserving,
    VPPath,
)
from amgen.solvers import StepGrid, make_solver


def test_velocity_is_the_gradient_of_the_action(device: torch.device, dtype: torch.dtype) -> None:
    action = small_action(3, dtype, device)
    x, t = torch.randn(5, 3, dtype=dtype, device=device), torch.rand(5, dtype=dtype, device=device)
    point = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(action(t, point).sum(), point)
    torch.testing.assert_close(Dynamics(action).velocity(t, x), expected)


def test_a_single_time_serves_the_whole_batch(dtype: torch.dtype) -> None:
    dynamics = Dynamics(small_action(3, dtype))
    x = torch.randn(5, 3, dtype=dtype)
    torch.testing.assert_close(dynamics.velocity(0.3, x), dynamics.velocity(torch.full((5,), 0.3, dtype=dtype), x))


def test_no_graph_is_left_and_evaluations_are_counted(dtype: torch.dtype) -> None:
    action = small_action(3, dtype)
    dynamics = Dynamics(action)
    for _ in range(3):
        velocity = dynamics.velocity(0.5, torch.randn(2, 3, dtype=dtype))
    assert not velocity.requires_grad
    assert velocity.grad_fn is None
    assert dynamics.evaluations == 3


class Dropping(torch.nn.Module):
    """A body that loses half of its input while it is trained."""

    def __init__(self, inner: torch.nn.Module):
        super().__init__()
        self.dropout, self.inner = torch.nn.Dropout(0.5), inner

    def forward(self, t: Tensor, x: Tensor, *rest: Tensor | None) -> Tensor:
        return self.inner(t, self.dropout(x), *rest)


def test_a_network_in_training_is_evaluated_frozen_and_left_as_it_was(dtype: torch.dtype) -> None:
    """With dropout, one parameter that is frozen already and one part in eval mode; the velocity is that of a copy in eval mode."""
    action = DotAction(Dropping(small_action(3, dtype).body))
    next(action.parameters()).requires_grad_(False)
    action.body.inner.eval()
    before = [module.training for module in action.modules()], [parameter.requires_grad for parameter in action.parameters()]
    assert sum(before[0]) >= 2
    assert sum(before[1]) >= 2
    x, signs = torch.randn(4, 3, dtype=dtype), torch.ones(4, 1, 3, dtype=dtype)
    copied = Dynamics(copy.deepcopy(action).requires_grad_(False).eval())
    dynamics = Dynamics(action)
    torch.testing.assert_close(dynamics.velocity(0.3, x), copied.velocity(0.3, x), rtol=0, atol=0)
    torch.testing.assert_close(dynamics.divergence(0.3, x, signs), copied.divergence(0.3, x, signs), rtol=0, atol=0)
    with pytest.raises(RuntimeError):
        dynamics.velocity(0.3, x[:, :2])  # an error on the way changes nothing either
    assert ([module.training for module in action.modules()], [parameter.requires_grad for parameter in action.parameters()]) == before
    assert all(parameter.grad is None for parameter in action.parameters())
    action(torch.zeros(4, dtype=dtype), x).sum().backward()  # training goes on
    assert all(parameter.grad is not None for parameter in action.parameters() if parameter.requires_grad)


class Paused(torch.nn.Module):
    """A body that waits in the middle of an evaluation in eval mode until it may go on."""

    def __init__(self, inner: torch.nn.Module):
        super().__init__()
        self.dropout, self.inner = torch.nn.Dropout(0.5), inner
        self.inside, self.resume = threading.Event(), threading.Event()

    def forward(self, t: Tensor, x: Tensor, *rest: Tensor | None) -> Tensor:
        if not self.training:
            self.inside.set()
            assert self.resume.wait(30)
        return self.inner(t, self.dropout(x), *rest)


def test_a_network_is_not_touched_while_another_thread_evaluates_it(dtype: torch.dtype) -> None:
    """In the middle of an evaluation all modes and flags are those of training, and a training pass has dropout and all gradients."""
    action = DotAction(Paused(small_action(3, dtype).body))
    x, found = torch.randn(64, 3, dtype=dtype), []
    expected = Dynamics(DotAction(copy.deepcopy(action.body.inner))).velocity(0.3, x)
    dynamics = Dynamics(action)
    thread = threading.Thread(target=lambda: found.append(dynamics.velocity(0.3, x)))
    thread.start()
    try:
        assert action.body.inside.wait(30)
        assert all(module.training for module in action.modules())
        assert all(parameter.requires_grad for parameter in action.parameters())
        values = [action(torch.full((64,), 0.3, dtype=dtype), x) for _ in range(2)]
        assert not torch.equal(*values)
        values[0].sum().backward()
        assert all(parameter.grad is not None for parameter in action.parameters())
    finally:
        action.body.resume.set()
        thread.join()
    torch.testing.assert_close(found[0], expected, rtol=0, atol=0)


def test_training_is_seen_and_so_is_a_cast(dtype: torch.dtype) -> None:
    """Steps of an optimiser, loaded weights and another type change what dynamics made before give, as they change the action."""
    action, x = small_action(3, dtype), torch.randn(5, 3, dtype=dtype)
    dynamics = Dynamics(action)
    kept, first = copy.deepcopy(action.state_dict()), dynamics.velocity(0.3, x)
    optimizer = torch.optim.Adam(action.parameters(), 0.1)
    action(torch.zeros(5, dtype=dtype), x).sum().backward()
    optimizer.step()
    second = dynamics.velocity(0.3, x)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(second, Dynamics(copy.deepcopy(action)).velocity(0.3, x), rtol=0, atol=0)
    action.load_state_dict(kept)
    torch.testing.assert_close(dynamics.velocity(0.3, x), first, rtol=0, atol=0)
    action.float()
    assert dynamics.velocity(0.3, x.float()).dtype == torch.float32
    torch.testing.assert_close(dynamics.velocity(0.3, x.float()), first.float(), rtol=1e-4, atol=1e-4)


class Watched(torch.nn.Module):
    """An action that notes which leaves the graph of its value reaches, and so asks gradients for."""

    def __init__(self, action: Action):
        super().__init__()
        self.inner = action
        self.leaves: list[Tensor] = []

    def forward(self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        value = self.inner(t, x, label, condition)
        nodes = [value.grad_fn]
        seen = set(nodes)
        while nodes:
            node = nodes.pop()
            if hasattr(node, "variable"):
                self.leaves.append(node.variable)
            following = {after for after, _ in node.next_functions if after is not None} - seen
            seen |= following
            nodes += following
        return value


def test_no_graph_is_made_for_weights() -> None:
    """Sampling reaches x alone, from a U-Net with attention; weights that are not frozen would be reached, which shows that one looks."""
    body = UNet(channels=1, size=4, width=8, multipliers=[1, 2], blocks=1, attention=[2], out_channels=1)
    action = Watched(DotAction(body))
    action(torch.zeros(2), torch.zeros(2, 1, 4, 4))
    assert len(action.leaves) > 10
    action.leaves.clear()
    dynamics, start = Dynamics(action), torch.randn(2, 1, 4, 4)  # type: ignore[arg-type]
    kept = start.clone()
    end = make_solver("rk4", StepGrid(2), 1e-3).solve(dynamics.velocity, start)  # type: ignore[call-arg, arg-type]
    assert dynamics.evaluations == 8
    assert len(action.leaves) == 8
    assert all(leaf.shape == start.shape for leaf in action.leaves)
    assert all(parameter.grad is None for parameter in action.parameters())
    assert end.grad_fn is None
    assert not start.requires_grad
    assert torch.equal(start, kept)


def jacobians(velocity: object, x: Tensor) -> Tensor:
    """Jacobian of a velocity field at each point, by autograd, (B, D, D)."""
    return torch.stack([torch.autograd.functional.jacobian(lambda p: velocity(p[None])[0], point) for point in x])  # type: ignore[operator]


def differentiable_velocity(action: Action, t: float, x: Tensor) -> Tensor:
    return torch.func.grad(lambda p: action(torch.full((len(p),), t, dtype=p.dtype), p).sum())(x)


def test_divergence_is_the_trace_of_the_jacobian(dtype: torch.dtype) -> None:
    """Exact, from all sign patterns in two dimensions, and over the free pixels alone; no graph is left."""
    action = small_action(2, dtype)
    x = torch.randn(5, 2, dtype=dtype)
    jacobian = jacobians(lambda p: differentiable_velocity(action, 0.3, p), x)
    dynamics = Dynamics(action)
    exact = dynamics.divergence(0.3, x)
    torch.testing.assert_close(exact, jacobian.diagonal(dim1=1, dim2=2).sum(dim=1))
    assert not exact.requires_grad
    torch.testing.assert_close(dynamics.divergence(0.3, x[:1]), exact[:1])
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]], dtype=dtype).expand(5, 3, 2)
    estimates = dynamics.velocity_and_divergence(0.3, x, signs)[1]
    torch.testing.assert_close(estimates, torch.einsum("pi,bij,pj->bp", signs[0], jacobian, signs[0]))
    torch.testing.assert_close(dynamics.divergence(0.3, x, signs[:, :2]), exact)
    assert dynamics.evaluations == 4
    first = Dynamics(action, conditioning=Conditioning(free=torch.tensor([1.0, 0.0], dtype=dtype)))
    torch.testing.assert_close(first.divergence(0.3, x), jacobian[:, 0, 0])


def test_divergence_of_a_convex_kind_is_that_of_its_velocity(dtype: torch.dtype) -> None:
    action, kind = small_action(2, dtype), ConvexCost(3.0)
    x = torch.randn(4, 2, dtype=dtype)
    jacobian = jacobians(lambda p: kind.velocity(differentiable_velocity(action, 0.3, p)), x)
    torch.testing.assert_close(Dynamics(action, kind).divergence(0.3, x), jacobian.diagonal(dim1=1, dim2=2).sum(dim=1))


def test_divergence_goes_through_every_layer_of_the_network() -> None:
    """A U-Net with attention: the exact divergence against finite differences of the velocity, to 1e-6 in float64."""
    body = UNet(channels=1, size=4, width=8, multipliers=[1, 2], blocks=1, attention=[2], out_channels=1)
    for parameter in body.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    dynamics = Dynamics(DotAction(body).double())
    x, step = torch.randn(2, 1, 4, 4, dtype=torch.float64), 1e-5
    expected = torch.zeros(2, dtype=torch.float64)
    for row in range(4):
        for column in range(4):
            shift = torch.zeros_like(x)
            shift[:, 0, row, column] = step
            difference = dynamics.velocity(0.3, x + shift) - dynamics.velocity(0.3, x - shift)
            expected += difference[:, 0, row, column] / (2 * step)
    torch.testing.assert_close(dynamics.divergence(0.3, x), expected, rtol=1e-6, atol=1e-6)


def test_kinetic_energy_growth_and_noise(dtype: torch.dtype) -> None:
    action = small_action(3, dtype)
    action.offset = TimeOffset(3.0).to(dtype)
    torch.nn.init.normal_(action.offset.out.weight)
    x, t = torch.randn(5, 3, dtype=dtype), torch.rand(5, dtype=dtype)
    dynamics = Dynamics(action, Unbalanced(0.3))
    torch.testing.assert_close(dynamics.kinetic_energy(t, x), 0.5 * dynamics.velocity(t, x).square().sum(dim=1))
    torch.testing.assert_close(dynamics.growth(t, x), 0.3 * action(t, x))
    assert (dynamics.diffusion(t, x) == 0).all()
    assert (Dynamics(action).growth(t, x) == 0).all()
    free = torch.tensor([1.0, 0.0, 1.0], dtype=dtype)
    noise = Dynamics(action, Entropic(lambda t: 2 * t), conditioning=Conditioning(free=free)).diffusion(t, x)
    torch.testing.assert_close(noise, 2 * t[:, None] * free)


def test_score_is_that_of_the_path(dtype: torch.dtype) -> None:
    """The identity itself is tested with the paths; here it is applied to the action's velocity, or refused."""
    action, path = small_action(3, dtype), LinearPath()
    x, t = torch.randn(5, 3, dtype=dtype), 0.9 * torch.rand(5, dtype=dtype)
    dynamics = Dynamics(action, path=path)
    torch.testing.assert_close(dynamics.score(t, x), path.score(t, x, dynamics.velocity(t, x), Conditioning()))
    for other in (Dynamics(action), Dynamics(action, Unbalanced(1.0), path)):
        with pytest.raises(UserError, match="balanced dynamics on a known path only"):
            other.score(t, x)
    with pytest.raises(UserError, match="TorusPath is not Gaussian"):
        Dynamics(action, path=TorusPath()).score(t, x)


NOISY: dict[str, tuple[Path, Callable[[Tensor, Tensor], Tensor]]] = {
    "linear": (LinearPath(), lambda x, v: x - v),
    "trigonometric": (TrigonometricPath(), lambda x, v: -2 / math.pi * v),
    "vp": (VPPath(), lambda x, v: torch.zeros_like(x)),
    "colourisation": (ColourisationPath(0.1), lambda x, v: (x - v - CONDITION) / 0.1),
    "colourisation trigonometric": (ColourisationPath(0.1, Trigonometric()), lambda x, v: -2 / math.pi * v / 0.1),
    "colourisation vp": (ColourisationPath(0.1, VariancePreserving()), lambda x, v: torch.zeros_like(x)),
}
"""Paths, and E[eps | x_1] by hand: (alpha' x - v) / -a', as a = 0 and alpha = 1, and with x - (1 - t) gray for a coloured image."""
CONDITION = torch.linspace(-1, 1, 3, dtype=torch.float64)


@pytest.mark.parametrize("name", NOISY)
def test_drift_at_the_data_is_its_limit(name: str) -> None:
    """v - G^2/2 E[eps | x_1] for any velocity, exact or not; 1e-12 before the end it differs by the order of sqrt(1e-12)."""
    path, posterior = NOISY[name]
    conditioning = Conditioning(condition=CONDITION) if path.conditional else Conditioning()
    field = small_action(3, torch.float64)

    class Field(torch.nn.Module):
        def forward(self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
            return field(t, x)

    dynamics = Dynamics(Field(), path=path, conditioning=conditioning, noise=MarginalNoise(1.5, path))  # type: ignore[arg-type]
    x = torch.randn(5, 3, dtype=torch.float64)
    velocity = dynamics.velocity(1.0, x)
    assert velocity.abs().min() > 1e-3
    torch.testing.assert_close(dynamics.drift(1.0, x), velocity - 1.5**2 / 2 * posterior(x, velocity))
    torch.testing.assert_close(dynamics.drift(1 - 1e-12, x), dynamics.drift(1.0, x), rtol=0, atol=1e-4)
    assert (dynamics.diffusion(1.0, x) == 0).all()
    for precision in (torch.float32, torch.float64):
        narrow = Dynamics(
            Field().to(precision), path=path, conditioning=Conditioning(condition=CONDITION.to(precision)), noise=MarginalNoise(1.5, path)
        )  # type: ignore[arg-type]
        for t in (0.0, 0.5, 1.0):
            assert narrow.drift(t, x.to(precision)).isfinite().all()
            assert narrow.diffusion(t, x.to(precision)).isfinite().all()


def test_noise_with_the_marginals_is_a_multiple_of_the_root_of_the_scale(dtype: torch.dtype) -> None:
    """g = G sqrt(a) and g^2/a = G^2 at every time, the last one too; a path without a scale is refused."""
    t = torch.tensor([0.0, 0.75, 1.0], dtype=dtype)
    noise = MarginalNoise(3.0, LinearPath())
    torch.testing.assert_close(noise.scale(t), torch.tensor([3.0, 1.5, 0.0], dtype=dtype))
    torch.testing.assert_close(noise.square_over_noise(t), torch.full((3,), 9.0, dtype=dtype))
    with pytest.raises(UserError, match="TorusPath is not Gaussian"):
        MarginalNoise(1.0, TorusPath())


class Labelled(torch.nn.Module):
    """s = (label + 1) x_0^2 + x_1."""

    def forward(self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        assert label is not None
        return (label + 1) * x[:, 0] ** 2 + x[:, 1]


def test_guidance_mixes_the_gradients(dtype: torch.dtype) -> None:
    """(1 - g) of the class "none", here 3, and g of the class; each guided velocity costs two evaluations."""
    x, label = torch.randn(4, 2, dtype=dtype), torch.tensor([0, 1, 2, 0])
    for strength in (0.0, 1.0, 2.5):
        dynamics = Dynamics(Labelled(), label=label, guidance=strength, no_label=3)  # type: ignore[arg-type]
        velocity = dynamics.velocity(0.2, x)
        torch.testing.assert_close(velocity[:, 0], 2 * ((1 - strength) * 4 + strength * (label + 1)) * x[:, 0])
        torch.testing.assert_close(velocity[:, 1], torch.ones_like(x[:, 1]))
        assert dynamics.evaluations == (1 if strength == 1 else 2)
    with pytest.raises(UserError, match="guidance=2 needs classes"):
        Dynamics(Labelled(), label=label, guidance=2)  # type: ignore[arg-type]
