"""Brownian motion and the SDE solvers."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from solver_orders import NOISE, RATE, strong_order, weak_errors
from torch import Tensor

from amgen.dynamics import Dynamics, MarginalNoise
from amgen.paths import AffinePath, LinearPath, TrigonometricPath, VPPath
from amgen.solvers import SDE_SOLVERS, BrownianMotion, SDESolver, StepGrid, make_solver


def steps_of(motion: BrownianMotion, times: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return the increments and the areas of all steps, (steps, B, ...) each."""
    increments, areas = zip(*motion.steps(times), strict=True)
    return torch.stack(increments), torch.stack(areas)


def test_brownian_motion_depends_on_seed_index_and_grid_alone() -> None:
    """The same again, one image alone, and whatever the batch; other seeds and images have paths that do not correlate with it."""
    times = StepGrid(50, "cosine").times()
    whole = steps_of(BrownianMotion(3, range(4), (2, 2)), times)
    again = steps_of(BrownianMotion(3, range(4), (2, 2)), times)
    alone = steps_of(BrownianMotion(3, [2], (2, 2)), times)
    for found, repeated, single in zip(whole, again, alone, strict=True):
        assert torch.equal(found, repeated)
        assert torch.equal(single[:, 0], found[:, 2])
    count = 5_000
    ends = [steps_of(BrownianMotion(seed, range(first, first + count), ()), [0, 1])[0][0] for seed, first in ((3, 0), (4, 0), (3, count))]
    correlations = torch.corrcoef(torch.stack(ends)) - torch.eye(3)
    assert correlations.abs().max() < 5 / count**0.5


def test_grids_of_powers_of_two_see_the_same_path() -> None:
    """Increments over 8 steps are sums of those over 64, and areas add up: int_a^c (W - W_a) = parts + length of the second x W_b - W_a."""
    motion = BrownianMotion(3, range(4), (2, 2), dtype=torch.float64)
    coarse, fine = (steps_of(motion, StepGrid(count).times()) for count in (8, 64))
    increments, areas = (values.unflatten(0, (8, 8)) for values in fine)
    torch.testing.assert_close(increments.sum(dim=1), coarse[0])
    before = increments.cumsum(dim=1) - increments
    torch.testing.assert_close((areas + before / 64).sum(dim=1), coarse[1])


@pytest.mark.parametrize("times", [[0.0, 1.0], [0.0, 0.1, 0.35, 0.36, 1.0], [0.0, 0.7, 0.7 + 1e-6, 0.95, 1.0], [0.2, 0.25, 0.5, 0.75]])
def test_brownian_motion_has_its_law_on_any_grid(times: list[float]) -> None:
    """Standardised increments w / sqrt(h) and areas sqrt(12 / h^3) (A - h w / 2) of all steps are independent standard normals.

    20,000 paths: each entry of the covariance has a standard error of 1/sqrt(20000) = 0.007, on the diagonal sqrt(2) times that, of which
    0.05 are 5; fourth moments are 3 within 5 standard errors, sqrt(96/20000) each. A step of 1e-6 is as good as a long one.
    """
    increments, areas = steps_of(BrownianMotion(0, range(20_000), (), dtype=torch.float64), times)
    lengths = torch.tensor([b - a for a, b in pairwise(times)], dtype=torch.float64)[:, None]
    standardised = torch.cat([increments / lengths.sqrt(), (areas - 0.5 * lengths * increments) * (12 / lengths**3).sqrt()])
    covariance = standardised @ standardised.T / standardised.shape[1]
    assert (covariance - torch.eye(len(covariance))).abs().max() < 0.05
    assert ((standardised**4).mean(dim=1) - 3).abs().max() < 5 * (96 / 20_000) ** 0.5


def test_area_is_the_integral_of_the_path() -> None:
    """The trapezoid rule over 16 pieces comes within 6 standard errors of the area of each of 64 steps: N(0, length h^2/12)."""
    motion = BrownianMotion(0, range(50), (), dtype=torch.float64)
    (increments, _), (_, areas) = (steps_of(motion, StepGrid(count).times()) for count in (1024, 64))
    path = torch.cat([torch.zeros(64, 1, 50), increments.unflatten(0, (64, 16)).cumsum(dim=1)], dim=1)
    errors = torch.trapezoid(path, dx=1 / 1024, dim=1) - areas
    deviation = (1 / 64 / 12) ** 0.5 / 1024
    assert errors.abs().max() < 6 * deviation
    assert float(errors.std()) == pytest.approx(deviation, rel=5 / (2 * errors.numel()) ** 0.5)


@pytest.mark.parametrize(("steps", "kind"), [(50, "uniform"), (64, "uniform"), (1000, "cosine"), (1000, "polynomial")])
def test_noise_costs_as_much_as_there_are_steps(steps: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most two splits a step, and one for each of the 52 halvings that a double precision number allows; no step goes without noise."""
    nodes = []
    motion = BrownianMotion(0, [0], ())
    normals = motion._normals
    monkeypatch.setattr(motion, "_normals", lambda node: nodes.append(node) or normals(node))
    increments, _ = steps_of(motion, StepGrid(steps, kind).times())
    assert len(nodes) == len(set(nodes)) <= 2 * steps + 52
    assert (increments != 0).all()


def test_steps_without_length_have_no_noise() -> None:
    increments, areas = steps_of(BrownianMotion(0, range(3), (2,)), [0.0, 0.5, 0.5, 1.0, 1.0])
    for values in (increments, areas):
        assert [bool((step == 0).all()) for step in values] == [False, True, False, True]


@pytest.mark.parametrize("times", [[0.0, 1.5], [-0.1, 1.0], [0.0, 0.6, 0.4, 1.0]])
def test_times_that_cannot_be_are_refused(times: list[float]) -> None:
    with pytest.raises(ValueError, match="increasing ones"):
        steps_of(BrownianMotion(0, [0], ()), times)


@pytest.mark.parametrize("name", SDE_SOLVERS)
def test_strong_order(name: str) -> None:
    """The error of single paths falls with the declared order, or faster where steps are still long (sra1: 1.8)."""
    assert SDE_SOLVERS[name].strong_order - 0.2 < strong_order(name, paths=100) < SDE_SOLVERS[name].strong_order + 0.5


@pytest.mark.parametrize("name", SDE_SOLVERS)
def test_weak_order(name: str) -> None:
    """Mean and variance of dx = -RATE x dt + NOISE (1 + t) dW, whose steps are linear, propagated without sampling: slopes within 0.25."""
    steps = [16, 32, 64, 128, 256]
    means, variances = zip(*(weak_errors(SDE_SOLVERS[name], count) for count in steps), strict=True)
    for errors in (means, variances):
        slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
        assert slope == pytest.approx(SDE_SOLVERS[name].weak_order, abs=0.25)


@pytest.mark.parametrize("name", SDE_SOLVERS)
def test_observers_see_every_step_and_drifts_are_as_declared(name: str) -> None:
    """The start, every time of the grid and the end; drifts within [0, 1] alone, as many a step as the class says."""
    calls: list[float] = []
    seen: list[tuple[float, Tensor]] = []

    def drift(t: float, x: Tensor) -> Tensor:
        calls.append(t)
        return -x

    start, grid = torch.ones(2, 1, dtype=torch.float64), StepGrid(4)
    brownian = BrownianMotion(0, range(2), (1,), dtype=torch.float64)
    end = SDE_SOLVERS[name](grid).solve(drift, lambda t, x: x.new_full((), 0.1), brownian, start, lambda t, x: seen.append((t, x)))
    assert [t for t, _ in seen] == grid.times()
    assert torch.equal(seen[0][1], start)
    assert torch.equal(seen[-1][1], end)
    assert len(calls) == 4 * SDE_SOLVERS[name].evaluations
    assert (min(calls), max(calls) <= 1) == (0, True)
    assert torch.equal(SDE_SOLVERS[name](grid).solve(drift, lambda t, x: x.new_full((), 0.1), brownian, start), end)


@pytest.mark.parametrize("name", SDE_SOLVERS)
def test_mean_and_variance(name: str) -> None:
    """Of the linear equation, sampled: 2,000 paths, 5 standard errors and the bias of 128 steps."""
    solver = make_solver(name, StepGrid(128), 1)
    assert isinstance(solver, SDESolver)
    brownian = BrownianMotion(1, range(2000), (1,), dtype=torch.float64)
    start = torch.ones(2000, 1, dtype=torch.float64)
    end = solver.solve(lambda t, x: -RATE * x, lambda t, x: x.new_full((), NOISE * (1 + t)), brownian, start)
    s = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    variance = float(torch.trapezoid((NOISE * (1 + s)) ** 2 * (-2 * RATE * (1 - s)).exp(), s))
    assert float(end.mean()) == pytest.approx(math.exp(-RATE), abs=5 * (variance / 2000) ** 0.5 + 0.002)
    assert float(end.var()) == pytest.approx(variance, rel=5 * (2 / 2000) ** 0.5 + 0.01)


MEAN, SCALE = 0.7, 0.4
GAUSSIAN_PATHS: dict[str, AffinePath] = {"linear": LinearPath(), "trigonometric": TrigonometricPath(), "vp": VPPath()}


class GaussianAction(torch.nn.Module):
    """The exact action of one-dimensional data N(MEAN, SCALE^2): q_t has mean alpha m and variance V = a^2 + alpha^2 c^2.

    The velocity is alpha' m + V'/(2V) (x - alpha m). For vp a' is infinite at t = 1, and a a' = -beta alpha^2 / 2 is not.
    """

    def __init__(self, path: AffinePath):
        super().__init__()
        self.path = path

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """alpha m, alpha' m, V and V'/2."""
        c = self.path.coefficients(t)
        slope = c.noise * c.noise_rate
        if isinstance(self.path, VPPath):
            slope = -0.5 * (self.path.beta_min + (1 - t) * (self.path.beta_max - self.path.beta_min)) * c.data**2
        return c.data * MEAN, c.data_rate * MEAN, c.noise**2 + (c.data * SCALE) ** 2, slope + c.data * c.data_rate * SCALE**2

    def forward(self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        mean, shift, variance, half = self.moments(t)
        z = x[:, 0] - mean
        return shift * z + 0.5 * half / variance * z**2


def moments_at_the_end(name: str, path: AffinePath, level: float, grid: StepGrid) -> tuple[float, float]:
    """Mean and variance at t = 1 of a solver's points, started from q_0, propagated without sampling: its steps are linear."""
    action = GaussianAction(path)
    dynamics, solver = Dynamics(action, path=path, noise=MarginalNoise(level, path)), SDE_SOLVERS[name](grid)  # type: ignore[arg-type]
    start = action.moments(torch.zeros(1, dtype=torch.float64))
    mean, variance = float(start[0]), float(start[2])
    nothing, *units = torch.eye(4, 3, dtype=torch.float64).roll(1, dims=0)[:, :, None].unbind()
    points, increments, areas = torch.stack([nothing, *units]).unbind(dim=1)
    for begin, end in pairwise(grid.times()):
        shift, *moved = solver.step(dynamics.drift, dynamics.diffusion, begin, end, points, increments, areas).flatten().tolist()
        # x <- shift + r x + a dW + b I, with Var dW = h, Cov(dW, I) = h^2/2, Var I = h^3/3
        h, (r, a, b) = end - begin, (value - shift for value in moved)
        mean, variance = shift + r * mean, r**2 * variance + a**2 * h + a * b * h**2 + b**2 * h**3 / 3
    return mean, variance


@pytest.mark.parametrize("path", GAUSSIAN_PATHS)
@pytest.mark.parametrize("name", SDE_SOLVERS)
def test_sampling_by_an_sde_has_the_weak_order_of_its_solver(name: str, path: str) -> None:
    """Mean and variance at t = 1, where `stochastic-heun` evaluates the drift, converge to the data's with slopes within 0.15, for G = 1.5.

    On the grid 1 - t = (1 - s)^2, where g = G sqrt(1 - t) is smooth; in equal steps its singularity costs a logarithm, and vp half an
    order. On straight lines the mean is exact. The drift is -(G^2/2) times the posterior noise, without which nothing converges.
    """
    steps = [64, 128, 256]
    found = [moments_at_the_end(name, GAUSSIAN_PATHS[path], 1.5, StepGrid(count, "polynomial", 2.0)) for count in steps]
    means, variances = (np.abs(np.array(values) - exact) for values, exact in zip(zip(*found, strict=True), (MEAN, SCALE**2), strict=True))
    for errors in (variances,) if path == "linear" else (means, variances):
        assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(SDE_SOLVERS[name].weak_order, abs=0.15)
    assert path != "linear" or means.max() < 1e-12


@pytest.mark.parametrize("name", SDE_SOLVERS)
def test_noise_from_balanced_dynamics_keeps_the_marginals(name: str) -> None:
    """An exact action of N(m, c^2) on the linear path, sampled by the SDE with g = 2 sqrt(1 - t): mean and variance of 2,000 ends are the
    data's.

    Within 5 standard errors and the bias of 128 steps; without the score term the variance would be 5 times as large.
    """
    path = LinearPath()
    dynamics = Dynamics(GaussianAction(path), path=path, noise=MarginalNoise(2, path))  # type: ignore[arg-type]
    x = torch.randn(2000, 1, dtype=torch.float64)
    brownian = BrownianMotion(2, range(2000), (1,), dtype=torch.float64)
    end = SDE_SOLVERS[name](StepGrid(128)).solve(dynamics.drift, dynamics.diffusion, brownian, x)
    assert float(end.mean()) == pytest.approx(MEAN, abs=5 * SCALE / 2000**0.5 + 0.005)
    assert float(end.var()) == pytest.approx(SCALE**2, rel=5 * (2 / 2000) ** 0.5 + 0.02)
