"""The solver that the sampling settings name, and its description in reports."""

from typing import Any

from amgen.config import SamplingConfig
from amgen.solvers import ADAPTIVE, ODESolver, SDESolver, StepGrid, make_solver


def solver_of(options: SamplingConfig) -> ODESolver | SDESolver:
    """Return the solver that the options name."""
    return make_solver(options.solver, StepGrid(options.steps, options.step_grid, options.rho), options.tolerance)


def describe_solver(options: SamplingConfig) -> dict[str, Any]:
    """Return the solver's name and those of the options that it uses, for reports."""
    if options.solver in ADAPTIVE:
        return {"solver": options.solver, "tolerance": options.tolerance}
    grid: dict[str, dict[str, Any]] = {
        "uniform": {},
        "cosine": {"step_grid": "cosine"},
        "polynomial": {"step_grid": "polynomial", "rho": options.rho},
    }
    noise = {"noise_level": options.noise_level} if options.noise_level else {}
    return {"solver": options.solver, "steps": options.steps, **grid[options.step_grid], **noise}
