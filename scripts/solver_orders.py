"""The order of every solver, measured: global error against step in float64, by a fit of log on log over five or more halvings.

ODE: dx/dt = x cos(3t) + sin(2t) x^2 / 4 against 4,000 steps of rk4, on three step grids. SDE, strong: dx = (sin x - 1.5 x) dt + 0.8 (1 +
t) dW, root mean square over the same Brownian paths against 1,024 steps of sra1. SDE, weak: mean and variance of dx = -1.5 x dt + 0.8 (1 +
t) dW; its steps are linear in x and in the noise, so that both moments are propagated without sampling, against the exact ones.

Exit code 1 if a measured order falls short of the declared one by more than 0.25.
"""

import argparse
import math
import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from amgen.solvers import FIXED_STEP, GRIDS, SDE_SOLVERS, BrownianMotion, SDESolver, StepGrid

RATE, NOISE = 1.5, 0.8


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", type=int, default=200, help="Brownian paths for the strong order")
    options = parser.parse_args()
    short = []
    print(f"{'ODE solver':16} {'declared':>8}  {'  '.join(f'{kind:>10}' for kind in GRIDS)}")
    for name in FIXED_STEP:
        declared, found = FIXED_STEP[name].order, [ode_order(name, kind) for kind in GRIDS]
        print(f"{name:16} {declared:8}  {'  '.join(f'{order:10.2f}' for order in found)}")
        short += [name for order in found if order < declared - 0.25]
    print(f"\n{'SDE solver':16} {'strong':>8}  {'measured':>8}  {'weak':>8}  {'mean':>8}  {'variance':>8}")
    for name, solver in SDE_SOLVERS.items():
        strong, (mean, variance) = strong_order(name, options.paths), weak_orders(name)
        print(f"{name:16} {solver.strong_order:8}  {strong:8.2f}  {solver.weak_order:8}  {mean:8.2f}  {variance:8.2f}")
        short += [name] if strong < solver.strong_order - 0.25 or min(mean, variance) < solver.weak_order - 0.25 else []
    if short:
        sys.exit(f"short of the declared order: {', '.join(short)}")


def slope(steps: Sequence[int], errors: Sequence[float]) -> float:
    """Return the fitted order."""
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0])


def ode_order(name: str, kind: str) -> float:
    """Measure the order of an ODE solver on one kind of grid."""

    def velocity(t: float, x: Tensor) -> Tensor:
        return x * math.cos(3 * t) + math.sin(2 * t) * x**2 / 4

    start = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    reference = FIXED_STEP["rk4"](StepGrid(4000)).solve(velocity, start)
    steps = [16, 32, 64, 128, 256, 512]
    return slope(steps, [float((FIXED_STEP[name](StepGrid(n, kind)).solve(velocity, start) - reference).abs().max()) for n in steps])


def strong_order(name: str, paths: int) -> float:
    """Measure the strong order of an SDE solver."""
    brownian = BrownianMotion(0, range(paths), (1,), dtype=torch.float64)
    start = torch.ones(paths, 1, dtype=torch.float64)

    def solve(solver: type[SDESolver], steps: int) -> Tensor:
        return solver(StepGrid(steps)).solve(lambda t, x: x.sin() - RATE * x, _noise, brownian, start)

    reference = solve(SDE_SOLVERS["sra1"], 1024)
    steps = [8, 16, 32, 64, 128]
    return slope(steps, [float((solve(SDE_SOLVERS[name], n) - reference).square().mean().sqrt()) for n in steps])


def weak_orders(name: str) -> tuple[float, float]:
    """Measure the orders of the mean and of the variance."""
    steps = [16, 32, 64, 128, 256]
    means, variances = zip(*(weak_errors(SDE_SOLVERS[name], n) for n in steps), strict=True)
    return slope(steps, means), slope(steps, variances)


def weak_errors(solver: type[SDESolver], steps: int) -> tuple[float, float]:
    """Return the errors of the mean and the variance at t = 1 of the linear equation, started at x = 1."""
    method, mean, variance, h = solver(StepGrid(steps)), 1.0, 0.0, 1 / steps

    def one(x: float, increment: float, area: float, start: float) -> float:
        point = torch.tensor([[x]], dtype=torch.float64)
        noise, integral = torch.tensor([[increment]], dtype=torch.float64), torch.tensor([[area]], dtype=torch.float64)
        return float(method.step(lambda t, x: -RATE * x, _noise, start, start + h, point, noise, integral))

    for number in range(steps):
        # x <- r x + a dW + b I, with Var dW = h, Cov(dW, I) = h^2/2, Var I = h^3/3
        r, a, b = one(1, 0, 0, number * h), one(0, 1, 0, number * h), one(0, 0, 1, number * h)
        mean, variance = r * mean, r**2 * variance + a**2 * h + a * b * h**2 + b**2 * h**3 / 3
    # int_0^1 NOISE^2 (1 + s)^2 exp(-2 RATE (1 - s)) ds by Gauss-Legendre, exact to rounding
    nodes, weights = np.polynomial.legendre.leggauss(30)
    s = (nodes + 1) / 2
    exact = float((weights / 2 * (NOISE * (1 + s)) ** 2 * np.exp(-2 * RATE * (1 - s))).sum())
    return abs(mean - math.exp(-RATE)), abs(variance - exact)


def _noise(t: float, x: Tensor) -> Tensor:
    return x.new_full((), NOISE * (1 + t))


if __name__ == "__main__":
    main()
