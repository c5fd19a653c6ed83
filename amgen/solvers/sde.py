"""SDE solvers for dx = b(t, x) dt + g(t) dW from t = 0 to t = 1."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from amgen.errors import UserError
from amgen.solvers.brownian import BrownianMotion

Drift = Callable[[float, Tensor], Tensor]
"""b(t, x) at a scalar time, shaped like x."""
Diffusion = Callable[[float, Tensor], Tensor]
"""g(t) for points x, broadcastable to x; it depends on x by nothing but its shape."""


class SDESolver(ABC):
    """Carries points along a stochastic differential equation with additive noise.

    Attributes:
        strong_order: error of single paths, O(step^strong_order).
    """

    strong_order: ClassVar[float]

    def __init__(self, steps: int):
        if steps < 1:
            raise UserError(f"steps={steps}: expected at least 1")
        self.steps = steps

    def solve(self, drift: Drift, diffusion: Diffusion, brownian: BrownianMotion, x: Tensor) -> Tensor:
        """Carry `x` (B, ...) from time 0 to time 1 along the noise of `brownian`."""
        for number in range(self.steps):
            x = self.step(drift, diffusion, brownian, number / self.steps, (number + 1) / self.steps, x)
        return x

    @abstractmethod
    def step(self, drift: Drift, diffusion: Diffusion, brownian: BrownianMotion, start: float, end: float, x: Tensor) -> Tensor:
        """Advance `x` from time `start` to time `end`."""


class EulerMaruyama(SDESolver):
    """x + h b(t, x) + g(t) (W(t + h) - W(t)): one evaluation a step, strong order 1 because the noise is additive."""

    strong_order = 1.0

    def step(self, drift: Drift, diffusion: Diffusion, brownian: BrownianMotion, start: float, end: float, x: Tensor) -> Tensor:
        """Advance `x` from time `start` to time `end`."""
        return x + (end - start) * drift(start, x) + diffusion(start, x) * brownian.increment(start, end)


SDE_SOLVERS: dict[str, type[SDESolver]] = {"euler-maruyama": EulerMaruyama}
