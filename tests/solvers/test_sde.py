"""Brownian motion and the SDE solvers."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from amgen.errors import UserError
from amgen.solvers import BrownianMotion, SDESolver, make_solver


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


RATE, NOISE = 1.5, 0.8


def solve(name: str, steps: int, brownian: BrownianMotion, x: Tensor) -> Tensor:
    """Solve dx = -RATE x dt + NOISE (1 + t) dW."""
    solver = make_solver(name, steps, 1)
    assert isinstance(solver, SDESolver)
    return solver.solve(lambda t, x: -RATE * x, lambda t, x: x.new_full((), NOISE * (1 + t)), brownian, x)


@pytest.mark.parametrize("name", ["euler-maruyama"])
def test_strong_order(name: str) -> None:
    """The error against 4,096 steps of the same paths falls with the declared order: fitted slope within 0.15, over 500 paths."""
    brownian = BrownianMotion(0, range(500), (1,), dtype=torch.float64)
    x = torch.ones(500, 1, dtype=torch.float64)
    reference = solve(name, 4096, brownian, x)
    steps = [16, 32, 64, 128, 256]
    errors = [(solve(name, count, brownian, x) - reference).square().mean().sqrt().log2() for count in steps]
    slope = -(errors[-1] - errors[0]) / math.log2(steps[-1] / steps[0])
    assert float(slope) == pytest.approx(make_solver(name, 1, 1).strong_order, abs=0.15)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["euler-maruyama"])
def test_mean_and_variance(name: str) -> None:
    """Mean exp(-RATE) and the variance by quadrature: 5,000 paths, 5 standard errors and the bias of 256 steps."""
    brownian = BrownianMotion(1, range(5000), (1,), dtype=torch.float64)
    end = solve(name, 256, brownian, torch.ones(5000, 1, dtype=torch.float64))
    s = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    variance = float(torch.trapezoid((NOISE * (1 + s)) ** 2 * (-2 * RATE * (1 - s)).exp(), s))
    assert float(end.mean()) == pytest.approx(math.exp(-RATE), abs=5 * (variance / 5000) ** 0.5 + 0.002)
    assert float(end.var()) == pytest.approx(variance, rel=5 * (2 / 5000) ** 0.5 + 0.01)


def test_bad_settings() -> None:
    with pytest.raises(UserError, match="steps=0: expected at least 1"):
        make_solver("euler-maruyama", 0, 1)
