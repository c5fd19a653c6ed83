import math

import numpy as np
import pytest
import torch
from torch import Tensor

from amgen.config import ODE_SOLVERS, SOLVERS
from amgen.errors import UserError
from amgen.solvers import ADAPTIVE, SDE_SOLVERS, make_solver
from amgen.solvers.ode import FIXED_STEP


def velocity(t: float, x: Tensor) -> Tensor:
    """dx/dt = x cos(3t) + sin(2t) x^2 / 4: non-linear and not autonomous, so that no order comes for free."""
    return x * math.cos(3 * t) + math.sin(2 * t) * x**2 / 4


START = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]


@pytest.fixture(scope="module")
def reference() -> Tensor:
    return make_solver("rk4", 4000, 1).solve(velocity, START)


@pytest.mark.parametrize("name", FIXED_STEP)
def test_error_falls_with_the_declared_order(name: str, reference: Tensor) -> None:
    """Slope of log error on log step over 16 to 128 steps, within 0.15 of the order (higher terms bend it a little)."""
    steps = [16, 32, 64, 128]
    errors = [float((make_solver(name, count, 1).solve(velocity, START) - reference).abs().max()) for count in steps]
    slope = np.polyfit(np.log(1 / np.array(steps)), np.log(errors), 1)[0]
    assert abs(slope - FIXED_STEP[name].order) < 0.15


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_adaptive_error_follows_the_tolerance(tolerance: float, reference: Tensor) -> None:
    """The global error of a mild problem stays within 10 times the local tolerance."""
    assert (make_solver("dopri5", 1, tolerance).solve(velocity, START) - reference).abs().max() < 10 * tolerance


def test_adaptive_solution_of_one_sample_does_not_hide_behind_the_others() -> None:
    """A hard sample among a thousand trivial ones is solved as well as alone; an averaged norm would let its error grow 30-fold."""

    def mixed(t: float, x: Tensor) -> Tensor:
        hard = 20 * torch.cos(torch.tensor(20 * t, dtype=x.dtype)) * x[:1]
        return torch.cat([hard, torch.zeros_like(x[1:])])

    x = torch.ones(1001, 1, dtype=torch.float64)
    found = make_solver("dopri5", 1, 1e-5).solve(mixed, x)
    assert float(found[0]) == pytest.approx(float(make_solver("dopri5", 1, 1e-5).solve(mixed, x[:1])[0]), abs=1e-9)
    assert abs(float(found[0]) - math.exp(math.sin(20))) < 5e-4
    assert torch.equal(found[1:], x[1:])


@pytest.mark.parametrize("name", ODE_SOLVERS)
def test_backwards_undoes_forwards(name: str) -> None:
    """With 1,000 steps (tolerance 1e-8), to 1e-3 for order 1 and far less for the others."""
    solver = make_solver(name, 1000, 1e-8)
    there = solver.solve(velocity, START)
    assert (solver.solve(velocity, there, 1.0, 0.0) - START).abs().max() < (3e-3 if name == "euler" else 1e-5)


def test_evaluations_are_stages_times_steps() -> None:
    for name, stages in {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}.items():
        calls: list[float] = []
        make_solver(name, 7, 1).solve(lambda t, x, calls=calls: calls.append(t) or x, START)  # type: ignore[misc,func-returns-value]
        assert len(calls) == 7 * stages


def test_mistakes() -> None:
    with pytest.raises(UserError, match="unknown solver 'rk5'.*choose one of dopri5, euler, euler-maruyama, heun, midpoint, rk4"):
        make_solver("rk5", 1, 1)
    with pytest.raises(UserError, match="steps=0"):
        make_solver("euler", 0, 1)
    with pytest.raises(UserError, match="tolerance=0"):
        make_solver("dopri5", 1, 0)
    assert sorted([*FIXED_STEP, *ADAPTIVE, *SDE_SOLVERS]) == sorted(SOLVERS)


def test_adaptive_underflow_says_what_to_do() -> None:
    """x' = x^2 from 2 blows up at t = 1/2."""
    with pytest.raises(UserError, match="dopri5 could not reach tolerance=1e-06.*raise the tolerance"):
        make_solver("dopri5", 1, 1e-6).solve(lambda t, x: x**2, torch.full((1, 1), 2.0, dtype=torch.float64))
