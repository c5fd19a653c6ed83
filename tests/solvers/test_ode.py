import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from amgen.config import ODE_SOLVERS, SDE_SOLVERS
from amgen.core.errors import UserError
from amgen.solvers import ADAPTIVE, FIXED_STEP, GRIDS, ODESolver, StepGrid, make_solver
from amgen.solvers import SDE_SOLVERS as SDE


def velocity(t: float, x: Tensor) -> Tensor:
    """dx/dt = x cos(3t) + sin(2t) x^2 / 4: non-linear and not autonomous, so that no order comes for free."""
    return x * math.cos(3 * t) + math.sin(2 * t) * x**2 / 4


START = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]


def make(name: str, steps: int, kind: str = "uniform", tolerance: float = 1e-8) -> ODESolver:
    solver = make_solver(name, StepGrid(steps, kind), tolerance)
    assert isinstance(solver, ODESolver)
    return solver


@pytest.fixture(scope="module")
def reference() -> Tensor:
    return make("rk4", 4000).solve(velocity, START)


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("name", FIXED_STEP)
def test_order_of_convergence(name: str, kind: str, reference: Tensor) -> None:
    """The slope of log error on log step, over five halvings, is the declared order to within 0.15, on every grid."""
    steps = [16, 32, 64, 128, 256, 512]
    errors = [float((make(name, count, kind).solve(velocity, START) - reference).abs().max()) for count in steps]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(slope - FIXED_STEP[name].order) < 0.15, errors


def test_orders_are_those_of_the_methods() -> None:
    """As the literature names them; what is declared is measured above and could be another method's."""
    orders = {"ab2": 2, "ab3": 3, "euler": 1, "heun": 2, "midpoint": 2, "ralston": 2, "rk4": 4}
    assert {name: solver.order for name, solver in FIXED_STEP.items()} == orders
    assert {name: solver.order for name, solver in ADAPTIVE.items()} == {"adaptive-heun": 2, "bosh3": 3, "dopri5": 5, "dopri8": 8}


def test_stages_lie_where_the_methods_put_them() -> None:
    """Times of a single step from 0 to 1, from Butcher's tableaux; some orders forgive another place of the first stage."""
    places = {"euler": [0.0], "midpoint": [0, 0.5], "heun": [0.0, 1.0], "ralston": [0.0, 2 / 3], "rk4": [0, 0.5, 0.5, 1]}
    for name, expected in places.items():
        times: list[float] = []
        make(name, 1).solve(lambda t, x, times=times: times.append(t) or x, START)  # type: ignore[misc,func-returns-value]
        assert times == pytest.approx(expected)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_error_follows_the_tolerance(name: str, reference: Tensor) -> None:
    """The tolerance bounds the error of a step; over the whole way it stays within 300 times that, and falls with it."""
    errors = [float((make(name, 1, tolerance=tolerance).solve(velocity, START) - reference).abs().max()) for tolerance in (1e-4, 1e-7)]
    assert errors[0] < 300e-4
    assert errors[1] < min(300e-7, errors[0] / 20)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_solver_serves_the_hardest_sample(name: str) -> None:
    """One stiff sample among 63 idle ones is solved as if it were alone; an average over the batch would neglect it."""

    def mixed(t: float, x: Tensor) -> Tensor:
        return torch.cat([x[:1] * (20 * math.cos(20 * t)), 0 * x[1:]])

    x = torch.ones(64, 1, dtype=torch.float64)
    found = make(name, 1, tolerance=1e-5).solve(mixed, x)
    assert float(found[0]) == pytest.approx(float(make(name, 1, tolerance=1e-5).solve(mixed, x[:1])[0]), abs=1e-9)


@pytest.mark.parametrize("name", ODE_SOLVERS)
def test_backwards_undoes_forwards(name: str) -> None:
    """With 1,000 steps (tolerance 1e-8), to 3e-3 for order 1 and far less for the others."""
    solver = make(name, 1000)
    there = solver.solve(velocity, START)
    assert (solver.solve(velocity, there, backward=True) - START).abs().max() < (3e-3 if name == "euler" else 1e-5)


def test_evaluations_are_as_declared() -> None:
    """Per step; multistep methods take one more at the start."""
    for name, solver in FIXED_STEP.items():
        calls: list[float] = []
        make(name, 7).solve(lambda t, x, calls=calls: calls.append(t) or x, START)  # type: ignore[misc,func-returns-value]
        assert len(calls) == 7 * solver.evaluations + (name in ("ab2", "ab3"))
        assert max(calls) <= 1


@pytest.mark.parametrize("name", ["heun", "dopri5"])
@pytest.mark.parametrize("backward", [False, True])
def test_observers_see_every_step(name: str, backward: bool) -> None:
    seen: list[tuple[float, Tensor]] = []
    end = make(name, 6).solve(velocity, START, backward=backward, observe=lambda t, x: seen.append((t, x)))
    times = [t for t, _ in seen]
    assert (times[0], times[-1]) == ((1.0, 0.0) if backward else (0.0, 1.0))
    assert len(times) == (7 if name == "heun" else 33)
    assert torch.equal(seen[0][1], START)
    assert torch.equal(seen[-1][1], end)


@pytest.mark.parametrize("name", sorted(ADAPTIVE))
@pytest.mark.parametrize("backward", [False, True])
def test_adaptive_solvers_stay_within_the_path(name: str, backward: bool) -> None:
    """An action is not trained outside [0, 1]: no step may reach beyond."""
    times: list[float] = []

    def watched(t: float, x: Tensor) -> Tensor:
        times.append(t)
        return velocity(t, x)

    make(name, 1, tolerance=1e-3).solve(watched, START, backward=backward)
    assert 0 <= min(times) < 0.1
    assert 0.9 < max(times) <= 1


def test_grids() -> None:
    assert StepGrid(4).times() == [0, 0.25, 0.5, 0.75, 1]
    assert StepGrid(2, "polynomial", 3.0).times() == pytest.approx([0, 7 / 8, 1])
    assert StepGrid(4, "polynomial").times() == pytest.approx([0, 7 / 16, 3 / 4, 15 / 16, 1])
    assert StepGrid(4, "cosine").times() == pytest.approx([0, 0.5 - 0.5**1.5, 0.5, 0.5 + 0.5**1.5, 1])
    for kind in GRIDS:
        times = StepGrid(9, kind).times()
        assert times == sorted(times)
        assert (times[0], times[-1], len(times)) == (0, 1, 10)


def test_mistakes() -> None:
    with pytest.raises(UserError, match="unknown solver 'rk5'.*choose one of ab2, ab3, adaptive-heun"):
        make_solver("rk5", StepGrid(1), 1)
    with pytest.raises(UserError, match="steps=0"):
        StepGrid(0)
    with pytest.raises(UserError, match="unknown step grid 'cosin'"):
        StepGrid(1, "cosin")
    with pytest.raises(UserError, match="rho=0"):
        StepGrid(1, "polynomial", 0)
    with pytest.raises(UserError, match="tolerance=0"):
        make_solver("dopri5", StepGrid(1), 0)
    assert sorted([*FIXED_STEP, *ADAPTIVE]) == sorted(ODE_SOLVERS)
    assert sorted(SDE) == sorted(SDE_SOLVERS)


def test_underflow_is_an_error_that_says_what_to_do() -> None:
    """A velocity that blows up before t = 1 has no step small enough."""
    with pytest.raises(UserError, match="dopri5 could not reach tolerance.*raise the tolerance or use a fixed-step solver"):
        make("dopri5", 1, tolerance=1e-6).solve(lambda t, x: x**2, torch.full((1, 1), 2.0, dtype=torch.float64))


def test_orders_are_printed_and_hold() -> None:
    """The script that prints the table finds each declared order."""
    script = Path(__file__).parents[2] / "scripts" / "benchmarks" / "solver_orders.py"
    found = subprocess.run([sys.executable, script, "--paths", "60"], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    for name in [*FIXED_STEP, *SDE]:
        assert f"\n| {name} " in found.stdout
