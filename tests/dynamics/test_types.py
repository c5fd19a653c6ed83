"""Each kind of dynamics: both forms against each other, and against the closed forms of Gaussians and of a mixture that moves its mass.

Two problems. `stretch` carries N(0, I) to N(m, 4 I) along x_t = (1 + t) eps + t m, a single path for each eps, where the optimum is
known for convex costs. `linear` carries N(0, I) to N(m, c^2 I) along straight lines, paired independently. Mass grows as exp(k t) for
unbalanced dynamics. With mean t m, variance V(t), and z = x - t m, the optimum solves -Laplacian s - grad s . grad log q + lambda s =
d_t log q (entropic dynamics add sigma^2/2 Laplacian q to the flow), hence

    balanced    grad s = m + V'/(2V) z
    entropic    grad s = m + (V' - sigma^2)/(2V) z
    unbalanced  grad s = m/(1 + lambda V) + V'/(V (2 + lambda V)) z,  s(z = 0) = (k + D (V'/(V (2 + lambda V)) - V'/(2V))) / lambda
    convex      grad c*(grad s) = m + V'/(2V) z, by symmetry the same motion as the balanced one
"""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from helpers import small_action
from torch import Tensor

from amgen.actions import Action, TimeOffset
from amgen.core.errors import UserError
from amgen.dynamics import Balanced, ConvexCost, Dynamics, DynamicsType, Entropic, Unbalanced
from amgen.losses import TIME_WEIGHTS, ActionMatchingLoss, ConditionalLoss, MarginalLoss, TimeWeight
from amgen.paths import AffinePath, Conditioning, LinearPath, Masses, Path, PathSample, TorusPath, TrigonometricPath, VPPath
from amgen.paths.schedules import Coefficients, Schedule

DIMENSION = 2
MEAN = (1.0, -0.5)
SCALE = 0.6
GROWTH = 0.8
KINDS: dict[str, DynamicsType] = {
    "balanced": Balanced(),
    "entropic": Entropic(lambda t: 1.2 * (1 - t)),
    "unbalanced": Unbalanced(0.7),
    "convex 3": ConvexCost(3.0),
    "convex 1.5": ConvexCost(1.5),
}
FORMS: dict[str, type[ActionMatchingLoss]] = {"conditional": ConditionalLoss, "marginal": MarginalLoss}


class Stretch(Schedule):
    def coefficients(self, t: Tensor) -> Coefficients:
        one = torch.ones_like(t)
        return Coefficients(1 + t, t, one, one)


class StretchPath(AffinePath):
    """x_t = (1 + t) eps + t x_1."""

    def __init__(self) -> None:
        super().__init__(Stretch())


def problem(kind: str) -> Path:
    """The path on which a kind is tested."""
    return StretchPath() if "convex" in kind else LinearPath()


def moments(path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
    """V and V' at times (B, 1)."""
    if isinstance(path, StretchPath):
        return (1 + t) ** 2, 2 * (1 + t)
    return (1 - t) ** 2 + t**2 * SCALE**2, -2 * (1 - t) + 2 * t * SCALE**2


def draw(name: str, count: int, dtype: torch.dtype, device: torch.device | str = "cpu", probes: int = 0) -> PathSample:
    """A batch of the problem, stratified in t, with masses for unbalanced dynamics and probes for entropic ones."""
    path, mean = problem(name), torch.tensor(MEAN, dtype=dtype, device=device)
    noise = torch.randn(count, DIMENSION, dtype=dtype, device=device)
    data = mean + (0 if isinstance(path, StretchPath) else SCALE) * torch.randn(count, DIMENSION, dtype=dtype, device=device)
    t = ((torch.arange(count) + torch.rand(1)) / count).to(data)
    sample = path.sample(t, noise, data, boundary=True, score=True)
    if isinstance(path, StretchPath):  # its end is not the data
        sample = replace(sample, boundary=replace(sample.boundary, end=2 * noise + data))
    if name == "unbalanced":
        boundary = replace(sample.boundary, start_mass=torch.ones_like(t), end_mass=torch.full_like(t, math.exp(GROWTH)))
        sample = replace(sample, mass=(GROWTH * t).exp(), growth=torch.full_like(t, GROWTH), boundary=boundary)
    if probes:
        sample = replace(sample, probes=torch.randint(2, (count, probes, DIMENSION), device=device).to(data) * 2 - 1)
    return sample


class Optimum(torch.nn.Module):
    """The optimal action in closed form, with free coefficients around it: `slope` scales, `tilt` and `shift` displace."""

    def __init__(self, name: str, dtype: torch.dtype):
        super().__init__()
        self.name, self.kind, self.path = name, KINDS[name], problem(name)
        self.mean = torch.tensor(MEAN, dtype=dtype)
        self.slope = torch.nn.Parameter(torch.ones((), dtype=dtype))
        self.tilt = torch.nn.Parameter(torch.zeros(DIMENSION, dtype=dtype))
        self.shift = torch.nn.Parameter(torch.zeros((), dtype=dtype))

    def forward(
        self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None, keys: Tensor | None = None
    ) -> Tensor:
        t = t[:, None]
        variance, rate = moments(self.path, t)
        z = x - t * self.mean
        drift, stretch, constant = self.mean, rate / (2 * variance), torch.zeros_like(t)
        if isinstance(self.kind, ConvexCost):
            velocity = drift + stretch * z + self.tilt
            power = self.kind.power
            return self.slope * (velocity.square().sum(dim=1) ** (power / 2)) / (power * stretch[:, 0])
        if isinstance(self.kind, Entropic):
            stretch = stretch - self.kind.sigma(t) ** 2 / (2 * variance)
        if isinstance(self.kind, Unbalanced):
            scale = self.kind.rate
            drift, stretch = drift / (1 + scale * variance), rate / (variance * (2 + scale * variance))
            constant = (GROWTH + DIMENSION * (stretch - rate / (2 * variance))) / scale
        linear = ((drift + self.tilt) * z).sum(dim=1)
        return constant[:, 0] + self.shift + linear + 0.5 * self.slope * stretch[:, 0] * z.square().sum(dim=1)

    def coefficients(self) -> list[Tensor]:
        """The free coefficients that the loss sees: only unbalanced dynamics see a constant."""
        return [self.slope, self.tilt, self.shift] if self.name == "unbalanced" else [self.slope, self.tilt]


def probes_of(name: str, form: str) -> int:
    return 2 if (name, form) == ("entropic", "marginal") else 0


def mean_gradient(loss: ActionMatchingLoss, sample: PathSample, parameters: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss(sample).loss.mean(), parameters)])


def z_scores(draws: list[Tensor]) -> Tensor:
    """How many standard errors the mean of draws lies from zero, entry by entry; rounding (1e-9) is no error where each draw is zero."""
    stacked = torch.stack(draws)
    rounding = 1e-9 if stacked.dtype == torch.float64 else 1e-3
    return (stacked.mean(dim=0) / (stacked.std(dim=0) / len(stacked) ** 0.5 + rounding)).abs()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("weight", ["constant", "(1-t)^2"])
def test_gradient_vanishes_at_the_optimum(name: str, form: str, weight: str, dtype: torch.dtype) -> None:
    """At the closed form the mean gradient over 300 batches is zero within 4 standard errors; displaced, it is 8 or more from it."""
    optimum = Optimum(name, dtype)
    loss = FORMS[form](optimum, optimum.path, optimum.kind, TimeWeight(TIME_WEIGHTS[weight]))  # type: ignore[arg-type]

    def scores() -> Tensor:
        batches = (draw(name, 256, dtype, probes=probes_of(name, form)) for _ in range(300))
        return z_scores([mean_gradient(loss, batch, optimum.coefficients()) for batch in batches])

    assert scores().max() < 4
    with torch.no_grad():
        for coefficient in optimum.coefficients():
            coefficient += 0.1
    assert scores().max() > 8


@pytest.mark.parametrize("name", KINDS)
def test_forms_have_the_same_mean_gradient(name: str, dtype: torch.dtype) -> None:
    """A random network: the difference of the two forms' gradients, over 400 batches, is zero within 4 standard errors for every parameter.

    As a check that this can fail, the conditional form is also compared with the marginal form of other dynamics: over 8 standard errors.
    """
    action = with_offset(small_action(DIMENSION, dtype, width=8))
    path, kind, weight = problem(name), KINDS[name], TimeWeight(TIME_WEIGHTS["1-t"])
    parameters = [parameter for part, parameter in action.named_parameters() if name == "unbalanced" or "offset" not in part]
    conditional, marginal = ConditionalLoss(action, path, kind, weight), MarginalLoss(action, path, kind, weight)
    other = MarginalLoss(action, path, KINDS["unbalanced"] if name == "balanced" else Balanced(), weight)
    same, different = [], []
    for _ in range(400):
        sample = draw(name, 128, dtype, probes=probes_of(name, "marginal"))
        expected = mean_gradient(conditional, sample, parameters)
        same.append(mean_gradient(marginal, sample, parameters) - expected)
        different.append(mean_gradient(other, sample, parameters) - expected)
    assert z_scores(same).max() < 4
    assert z_scores(different).max() > 8


def with_offset(action: Action) -> Action:
    """Add a constant that depends on time, not zero at first."""
    first = next(action.parameters())
    action.offset = TimeOffset(3.0, 8).to(first.device, first.dtype)
    torch.nn.init.normal_(action.offset.out.weight)
    return action


@pytest.mark.parametrize(
    ("name", "form", "steps", "tolerance"),
    [
        ("entropic", "conditional", 600, 0.003),
        ("entropic", "marginal", 1000, 0.005),
        ("unbalanced", "conditional", 600, 0.004),
        ("unbalanced", "marginal", 1000, 0.006),
        ("convex 3", "conditional", 600, 0.0025),
        ("convex 3", "marginal", 1000, 0.014),
        ("convex 1.5", "conditional", 600, 0.014),
    ],
)
def test_training_recovers_the_closed_form(name: str, form: str, steps: int, tolerance: float, device: torch.device) -> None:
    """A small network reaches the optimal velocity or drift, and the optimal growth: relative mean squared errors below `tolerance`.

    The tolerances are about three times the largest of seeds 0 to 2: 0.0009 and 0.0015 (entropic), 0.0013 and 0.0022 (unbalanced), 0.0007
    and 0.0047 (convex, 3), 0.0045 (convex, 1.5). An untrained network is near 1.
    """
    kind, path = KINDS[name], problem(name)
    action = small_action(DIMENSION, torch.float32, device, width=48)
    if name == "unbalanced":
        action.offset = TimeOffset(3.0).to(device)
    loss = FORMS[form](action, path, kind)
    optimise(loss, lambda: draw(name, 512, torch.float32, device, probes_of(name, form)), steps)

    sample = draw(name, 4000, torch.float32, device)
    optimum = Optimum(name, torch.float32).to(device)
    truth, found = Dynamics(optimum, kind), Dynamics(action, kind)  # type: ignore[arg-type]
    for quantity in ("velocity", "growth") if name == "unbalanced" else ("velocity",):
        expected = getattr(truth, quantity)(sample.t, sample.x)
        error = (getattr(found, quantity)(sample.t, sample.x) - expected).square().mean() / expected.square().mean()
        assert error < tolerance, quantity


def optimise(loss: ActionMatchingLoss, batch: Callable[[], PathSample], steps: int) -> None:
    optimizer = torch.optim.Adam(loss.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(batch()).loss.mean().backward()
        optimizer.step()
        schedule.step()


class StillPath(Path):
    """x_t = x_1: nothing moves."""

    def interpolate(self, t: Tensor, noise: Tensor, data: Tensor, conditioning: Conditioning) -> tuple[Tensor, Tensor]:
        return data, torch.zeros_like(data)


@pytest.mark.parametrize(("form", "tolerance"), [("conditional", 0.03), ("marginal", 0.1)])
def test_unbalanced_dynamics_move_mass_and_keep_components_in_place(form: str, tolerance: float, device: torch.device) -> None:
    """Two far components whose shares go from 1:1 to 4:1: growth is each one's d/dt log m_t, and neither moves.

    Root mean squares over the samples: the relative error of the growth (seeds 0 to 2: 0.011 and 0.032, the tolerances three times that),
    and the speed (at most 0.033; moving from one component to the other would take 8).
    """
    path, kind, masses = StillPath(), Unbalanced(1.0), Masses([1, 1], None, [4, 1])

    def batch(count: int = 512) -> PathSample:
        component = torch.randint(2, (count,), device=device)
        data = 0.5 * torch.randn(count, 1, device=device) + 8.0 * component[:, None] - 4
        t = ((torch.arange(count) + torch.rand(1)) / count).to(data)
        return masses.weigh(path.sample(t, torch.zeros_like(data), data, boundary=True, score=True), component)

    action = small_action(1, torch.float32, device, width=48)
    action.offset = TimeOffset(3.0).to(device)
    optimise(FORMS[form](action, path, kind), batch, 1000)
    sample = batch(4000)
    velocity, growth = Dynamics(action, kind).velocity_and_growth(sample.t, sample.x)
    assert sample.growth is not None
    assert (growth - sample.growth).square().mean().sqrt() < tolerance * sample.growth.square().mean().sqrt()
    assert velocity.square().mean().sqrt() < 0.1


def test_convex_costs_are_conjugate(dtype: torch.dtype) -> None:
    """v = grad c*(y) inverts y = |v|^(p-2) v; the gap is zero there and positive elsewhere; p = 2 is the quadratic kind."""
    v, y = torch.randn(2, 50, 3, 4, dtype=dtype)
    for power in (1.5, 2.0, 4.0):
        kind = ConvexCost(power)
        dual = v.flatten(1).norm(dim=1)[:, None, None] ** (power - 2) * v
        torch.testing.assert_close(kind.velocity(dual), v)
        torch.testing.assert_close(kind.fenchel_young(dual, v), torch.zeros(50, dtype=dtype), rtol=0, atol=1e-5)
        assert (kind.fenchel_young(y, v) > 0).all()
        gradient = torch.func.grad(lambda g, kind=kind: kind.conjugate(g).sum())(y)
        torch.testing.assert_close(kind.velocity(y), gradient)
    for method in ("fenchel_young", "conjugate", "velocity"):
        arguments = (y, v) if method == "fenchel_young" else (y,)
        torch.testing.assert_close(getattr(ConvexCost(2.0), method)(*arguments), getattr(Balanced(), method)(*arguments))


@pytest.mark.parametrize("power", [1.5, 2.0, 4.0])
def test_convex_costs_are_finite_at_rest(power: float) -> None:
    """A network that starts at zero has y = 0: value and gradient of the loss must be finite there."""
    y = torch.zeros(3, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(ConvexCost(power).fenchel_young(y, torch.randn(3, 4)).sum(), y)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
    assert (ConvexCost(power).conjugate(torch.zeros(3, 4)) < 1e-8).all()  # eps^q, the most for q = 4/3


def test_laplacian_by_probes_is_unbiased_and_exact_without_them(dtype: torch.dtype) -> None:
    """Against the trace of the Hessian by autograd; all four sign patterns in two dimensions average to it exactly."""
    action = small_action(DIMENSION, dtype)
    loss = MarginalLoss(action, LinearPath(), Entropic(torch.ones_like))
    without = MarginalLoss(action, LinearPath())
    sample = draw("entropic", 5, dtype)
    exact = 2 * (loss(sample).loss - without(sample).loss)
    expected = torch.stack(
        [torch.autograd.functional.hessian(lambda x, i=i: action(sample.t[i : i + 1], x[None])[0], sample.x[i]).trace() for i in range(5)]
    )
    torch.testing.assert_close(exact, expected)
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=dtype).expand(5, 4, 2)
    torch.testing.assert_close(2 * (loss(replace(sample, probes=signs)).loss - without(sample).loss), expected)
    one = 2 * (loss(replace(sample, probes=signs[:, :1])).loss - without(sample).loss)
    assert not torch.allclose(one, expected)


@pytest.mark.parametrize("weight", ["constant", "1-t"])
@pytest.mark.parametrize("name", ["balanced", "entropic", "unbalanced"])
def test_losses_are_the_formulas(name: str, weight: str, dtype: torch.dtype) -> None:
    """Sample by sample against plain autograd of the formulas at the head of the module, to rounding; Laplacians from Hessians.

    With masses and growth for unbalanced dynamics, and without, where they are 1 and 0.
    """
    kind, path, action = KINDS[name], problem(name), with_offset(small_action(DIMENSION, dtype))
    time_weight = TimeWeight(TIME_WEIGHTS[weight])
    drawn = draw(name, 6, dtype)
    hessians = [torch.autograd.functional.hessian(lambda p, i=i: action(drawn.t[i : i + 1], p[None])[0], drawn.x[i]) for i in range(6)]
    laplacian = torch.stack([hessian.trace() for hessian in hessians])
    for sample in (drawn, replace(drawn, mass=None, growth=None)):
        mass = torch.ones_like(sample.t) if sample.mass is None else sample.mass
        growth = torch.zeros_like(sample.t) if sample.growth is None else sample.growth
        t, x = sample.t.clone().requires_grad_(), sample.x.clone().requires_grad_()
        s = action(t, x)
        rate, y = torch.autograd.grad(s.sum(), [t, x])
        target, interior = sample.velocity, 0.5 * y.square().sum(dim=1) + rate
        w, slope = (torch.ones_like(t), torch.zeros_like(t)) if weight == "constant" else (1 - t, -torch.ones_like(t))
        if isinstance(kind, Entropic):
            assert sample.score is not None
            variance = (1.2 * (1 - sample.t)) ** 2
            target = target + 0.5 * variance[:, None] * sample.score
            interior = interior + 0.5 * variance * laplacian
        regression = 0.5 * (y - target).square().sum(dim=1)
        if isinstance(kind, Unbalanced):
            interior = interior + 0.5 * 0.7 * s.square()
            regression = regression + 0.5 * 0.7 * (s - growth / 0.7) ** 2
        ends = sample.boundary
        start = action(torch.zeros_like(t), ends.start) * (1 if ends.start_mass is None else ends.start_mass)
        end = action(torch.ones_like(t), ends.end) * (1 if ends.end_mass is None else ends.end_mass)
        boundary = start - end * (weight == "constant")
        found = {form: FORMS[form](action, path, kind, time_weight)(sample) for form in FORMS}
        torch.testing.assert_close(found["conditional"].loss, mass * w * regression)
        torch.testing.assert_close(found["marginal"].loss, boundary + mass * (w * interior + slope * s))
        for terms in found.values():
            torch.testing.assert_close(terms.loss - terms.terms.get("boundary", 0), terms.interior)


def test_what_belongs_to_a_pair_goes_to_both_of_its_ends() -> None:
    """Labels, conditions and keys of the boundary: once for t = 0 and once for t = 1, each beside its own points."""
    seen: list[tuple[Tensor, ...]] = []

    class Spy(torch.nn.Module):
        def forward(
            self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None, keys: Tensor | None = None
        ) -> Tensor:
            assert label is not None
            assert condition is not None
            assert keys is not None
            seen.append((t, x, label, condition, keys))
            return (x**2).flatten(1).sum(dim=1) * t

    noise, data, condition = torch.randn(3, 4, 1, 2, 2).unbind()
    label, keys = torch.arange(4), torch.arange(8, dtype=torch.int32).reshape(4, 2)
    sample = LinearPath().sample(torch.rand(4), noise, data, label=label, dropout_seeds=keys, boundary=True, score=True)
    conditioning = replace(sample, conditioning=Conditioning(condition), boundary=replace(sample.boundary, condition=condition))
    MarginalLoss(Spy(), LinearPath())(conditioning)  # type: ignore[arg-type]
    t, *parts = seen[-1]
    assert t.tolist() == [0] * 4 + [1] * 4
    for part, expected in zip(
        parts, (torch.cat([noise, data]), label.repeat(2), condition.repeat(2, 1, 1, 1), keys.repeat(2, 1)), strict=True
    ):
        assert torch.equal(part, expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["balanced", "entropic", "convex 3"])
def test_known_pixels_take_no_part(name: str, form: str, dtype: torch.dtype) -> None:
    """What the action does along known entries changes neither the loss nor the velocity, and they do not move."""
    inner = small_action(DIMENSION, dtype)

    class Tilted(torch.nn.Module):
        def forward(
            self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None, keys: Tensor | None = None
        ) -> Tensor:
            bump = (x[:, 1] - x[:, 1].detach()) ** 2 + 3 * (x[:, 1] - x[:, 1].detach())  # zero, with derivatives
            return inner(t, x) + bump

    conditioning = Conditioning(free=torch.tensor([1.0, 0.0], dtype=dtype))
    sample = draw(name, 5, dtype)
    score = None if sample.score is None else conditioning.restrict(sample.score)
    sample = replace(sample, conditioning=conditioning, velocity=conditioning.restrict(sample.velocity), score=score)
    path, kind = problem(name), KINDS[name]
    expected = FORMS[form](inner, path, kind)(sample).loss
    torch.testing.assert_close(FORMS[form](Tilted(), path, kind)(sample).loss, expected)  # type: ignore[arg-type]
    velocity = Dynamics(inner, kind, conditioning=conditioning).velocity(sample.t, sample.x)
    assert (velocity[:, 1] == 0).all()
    assert (velocity[:, 0] != 0).all()


def test_impossible_combinations_are_refused_with_the_alternative() -> None:
    action, noisy = small_action(DIMENSION, torch.float32), Entropic(torch.ones_like)
    with pytest.raises(UserError, match="TorusPath is not: use the marginal form"):
        ConditionalLoss(action, TorusPath(), noisy)
    for path in (LinearPath(), VPPath(), TrigonometricPath()):
        with pytest.raises(UserError, match=r"let sigma\(t\) or w\(t\) vanish at t = 1, or use the marginal form"):
            ConditionalLoss(action, path, noisy)
        ConditionalLoss(action, path, noisy, TimeWeight(TIME_WEIGHTS["1-t"]))
        MarginalLoss(action, path, noisy)
    MarginalLoss(action, TorusPath(), noisy)


def test_weights_may_be_any_function_of_time(dtype: torch.dtype) -> None:
    """w(t) = cos t: the marginal form differentiates it, and its mean gradient is that of the conditional form."""
    action, path, weight = small_action(DIMENSION, dtype, width=8), LinearPath(), TimeWeight(torch.cos)
    torch.testing.assert_close(weight.derivative(torch.tensor([0.3], dtype=dtype)), -torch.tensor([0.3], dtype=dtype).sin())
    differences = []
    for _ in range(300):
        sample, parameters = draw("balanced", 128, dtype), list(action.parameters())
        conditional = mean_gradient(ConditionalLoss(action, path, weight=weight), sample, parameters)
        differences.append(mean_gradient(MarginalLoss(action, path, weight=weight), sample, parameters) - conditional)
    assert z_scores(differences).max() < 4
