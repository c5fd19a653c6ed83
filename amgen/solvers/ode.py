"""ODE solvers for dx/dt = v(t, x) between t = 0 and t = 1.

Fixed-step methods are explicit Runge-Kutta and Adams-Bashforth methods on any grid of times. Each is a small class with its order and its
cost: the number of evaluations of v, each of which is one gradient of the action. Adaptive methods are those of torchdiffeq, with a norm
that bounds the error of every sample instead of the average over the batch.

Start with `ab2` in 5 to 20 equal steps. Methods that do not evaluate v at t = 1 (`ab2`, `ab3`, `euler`, `midpoint`, `ralston`) need fewer
steps where v is steep near the data. Use an adaptive method for likelihoods and for references.
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
from amgen.core.names import ADAPTIVE_SOLVERS, FIXED_STEP_SOLVERS
from amgen.solvers.grids import StepGrid

Velocity = Callable[[float, Tensor], Tensor]
"""v(t, x) at a scalar time, shaped like x."""
Observer = Callable[[float, Tensor], None]
"""Is called with the time and the points, at the start and after each step."""


class ODESolver(ABC):
    """A solver of dx/dt = v(t, x).

    Attributes:
        order: global order of convergence, error = O(step^order).
    """

    order: ClassVar[int]

    @abstractmethod
    def solve(self, velocity: Velocity, x: Tensor, backward: bool = False, observe: Observer | None = None) -> Tensor:
        """Return the points at time 1 that start from `x` at time 0, or the other way round.

        Args:
            velocity: v(t, x).
            x: points, (B, ...).
            backward: solve from time 1 to time 0.
            observe: called with the time and the points, at the start and after each step.
        """


class FixedStepSolver(ODESolver):
    """A method that takes the steps of a grid.

    Args:
        grid: the times, used in reverse order when solving backwards.

    Attributes:
        evaluations: evaluations of v in each step; a multistep method needs one more at the start.
    """

    evaluations: ClassVar[int]

    def __init__(self, grid: StepGrid):
        self.grid = grid

    def solve(self, velocity: Velocity, x: Tensor, backward: bool = False, observe: Observer | None = None) -> Tensor:
        """Return `x` (B, ...) after all steps of the grid; arguments as for `ODESolver.solve`."""
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
        """Return `x` (B, ...) advanced from `start` to `end`; a multistep method keeps the velocities of earlier steps in `history`."""


class RungeKutta(FixedStepSolver):
    """An explicit Runge-Kutta method.

    Stage i evaluates k_i = v(t + nodes_i h, x + h sum_j matrix_ij k_j); a step adds h sum_i weights_i k_i.
    """

    nodes: ClassVar[Sequence[float]]
    matrix: ClassVar[Sequence[Sequence[float]]]
    weights: ClassVar[Sequence[float]]

    def step(self, velocity: Velocity, start: float, end: float, x: Tensor, history: list[tuple[float, Tensor]]) -> Tensor:
        """Return `x` (B, ...) advanced from `start` to `end`."""
        step = end - start
        slopes: list[Tensor] = []
        for node, row in zip(self.nodes, self.matrix, strict=True):
            # Exactly at the end of the step, which rounding could miss.
            slopes.append(velocity(end if node == 1 else start + node * step, _advance(x, step, row, slopes)))
        return _advance(x, step, self.weights, slopes)


def _advance(x: Tensor, step: float, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = torch.add(x, slope, alpha=step * weight)
    return x


class Euler(RungeKutta):
    """Euler's method: x + h v(t, x).

    Order 1, 1 evaluation per step. Choose it as a baseline, or where v hardly changes along the curves.

    Example:
        >>> import torch
        >>> from amgen.solvers import Euler, StepGrid
        >>> x = Euler(StepGrid(10)).solve(lambda t, x: -x, torch.ones(1, 1))
        >>> print(f"{x.item():.4f}")  # exp(-1) = 0.3679
        0.3487
    """

    order = 1
    evaluations = 1
    nodes = (0.0,)
    matrix = ((),)
    weights = (1.0,)


class Midpoint(RungeKutta):
    """The explicit midpoint rule: x + h v(t + h/2, x + h/2 v(t, x)).

    Order 2, 2 evaluations per step, none at t = 1. Choose it for very few steps. Reference: Runge, Math. Ann. 46 (1895).

    Example:
        >>> import torch
        >>> from amgen.solvers import Midpoint, StepGrid
        >>> x = Midpoint(StepGrid(10)).solve(lambda t, x: -x, torch.ones(1, 1))
        >>> print(f"{x.item():.4f}")  # exp(-1) = 0.3679
        0.3685
    """

    order = 2
    evaluations = 2
    nodes = (0.0, 0.5)
    matrix = ((), (0.5,))
    weights = (0.0, 1.0)


class Heun(RungeKutta):
    """Heun's method, the explicit trapezoidal rule: x + h/2 (v(t, x) + v(t + h, x + h v(t, x))).

    Order 2, 2 evaluations per step, one of them at the end of the step. Choose it where v is smooth up to t = 1. Reference: Heun, Z. Math.
    Phys. 45 (1900); for diffusion models, Karras et al., arXiv 2206.00364, algorithm 1.

    Example:
        >>> import torch
        >>> from amgen.solvers import Heun, StepGrid
        >>> x = Heun(StepGrid(10)).solve(lambda t, x: -x, torch.ones(1, 1))
        >>> print(f"{x.item():.4f}")  # exp(-1) = 0.3679
        0.3685
    """

    order = 2
    evaluations = 2
    nodes = (0.0, 1.0)
    matrix = ((), (1.0,))
    weights = (0.5, 0.5)


class Ralston(RungeKutta):
    """Ralston's method: nodes 0 and 2/3, weights 1/4 and 3/4.

    Order 2, 2 evaluations per step, none at t = 1. It has the smallest bound on the local error among the methods of order 2 with two
    evaluations. Choose it like `Midpoint`. Reference: Ralston, Math. Comp. 16 (1962).

    Example:
        >>> import torch
        >>> from amgen.solvers import Ralston, StepGrid
        >>> x = Ralston(StepGrid(10)).solve(lambda t, x: -x, torch.ones(1, 1))
        >>> print(f"{x.item():.4f}")  # exp(-1) = 0.3679
        0.3685
    """

    order = 2
    evaluations = 2
    nodes = (0.0, 2 / 3)
    matrix = ((), (2 / 3,))
    weights = (0.25, 0.75)


class RK4(RungeKutta):
    """The classical Runge-Kutta method.

    Order 4, 4 evaluations per step, one of them at the end of the step. Choose it for accuracy with 10 steps or more. Reference: Kutta, Z.
    Math. Phys. 46 (1901).

    Example:
        >>> import torch
        >>> from amgen.solvers import RK4, StepGrid
        >>> x = RK4(StepGrid(10)).solve(lambda t, x: -x, torch.ones(1, 1))
        >>> print(f"{x.item():.4f}")  # exp(-1) = 0.3679
        0.3679
    """

    order = 4
    evaluations = 4
    nodes = (0.0, 0.5, 0.5, 1.0)
    matrix = ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0))
    weights = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


class AdamsBashforth(FixedStepSolver):
    """An Adams-Bashforth method: it integrates the polynomial through the velocities of this step and of earlier ones, on any grid.

    1 evaluation per step. The first step is Heun's, with one more evaluation; its error is small enough for every order here. Each later
    step uses up to `order` velocities. Reference: Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, section III.5.
    """

    evaluations = 1

    def step(self, velocity: Velocity, start: float, end: float, x: Tensor, history: list[tuple[float, Tensor]]) -> Tensor:
        """Return `x` (B, ...) advanced from `start` to `end`."""
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
    """The Adams-Bashforth method of order 2, in equal steps: x + h (3/2 v_n - 1/2 v_(n-1)).

    Order 2, 1 evaluation per step and one more at the start, none at t = 1 after the first step. Choose it first: for few evaluations it
    was the best on all trained models here. Reference: as for `AdamsBashforth`.

    Example:
        >>> import torch
        >>> from amgen.solvers import AdamsBashforth2, StepGrid
        >>> x = AdamsBashforth2(StepGrid(10)).solve(lambda t, x: -x, torch.ones(1, 1))
        >>> print(f"{x.item():.4f}")  # exp(-1) = 0.3679
        0.3694
    """

    order = 2


class AdamsBashforth3(AdamsBashforth):
    """The Adams-Bashforth method of order 3, in equal steps: x + h (23/12 v_n - 16/12 v_(n-1) + 5/12 v_(n-2)).

    Order 3, 1 evaluation per step and one more at the start. Choose it for 10 steps or more where v is smooth. Reference: as for
    `AdamsBashforth`.

    Example:
        >>> import torch
        >>> from amgen.solvers import AdamsBashforth3, StepGrid
        >>> x = AdamsBashforth3(StepGrid(10)).solve(lambda t, x: -x, torch.ones(1, 1))
        >>> print(f"{x.item():.4f}")  # exp(-1) = 0.3679
        0.3680
    """

    order = 3


class AdaptiveSolver(ODESolver):
    """An embedded Runge-Kutta method of torchdiffeq, which chooses its own steps.

    A step is accepted if the scaled error of every sample is below 1. So the sample with the largest error determines the steps of a batch.

    Args:
        tolerance: relative and absolute tolerance of the error of each step.

    Raises:
        UserError: unless the tolerance is positive; from `solve`, if the steps become too small.
    """

    method: ClassVar[str]

    def __init__(self, tolerance: float):
        if not tolerance > 0:
            raise UserError(f"tolerance={tolerance}: expected a positive number")
        self.tolerance = tolerance

    def solve(self, velocity: Velocity, x: Tensor, backward: bool = False, observe: Observer | None = None) -> Tensor:
        """Return the points at the other end, as `ODESolver.solve`; an observer sees 33 equidistant times."""
        from torchdiffeq import odeint

        # The controller has the batch as one flat vector; this norm splits it into samples.
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
                # A step ends exactly at the last time. Otherwise it would pass it, where the action was never trained, and be interpolated.
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
    """Heun's method with Euler's as the error estimate.

    Order 2, 1 evaluation per attempted step and two at the start. Choose it for a low accuracy.

    Example:
        >>> import torch
        >>> from amgen.solvers import AdaptiveHeun
        >>> x = AdaptiveHeun(tolerance=1e-5).solve(lambda t, x: -x, torch.ones(1, 1))
        >>> print(f"{x.item():.4f}")  # exp(-1) = 0.3679
        0.3679
    """

    order = 2
    method = "adaptive_heun"


class Bosh3(AdaptiveSolver):
    """The method of Bogacki and Shampine.

    Order 3, 3 evaluations per attempted step and two at the start. Choose it for tolerances around 1e-2 to 1e-4. Reference: Appl. Math.
    Lett. 2 (1989).

    Example:
        >>> import torch
        >>> from amgen.solvers import Bosh3
        >>> x = Bosh3(tolerance=1e-5).solve(lambda t, x: -x, torch.ones(1, 1))
        >>> print(f"{x.item():.4f}")  # exp(-1) = 0.3679
        0.3679
    """

    order = 3
    method = "bosh3"


class Dopri5(AdaptiveSolver):
    """The method of Dormand and Prince.

    Order 5, 6 evaluations per attempted step and two at the start. Choose it first among the adaptive methods, for tolerances around 1e-4
    to 1e-6. Reference: J. Comput. Appl. Math. 6 (1980).

    Example:
        >>> import torch
        >>> from amgen.solvers import Dopri5
        >>> x = Dopri5(tolerance=1e-5).solve(lambda t, x: -x, torch.ones(1, 1))
        >>> print(f"{x.item():.4f}")  # exp(-1) = 0.3679
        0.3679
    """

    order = 5
    method = "dopri5"


class Dopri8(AdaptiveSolver):
    """The method of Prince and Dormand.

    Order 8, 13 evaluations per attempted step and two at the start. Choose it for references, with small tolerances in float64. Reference:
    J. Comput. Appl. Math. 7 (1981).

    Example:
        >>> import torch
        >>> from amgen.solvers import Dopri8
        >>> x = Dopri8(tolerance=1e-5).solve(lambda t, x: -x, torch.ones(1, 1))
        >>> print(f"{x.item():.4f}")  # exp(-1) = 0.3679
        0.3679
    """

    order = 8
    method = "dopri8"


FIXED_STEP: dict[str, type[FixedStepSolver]] = {name: globals()[solver] for name, solver in FIXED_STEP_SOLVERS.items()}
"""Fixed-step solvers by their names in a configuration."""

ADAPTIVE: dict[str, type[AdaptiveSolver]] = {name: globals()[solver] for name, solver in ADAPTIVE_SOLVERS.items()}
"""Adaptive solvers, likewise."""
