"""Brownian motion and the SDE solvers."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from solver_orders import NOISE, RATE, strong_order, weak_errors
from torch import Tensor

from amgen.dynamics import Dynamics
from amgen.paths import LinearPath
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


@pytest.mark.parametrize("times", [[0.0, 0.1, 0.35, 0.36, 1.0], [0.0, 0.7, 0.7 + 1e-6, 0.95, 1.0], [0.2, 0.25, 0.5, 0.75]])
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


def test_noise_from_balanced_dynamics_keeps_the_marginals() -> None:
    """An exact action of N(m, c^2) on the linear path, sampled by the SDE with g = 2 sqrt(1 - t): mean and variance of 2,000 ends are the
    data's.

    Within 5 standard errors and the bias of 128 steps; without the score term the variance would be 5 times as large.
    """
    mean, scale = 0.7, 0.4

    class Exact(torch.nn.Module):
        def forward(self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
            variance = (1 - t) ** 2 + (t * scale) ** 2
            rate = (t * scale**2 - (1 - t)) / variance
            z = x[:, 0] - t * mean
            return mean * z + 0.5 * rate * z**2

    dynamics = Dynamics(Exact(), path=LinearPath(), noise=lambda t: 2 * (1 - t).sqrt())  # type: ignore[arg-type]
    x = torch.randn(2000, 1, dtype=torch.float64)
    for name in SDE_SOLVERS:
        brownian = BrownianMotion(2, range(2000), (1,), dtype=torch.float64)
        solver = make_solver(name, StepGrid(128), 1)
        assert isinstance(solver, SDESolver)
        end = solver.solve(dynamics.drift, dynamics.diffusion, brownian, x)
        assert float(end.mean()) == pytest.approx(mean, abs=5 * scale / 2000**0.5 + 0.005)
        assert float(end.var()) == pytest.approx(scale**2, rel=5 * (2 / 2000) ** 0.5 + 0.02)
