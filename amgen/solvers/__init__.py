"""Solvers that carry samples between noise and data."""

from amgen.core.errors import unknown
from amgen.solvers.brownian import BrownianMotion
from amgen.solvers.grids import GRIDS, StepGrid
from amgen.solvers.ode import ADAPTIVE, FIXED_STEP, ODESolver
from amgen.solvers.sde import SDE_SOLVERS, SDESolver

__all__ = ["ADAPTIVE", "FIXED_STEP", "GRIDS", "SDE_SOLVERS", "BrownianMotion", "ODESolver", "SDESolver", "StepGrid", "make_solver"]


def make_solver(name: str, grid: StepGrid, tolerance: float) -> ODESolver | SDESolver:
    """Return the solver of that name; those of fixed steps take `grid`, adaptive ones `tolerance`.

    Raises:
        UserError: for an unknown name, listing the valid ones, or a value out of range.
    """
    if name in FIXED_STEP:
        return FIXED_STEP[name](grid)
    if name in SDE_SOLVERS:
        return SDE_SOLVERS[name](grid)
    if name in ADAPTIVE:
        return ADAPTIVE[name](tolerance)
    raise unknown("solver", name, sorted([*FIXED_STEP, *ADAPTIVE, *SDE_SOLVERS]))
