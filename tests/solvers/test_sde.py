"""Brownian motion and the SDE solvers."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from solver_orders import NOISE, RATE, strong_order, weak_errors
from torch import Tensor

from amgen.dynamics import Dynamics
from amgen.paths import LinearPath
from amgen.solvers import SDE_SOLVERS, BrownianMotion, SDESolver, StepGrid, make_solver


def test_brownian_motion_does_not_depend_on_grid_direction_or_batch() -> None:
    """The same W at 1/50, 2/50, ... forwards and backwards, one image alone, and on a finer grid."""
    times = [k / 50 for k in range(51)]
    whole = BrownianMotion(3, range(4), (2, 2))
    forwards = torch.stack([whole(t) for t in times])
    again = BrownianMotion(3, range(4), (2, 2))
    assert torch.equal(torch.stack([again(t) for t in reversed(times)]).flip(0), forwards)
    alone = BrownianMotion(3, [2], (2, 2))
    assert torch.equal(torch.stack([alone(t) for t in times])[:, 0], forwards[:, 2])
    finer = BrownianMotion(3, range(4), (2, 2))
    assert torch.equal(torch.stack([finer(k / 100) for k in range(101)])[::2], forwards)
    assert (forwards[0] == 0).all()
    assert not torch.equal(forwards, torch.stack([BrownianMotion(4, range(4), (2, 2))(t) for t in times]))
    torch.testing.assert_close(whole.increment(0.2, 0.7), whole(0.7) - whole(0.2))
    with pytest.raises(ValueError, match="outside"):
        whole(1.5)


def test_brownian_increments_are_independent_normals() -> None:
    """Increments over 0, 0.1, 0.35, 0.36 and 1 of 20,000 paths: the covariance of their standardised values is the identity.

    Each entry has a standard error of 1/sqrt(20000) = 0.007, on the diagonal sqrt(2) times that: 5 standard errors are 0.05. The fourth
    moment is 3 within 5 standard errors, sqrt(96/20000) each.
    """
    motion = BrownianMotion(0, range(20_000), ())
    times = [0.0, 0.1, 0.35, 0.36, 1.0]
    steps = torch.stack([motion.increment(a, b) / math.sqrt(b - a) for a, b in pairwise(times)])
    assert (steps @ steps.T / steps.shape[1] - torch.eye(4)).abs().max() < 0.05
    assert ((steps**4).mean(dim=1) - 3).abs().max() < 5 * (96 / 20_000) ** 0.5


def test_area_is_the_integral_of_the_path() -> None:
    """The trapezoid rule over 4,096 pieces comes within 5 standard errors of the area of each step; its error is N(0, length h^2/12)."""
    motion = BrownianMotion(0, range(50), (), dtype=torch.float64)
    times = torch.linspace(0, 1, 4097, dtype=torch.float64)
    path = torch.stack([motion(float(t)) for t in times])
    for start, end in ((0.0, 1.0), (0.25, 0.5), (0.5, 0.515625)):
        piece = path[(times >= start) & (times <= end)]
        area = torch.trapezoid(piece - piece[0], dx=1 / 4096, dim=0)
        increment, found = motion.increment_and_area(start, end)
        torch.testing.assert_close(increment, piece[-1] - piece[0])
        assert (found - area).abs().max() < 5 * ((end - start) / 12) ** 0.5 / 4096


def test_area_has_the_right_distribution() -> None:
    """Of a step h: variance h^3/3, covariance with the increment h^2/2; relative errors of 20,000 paths are 1%, 5 standard errors 5%.

    Also for steps that are not dyadic, and areas of neighbouring steps are independent.
    """
    motion = BrownianMotion(0, range(20_000), (), dtype=torch.float64)
    first, second = motion.increment_and_area(0.1, 0.35), motion.increment_and_area(0.35, 0.6)
    h = 0.25
    assert float(first[1].var()) == pytest.approx(h**3 / 3, rel=0.05)
    assert float((first[0] * first[1]).mean()) == pytest.approx(h**2 / 2, rel=0.07)
    assert abs(float(torch.corrcoef(torch.stack([first[1] - h / 2 * first[0], second[1] - h / 2 * second[0]]))[0, 1])) < 5 / 20_000**0.5


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
