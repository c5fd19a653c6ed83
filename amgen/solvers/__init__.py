"""Solvers of the ODEs and SDEs that transform noise into data.

- `ode`: fixed-step solvers (Euler, AdamsBashforth2, ...) and adaptive ones (Dopri5, ...)
- `sde`: solvers of SDEs with additive noise (StochasticHeun, SRA1, ...)
- `grids`: StepGrid: where the steps of a fixed-step solver lie
- `brownian`: Brownian motion that depends on the seed and the index of the sample only
"""

from amgen.core.errors import unknown
from amgen.solvers.brownian import BrownianMotion
from amgen.solvers.grids import GRIDS, StepGrid
from amgen.solvers.ode import (
    ADAPTIVE,
    FIXED_STEP,
    RK4,
    AdamsBashforth2,
    AdamsBashforth3,
    AdaptiveHeun,
    Bosh3,
    Dopri5,
    Dopri8,
    Euler,
    Heun,
    Midpoint,
    ODESolver,
    Ralston,
)
from amgen.solvers.sde import SDE_SOLVERS, SRA1, EulerMaruyama, SDESolver, StochasticHeun

__all__ = [
    "ADAPTIVE",
    "FIXED_STEP",
    "GRIDS",
    "RK4",
    "SDE_SOLVERS",
    "SRA1",
    "AdamsBashforth2",
    "AdamsBashforth3",
    "AdaptiveHeun",
    "Bosh3",
    "BrownianMotion",
    "Dopri5",
    "Dopri8",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "Midpoint",
    "ODESolver",
    "Ralston",
    "SDESolver",
    "StepGrid",
    "StochasticHeun",
    "make_solver",
]


def make_solver(name: str, grid: StepGrid, tolerance: float) -> ODESolver | SDESolver:
    """Return the solver of that name.

    Args:
        name: a key of `FIXED_STEP`, `ADAPTIVE` or `SDE_SOLVERS`.
        grid: steps of a fixed-step or SDE solver; not used by adaptive ones.
        tolerance: tolerance of an adaptive solver; not used by the others.

    Raises:
        UserError: for an unknown name, listing the valid ones, or a value out of range.

    Example:
        >>> from amgen.solvers import StepGrid, make_solver
        >>> solver = make_solver("heun", StepGrid(20), tolerance=1e-4)
        >>> solver.order, solver.evaluations
        (2, 2)
    """
    if name in FIXED_STEP:
        return FIXED_STEP[name](grid)
    if name in SDE_SOLVERS:
        return SDE_SOLVERS[name](grid)
    if name in ADAPTIVE:
        return ADAPTIVE[name](tolerance)
    raise unknown("solver", name, sorted([*FIXED_STEP, *ADAPTIVE, *SDE_SOLVERS]))
