"""ODE solvers for dx/dt = v(t, x) between t = 0 and t = 1.

Fixed-step methods are small classes, each with the order it proves, on any grid of times: explicit Runge-Kutta schemes and Adams-Bashforth
ones. Adaptive methods are torchdiffeq's, with a norm that bounds the error of every sample and not of the batch's average.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from amgen.core.devices import has_float64
from amgen.core.errors import UserError
from amgen.solvers.grids import StepGrid

Velocity = Callable[[float, Tensor], Tensor]
"""v(t, x) at a scalar time, shaped like x."""
Observer = Callable[[float, Tensor], None]
"""Is shown the time and the points, at the start and after each step."""


class ODESolver(ABC):
    """Carries points along a velocity field.

    Attributes:
        order: global order of convergence, error = O(step^order).
    """

    order: ClassVar[int]

    @abstractmethod
    def solve(self, velocity: Velocity, x: Tensor, backward: bool = False, observe: Observer | None = None) -> Tensor:
        """Carry `x` (B, ...) from time 0 to time 1, or back."""


class FixedStepSolver(ODESolver):
    """A method that takes the steps of a grid.

    Args:
        grid: the times; from the last to the first when solving backwards.
    """

    evaluations: ClassVar[int]
    """Velocities a step, but for the start of a multistep method."""

    def __init__(self, grid: StepGrid):
        self.grid = grid

    def solve(self, velocity: Velocity, x: Tensor, backward: bool = False, observe: Observer | None = None) -> Tensor:
        """Carry `x` (B, ...) along the grid."""
        times = self.grid.times()
        times = times[::-1] if backward else times
        history: list[tuple[float, Tensor]] = []
        if observe is not None:
            observe(times[0], x)
        for start, end in pairwise(times):
            x = self.step(velocity, start, end, x, history)
            if observe is not None:
                observe(end, x)
        return x

    @abstractmethod
    def step(self, velocity: Velocity, start: float, end: float, x: Tensor, history: list[tuple[float, Tensor]]) -> Tensor:
        """Advance `x` from `start` to `end`; `history` is the solver's own, for the velocities of earlier steps."""


class RungeKutta(FixedStepSolver):
    """An explicit Runge-Kutta method.

    Stage i evaluates k_i = v(t + nodes_i h, x + h sum_j matrix_ij k_j); a step adds h sum_i weights_i k_i.
    """

    nodes: ClassVar[Sequence[float]]
    matrix: ClassVar[Sequence[Sequence[float]]]
    weights: ClassVar[Sequence[float]]

    def step(self, velocity: Velocity, start: float, end: float, x: Tensor, history: list[tuple[float, Tensor]]) -> Tensor:
        """Advance `x` from `start` to `end`."""
        step = end - start
        slopes: list[Tensor] = []
        for node, row in zip(self.nodes, self.matrix, strict=True):
            # The last node lies at the end of the grid exactly, not a rounding beyond it.
            slopes.append(velocity(end if node == 1 else start + node * step, _advance(x, step, row, slopes)))
        return _advance(x, step, self.weights, slopes)


def _advance(x: Tensor, step: float, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = torch.add(x, slope, alpha=step * weight)
    return x


class Euler(RungeKutta):
    """Order 1, one evaluation a step."""

    order = 1
    evaluations = 1
    nodes = (0.0,)
    matrix = ((),)
    weights = (1.0,)


class Midpoint(RungeKutta):
    """Order 2, two evaluations a step."""

    order = 2
    evaluations = 2
    nodes = (0.0, 0.5)
    matrix = ((), (0.5,))
    weights = (0.0, 1.0)


class Heun(RungeKutta):
    """The explicit trapezoid rule: order 2, two evaluations a step."""

    order = 2
    evaluations = 2
    nodes = (0.0, 1.0)
    matrix = ((), (1.0,))
    weights = (0.5, 0.5)


class Ralston(RungeKutta):
    """The method of order 2 in two evaluations with the least bound on its error."""

    order = 2
    evaluations = 2
    nodes = (0.0, 2 / 3)
    matrix = ((), (2 / 3,))
    weights = (0.25, 0.75)


class RK4(RungeKutta):
    """Kutta's classical method: order 4, four evaluations a step."""

    order = 4
    evaluations = 4
    nodes = (0.0, 0.5, 0.5, 1.0)
    matrix = ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0))
    weights = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


class AdamsBashforth(FixedStepSolver):
    """A multistep method: integrates the polynomial through the velocities of this and earlier steps, on any grid.

    One evaluation a step. The first step of all is Heun's, with one more evaluation, whose error is small enough for every order here;
    later ones use as many earlier velocities as there are.
    """

    evaluations = 1

    def step(self, velocity: Velocity, start: float, end: float, x: Tensor, history: list[tuple[float, Tensor]]) -> Tensor:
        """Advance `x` from `start` to `end`."""
        history.insert(0, (start, velocity(start, x)))
        del history[self.order :]
        step, slopes = end - start, [slope for _, slope in history]
        if len(history) == 1 and self.order > 1:
            return _advance(x, step, (0.5, 0.5), [slopes[0], velocity(end, _advance(x, step, (1.0,), slopes))])
        # Weights that integrate 1, tau, tau^2 ... exactly over the step, tau in units of it.
        places = [(time - start) / step for time, _ in history]
        powers = np.vander(places, increasing=True).T
        weights = np.linalg.solve(powers, 1 / np.arange(1, len(places) + 1))
        return _advance(x, step, weights.tolist(), slopes)


class AdamsBashforth2(AdamsBashforth):
    """Order 2."""

    order = 2


class AdamsBashforth3(AdamsBashforth):
    """Order 3."""

    order = 3


class AdaptiveSolver(ODESolver):
    """A method of torchdiffeq that chooses its own steps.

    A step is accepted when the scaled error of every sample is below 1, so that a batch is solved as well as its hardest member.

    Args:
        tolerance: relative and absolute error allowed in a step.
    """

    method: ClassVar[str]

    def __init__(self, tolerance: float):
        if not tolerance > 0:
            raise UserError(f"tolerance={tolerance}: expected a positive number")
        self.tolerance = tolerance

    def solve(self, velocity: Velocity, x: Tensor, backward: bool = False, observe: Observer | None = None) -> Tensor:
        """Carry `x` (B, ...) from time 0 to time 1, or back; an observer is shown 33 equidistant times."""
        from torchdiffeq import odeint

        # The controller sees the batch as one flat vector; this norm splits it into samples again.
        def worst_sample(error: Tensor) -> Tensor:
            return error.reshape(len(x), -1).square().mean(dim=1).sqrt().max()

        ends = (1.0, 0.0) if backward else (0.0, 1.0)
        exact = torch.float64 if has_float64(x.device) else torch.float32
        times = torch.linspace(*ends, 2 if observe is None else 33, dtype=exact, device=x.device)
        try:
            path = odeint(
                lambda t, point: velocity(float(t), point),
                x,
                times,
                rtol=self.tolerance,
                atol=self.tolerance,
                method=self.method,
                # A step ends exactly at the end; otherwise it overshoots, where the action was never trained, and is interpolated back.
                options={"norm": worst_sample, "dtype": exact, "step_t": times[-1:]},
            )
        except AssertionError as error:
            raise UserError(
                f"{self.method} could not reach tolerance={self.tolerance} ({error}): raise the tolerance or use a fixed-step solver"
            ) from None
        if observe is not None:
            for time, points in zip(times.tolist(), path, strict=True):
                observe(time, points)
        return path[-1]


class AdaptiveHeun(AdaptiveSolver):
    """Heun and Euler, order 2."""

    order = 2
    method = "adaptive_heun"


class Bosh3(AdaptiveSolver):
    """Bogacki and Shampine, order 3."""

    order = 3
    method = "bosh3"


class Dopri5(AdaptiveSolver):
    """Dormand and Prince, order 5."""

    order = 5
    method = "dopri5"


class Dopri8(AdaptiveSolver):
    """Dormand and Prince, order 8."""

    order = 8
    method = "dopri8"


FIXED_STEP: dict[str, type[FixedStepSolver]] = {
    "ab2": AdamsBashforth2,
    "ab3": AdamsBashforth3,
    "euler": Euler,
    "heun": Heun,
    "midpoint": Midpoint,
    "ralston": Ralston,
    "rk4": RK4,
}
ADAPTIVE: dict[str, type[AdaptiveSolver]] = {
    "adaptive-heun": AdaptiveHeun,
    "bosh3": Bosh3,
    "dopri5": Dopri5,
    "dopri8": Dopri8,
}
