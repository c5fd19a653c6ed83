"""Solvers that carry samples from noise to data."""

from amgen.errors import unknown
from amgen.solvers.brownian import BrownianMotion
from amgen.solvers.ode import ADAPTIVE, FIXED_STEP, ODESolver
from amgen.solvers.sde import SDE_SOLVERS, SDESolver

__all__ = ["ADAPTIVE", "FIXED_STEP", "SDE_SOLVERS", "BrownianMotion", "ODESolver", "SDESolver", "make_solver"]


def make_solver(name: str, steps: int, tolerance: float) -> ODESolver | SDESolver:
    """Return the solver of that name; fixed-step ones take `steps`, adaptive ones `tolerance`.

    Raises:
        UserError: for an unknown name, listing the valid ones, or a value out of range.
    """
    if name in FIXED_STEP:
        return FIXED_STEP[name](steps)
    if name in SDE_SOLVERS:
        return SDE_SOLVERS[name](steps)
    if name in ADAPTIVE:
        return ADAPTIVE[name](tolerance)
    raise unknown("solver", name, [*FIXED_STEP, *ADAPTIVE, *SDE_SOLVERS])
