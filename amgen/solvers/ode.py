"""ODE solvers for dx/dt = v(t, x) from t = 0 to t = 1.

Fixed-step methods are explicit Runge-Kutta schemes, one small class each: a Butcher tableau and the order it proves. The adaptive
method is torchdiffeq's, with a norm that bounds the error of every sample and not of the batch's average.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from amgen.errors import UserError

Velocity = Callable[[float, Tensor], Tensor]
"""v(t, x) at a scalar time, shaped like x."""


class ODESolver(ABC):
    """Carries points along a velocity field.

    Attributes:
        order: global order of convergence, error = O(step^order).
    """

    order: ClassVar[int]

    @abstractmethod
    def solve(self, velocity: Velocity, x: Tensor, start: float = 0.0, end: float = 1.0) -> Tensor:
        """Carry `x` (B, ...) from time `start` to time `end`."""


class RungeKutta(ODESolver):
    """An explicit Runge-Kutta method with equal steps.

    Stage i evaluates k_i = v(t + nodes_i h, x + h sum_j matrix_ij k_j); a step adds h sum_i weights_i k_i.
    """

    nodes: ClassVar[Sequence[float]]
    matrix: ClassVar[Sequence[Sequence[float]]]
    weights: ClassVar[Sequence[float]]

    def __init__(self, steps: int):
        if steps < 1:
            raise UserError(f"steps={steps}: expected at least 1")
        self.steps = steps

    def solve(self, velocity: Velocity, x: Tensor, start: float = 0.0, end: float = 1.0) -> Tensor:
        """Carry `x` (B, ...) from time `start` to time `end`."""
        step = (end - start) / self.steps
        for number in range(self.steps):
            x = self.step(velocity, start + number * step, x, step)
        return x

    def step(self, velocity: Velocity, t: float, x: Tensor, step: float) -> Tensor:
        """Advance `x` from `t` to `t + step`."""
        slopes: list[Tensor] = []
        for node, row in zip(self.nodes, self.matrix, strict=True):
            slopes.append(velocity(t + node * step, _advance(x, step, row, slopes)))
        return _advance(x, step, self.weights, slopes)


def _advance(x: Tensor, step: float, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = x + (step * weight) * slope
    return x


class Euler(RungeKutta):
    """Order 1, one evaluation a step."""

    order = 1
    nodes = (0.0,)
    matrix = ((),)
    weights = (1.0,)


class Midpoint(RungeKutta):
    """Order 2, two evaluations a step."""

    order = 2
    nodes = (0.0, 0.5)
    matrix = ((), (0.5,))
    weights = (0.0, 1.0)


class Heun(RungeKutta):
    """The explicit trapezoid rule: order 2, two evaluations a step."""

    order = 2
    nodes = (0.0, 1.0)
    matrix = ((), (1.0,))
    weights = (0.5, 0.5)


class RK4(RungeKutta):
    """Kutta's classical method: order 4, four evaluations a step."""

    order = 4
    nodes = (0.0, 0.5, 0.5, 1.0)
    matrix = ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0))
    weights = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


class Dopri5(ODESolver):
    """Dormand and Prince's adaptive method of order 5, from torchdiffeq.

    A step is accepted when the scaled error of every sample is below 1, so that a batch is solved as well as its hardest member.
    """

    order = 5

    def __init__(self, tolerance: float):
        if not tolerance > 0:
            raise UserError(f"tolerance={tolerance}: expected a positive number")
        self.tolerance = tolerance

    def solve(self, velocity: Velocity, x: Tensor, start: float = 0.0, end: float = 1.0) -> Tensor:
        """Carry `x` (B, ...) from time `start` to time `end`."""
        from torchdiffeq import odeint

        # The controller sees the batch as one flat vector; this norm splits it into samples again.
        def worst_sample(error: Tensor) -> Tensor:
            return error.reshape(len(x), -1).square().mean(dim=1).sqrt().max()

        times = torch.tensor([start, end], dtype=torch.float64, device=x.device)
        try:
            path = odeint(
                lambda t, point: velocity(float(t), point),
                x,
                times,
                rtol=self.tolerance,
                atol=self.tolerance,
                method="dopri5",
                options={"norm": worst_sample, "dtype": torch.float64},
            )
        except AssertionError as error:
            raise UserError(
                f"dopri5 could not reach tolerance={self.tolerance} ({error}): raise the tolerance or use a fixed-step solver"
            ) from None
        return path[-1]


FIXED_STEP: dict[str, type[RungeKutta]] = {"euler": Euler, "heun": Heun, "midpoint": Midpoint, "rk4": RK4}
ADAPTIVE: dict[str, type[Dopri5]] = {"dopri5": Dopri5}
