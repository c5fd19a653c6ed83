"""Do solvers converge with the order that they declare? Global error against the step in float64, fitted as a line of log on log.

ODE: dx/dt = x cos(3t) + sin(2t) x^2 / 4 against 4,000 steps of rk4, on three step grids. SDE, strong: dx = (sin x - 1.5 x) dt + 0.8 (1 +
t) dW, root mean square over the same Brownian paths against 1,024 steps of sra1. SDE, weak: mean and variance of dx = -1.5 x dt + 0.8 (1 +
t) dW; its steps are linear in x and in the noise, so that both moments are propagated without sampling, against the exact ones.

Exit code 1 if a measured order falls short of the declared one by more than 0.25. Takes half a minute on one core.
"""

import math
import sys
from collections.abc import Sequence

import numpy as np
import torch
from timing import new_parser, parse, print_conditions, print_table, script
from torch import Tensor

from amgen.solvers import FIXED_STEP, GRIDS, SDE_SOLVERS, BrownianMotion, SDESolver, StepGrid

RATE, NOISE = 1.5, 0.8
SOLVERS = [*FIXED_STEP, *SDE_SOLVERS]
TOLERANCE = 0.25
"""How far a measured order may be below the declared one."""


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and exit with code 1 if a solver is short of its order."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("--paths", type=int, default=200, help="Brownian paths for the strong order")
    parser.add_argument(
        "--solvers", nargs="+", type=str, choices=SOLVERS, default=SOLVERS, metavar="NAME", help="solvers to measure; default: all"
    )
    options = parse(parser, arguments)
    short = []
    rows: list[list[object]] = []
    for name in [name for name in FIXED_STEP if name in options.solvers]:
        declared, orders = FIXED_STEP[name].order, [ode_order(name, kind) for kind in GRIDS]
        rows.append([name, declared, *(f"{order:.2f}" for order in orders)])
        short += [name] if min(orders) < declared - TOLERANCE else []
    if rows:
        print_table(["ODE solver", "declared", *GRIDS], rows)
    rows = []
    for name in [name for name in SDE_SOLVERS if name in options.solvers]:
        solver, strong, (mean, variance) = SDE_SOLVERS[name], strong_order(name, options.paths), weak_orders(name)
        rows.append([name, solver.strong_order, f"{strong:.2f}", solver.weak_order, f"{mean:.2f}", f"{variance:.2f}"])
        is_short = strong < solver.strong_order - TOLERANCE or min(mean, variance) < solver.weak_order - TOLERANCE
        short += [name] if is_short else []
    if rows:
        print_table(["SDE solver", "strong", "measured", "weak", "mean", "variance"], rows, title="Stochastic solvers:")
    print_conditions(options, "float64", f"strong orders over {options.paths} Brownian paths")
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
