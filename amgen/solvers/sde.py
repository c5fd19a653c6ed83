"""SDE solvers for dx = b(t, x) dt + g(t) dW from t = 0 to t = 1; the noise is additive."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from amgen.solvers.brownian import BrownianMotion
from amgen.solvers.grids import StepGrid

Drift = Callable[[float, Tensor], Tensor]
"""b(t, x) at a scalar time, shaped like x."""
Diffusion = Callable[[float, Tensor], Tensor]
"""g(t) for points x, broadcastable to x; it depends on x by nothing but its shape."""
Observer = Callable[[float, Tensor], None]
"""Is shown the time and the points, at the start and after each step."""


class SDESolver(ABC):
    """Carries points along a stochastic differential equation with additive noise.

    Args:
        grid: the times.

    Attributes:
        strong_order: error of single paths, O(step^strong_order).
        weak_order: error of the mean and the variance, O(step^weak_order).
        evaluations: drifts a step.
    """

    strong_order: ClassVar[float]
    weak_order: ClassVar[int]
    evaluations: ClassVar[int]

    def __init__(self, grid: StepGrid):
        self.grid = grid

    def solve(self, drift: Drift, diffusion: Diffusion, brownian: BrownianMotion, x: Tensor, observe: Observer | None = None) -> Tensor:
        """Carry `x` (B, ...) from time 0 to time 1 along the noise of `brownian`."""
        times = self.grid.times()
        if observe is not None:
            observe(0.0, x)
        for (start, end), (noise, area) in zip(pairwise(times), brownian.steps(times), strict=True):
            x = self.step(drift, diffusion, start, end, x, noise, area)
            if observe is not None:
                observe(end, x)
        return x

    @abstractmethod
    def step(self, drift: Drift, diffusion: Diffusion, start: float, end: float, x: Tensor, noise: Tensor, area: Tensor) -> Tensor:
        """Advance `x` from time `start` to time `end`.

        Args:
            drift: b(t, x).
            diffusion: g(t).
            start: beginning of the step.
            end: its end.
            x: points, (B, ...).
            noise: increment dW of Brownian motion over the step, like `x`.
            area: integral of W - W(start) over it, like `x`.
        """


class EulerMaruyama(SDESolver):
    """x + h b(t, x) + g(t) dW: strong order 1, because the noise is additive."""

    strong_order = 1.0
    weak_order = 1
    evaluations = 1

    def step(self, drift: Drift, diffusion: Diffusion, start: float, end: float, x: Tensor, noise: Tensor, area: Tensor) -> Tensor:
        """Advance `x` from time `start` to time `end`."""
        return x + (end - start) * drift(start, x) + diffusion(start, x) * noise


class StochasticHeun(SDESolver):
    """The trapezoid rule for drift and noise, after a predicting Euler step: strong order 1, weak order 2 for the mean."""

    strong_order = 1.0
    weak_order = 2
    evaluations = 2

    def step(self, drift: Drift, diffusion: Diffusion, start: float, end: float, x: Tensor, noise: Tensor, area: Tensor) -> Tensor:
        """Advance `x` from time `start` to time `end`."""
        step = end - start
        before, slope = diffusion(start, x), drift(start, x)
        predicted = x + step * slope + before * noise
        return x + 0.5 * step * (slope + drift(end, predicted)) + 0.5 * (before + diffusion(end, x)) * noise


class SRA1(SDESolver):
    """Rößler's SRA1 (SIAM J. Numer. Anal. 48, 2010): strong order 1.5, by way of the area under each piece of Brownian motion."""

    strong_order = 1.5
    weak_order = 2
    evaluations = 2

    def step(self, drift: Drift, diffusion: Diffusion, start: float, end: float, x: Tensor, noise: Tensor, area: Tensor) -> Tensor:
        """Advance `x` from time `start` to time `end`."""
        step = end - start
        mean = area / step
        before, after = diffusion(start, x), diffusion(end, x)
        first = drift(start, x)
        second = drift(start + 0.75 * step, x + 0.75 * step * first + 1.5 * after * mean)
        return x + step * (first + 2 * second) / 3 + after * noise + (before - after) * mean


SDE_SOLVERS: dict[str, type[SDESolver]] = {
    "euler-maruyama": EulerMaruyama,
    "sra1": SRA1,
    "stochastic-heun": StochasticHeun,
}
