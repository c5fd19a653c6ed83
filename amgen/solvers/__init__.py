"""Solvers that carry samples along a velocity field."""

from amgen.solvers.ode import ADAPTIVE, RK4, Dopri5, Euler, Heun, Midpoint, RungeKutta, Solver, make_solver

__all__ = ["ADAPTIVE", "RK4", "Dopri5", "Euler", "Heun", "Midpoint", "RungeKutta", "Solver", "make_solver"]
