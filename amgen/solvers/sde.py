"""SDE solvers for dx = b(t, x) dt + g(t) dW from t = 0 to t = 1.

The noise is additive: g does not depend on x. The senses of Ito and Stratonovich then agree, and every solver here converges in both. The
cost of a step is its number of evaluations of b, each of which is one gradient of the action.

The strong order is that of the error of single paths, E|x - x_exact| = O(h^p). The weak order is that of the error of means and variances,
which is what counts for samples. Start with `stochastic-heun`. Near t = 1, where g = G sqrt(a_t) has a singular derivative, the polynomial
grid keeps the orders.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from amgen.core import names
from amgen.solvers.brownian import BrownianMotion
from amgen.solvers.grids import StepGrid

Drift = Callable[[float, Tensor], Tensor]
"""b(t, x) at a scalar time, shaped like x."""
Diffusion = Callable[[float, Tensor], Tensor]
"""g(t) for points x, broadcastable to x; it does not depend on the values of x."""
Observer = Callable[[float, Tensor], None]
"""Is called with the time and the points, at the start and after each step."""


class SDESolver(ABC):
    """A solver of a stochastic differential equation with additive noise.

    Args:
        grid: the times.

    Attributes:
        strong_order: order of the error of single paths, O(step^strong_order).
        weak_order: order of the error of the mean and the variance, O(step^weak_order).
        evaluations: evaluations of the drift in each step.
    """

    strong_order: ClassVar[float]
    weak_order: ClassVar[int]
    evaluations: ClassVar[int]

    def __init__(self, grid: StepGrid):
        self.grid = grid

    def solve(self, drift: Drift, diffusion: Diffusion, brownian: BrownianMotion, x: Tensor, observe: Observer | None = None) -> Tensor:
        """Return the points at time 1 that start from `x` at time 0.

        Args:
            drift: b(t, x).
            diffusion: g(t).
            brownian: W(t), one path for each sample.
            x: points, (B, ...).
            observe: called with the time and the points, at the start and after each step.
        """
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
        """Return `x` advanced from time `start` to time `end`.

        Args:
            drift: b(t, x).
            diffusion: g(t).
            start: start of the step.
            end: end of the step.
            x: points, (B, ...).
            noise: increment dW of Brownian motion over the step, like `x`.
            area: integral of W - W(start) over the step, like `x`.
        """


class EulerMaruyama(SDESolver):
    """The Euler-Maruyama method: x + h b(t, x) + g(t) dW.

    Strong order 1, since the noise is additive; weak order 1; 1 evaluation per step, none at t = 1. Sense: Ito. Choose it for many cheap
    steps or as a baseline. Reference: Kloeden and Platen, Numerical Solution of Stochastic Differential Equations, section 10.2.

    Example:
        >>> import torch
        >>> from amgen.solvers import BrownianMotion, EulerMaruyama, StepGrid
        >>> brownian = BrownianMotion(seed=0, indices=range(1000), shape=(1,))
        >>> solver = EulerMaruyama(StepGrid(16))
        >>> x = solver.solve(lambda t, x: -x, lambda t, x: torch.tensor(0.5), brownian, torch.ones(1000, 1))
        >>> x.shape, bool(abs(x.mean() - 0.37) < 0.05)  # the mean is exp(-1)
        (torch.Size([1000, 1]), True)
    """

    strong_order = 1.0
    weak_order = 1
    evaluations = 1

    def step(self, drift: Drift, diffusion: Diffusion, start: float, end: float, x: Tensor, noise: Tensor, area: Tensor) -> Tensor:
        """Return `x` advanced from time `start` to time `end`."""
        return x + (end - start) * drift(start, x) + diffusion(start, x) * noise


class StochasticHeun(SDESolver):
    """The stochastic Heun method: the trapezoidal rule for drift and noise, after an Euler step as predictor.

    Strong order 1, weak order 2; 2 evaluations per step, one of them at the end of the step. Sense: Stratonovich, which is that of Ito for
    additive noise. Choose it first. Reference: Rümelin, SIAM J. Numer. Anal. 19 (1982).

    Example:
        >>> import torch
        >>> from amgen.solvers import BrownianMotion, StochasticHeun, StepGrid
        >>> brownian = BrownianMotion(seed=0, indices=range(1000), shape=(1,))
        >>> solver = StochasticHeun(StepGrid(16))
        >>> x = solver.solve(lambda t, x: -x, lambda t, x: torch.tensor(0.5), brownian, torch.ones(1000, 1))
        >>> x.shape, bool(abs(x.mean() - 0.37) < 0.05)  # the mean is exp(-1)
        (torch.Size([1000, 1]), True)
    """

    strong_order = 1.0
    weak_order = 2
    evaluations = 2

    def step(self, drift: Drift, diffusion: Diffusion, start: float, end: float, x: Tensor, noise: Tensor, area: Tensor) -> Tensor:
        """Return `x` advanced from time `start` to time `end`."""
        step = end - start
        before, slope = diffusion(start, x), drift(start, x)
        predicted = x + step * slope + before * noise
        return x + 0.5 * step * (slope + drift(end, predicted)) + 0.5 * (before + diffusion(end, x)) * noise


class SRA1(SDESolver):
    """Rößler's method SRA1 for additive noise, which also uses the area under each piece of Brownian motion.

    Strong order 1.5, weak order 2; 2 evaluations per step, none at t = 1. Sense: Ito. Choose it where single paths count, such as for the
    same image with more steps. Reference: Rößler, SIAM J. Numer. Anal. 48 (2010), section 6.1.

    Example:
        >>> import torch
        >>> from amgen.solvers import BrownianMotion, SRA1, StepGrid
        >>> brownian = BrownianMotion(seed=0, indices=range(1000), shape=(1,))
        >>> solver = SRA1(StepGrid(16))
        >>> x = solver.solve(lambda t, x: -x, lambda t, x: torch.tensor(0.5), brownian, torch.ones(1000, 1))
        >>> x.shape, bool(abs(x.mean() - 0.37) < 0.05)  # the mean is exp(-1)
        (torch.Size([1000, 1]), True)
    """

    strong_order = 1.5
    weak_order = 2
    evaluations = 2

    def step(self, drift: Drift, diffusion: Diffusion, start: float, end: float, x: Tensor, noise: Tensor, area: Tensor) -> Tensor:
        """Return `x` advanced from time `start` to time `end`."""
        step = end - start
        mean = area / step
        before, after = diffusion(start, x), diffusion(end, x)
        first = drift(start, x)
        second = drift(start + 0.75 * step, x + 0.75 * step * first + 1.5 * after * mean)
        return x + step * (first + 2 * second) / 3 + after * noise + (before - after) * mean


SDE_SOLVERS: dict[str, type[SDESolver]] = {name: globals()[solver] for name, solver in names.SDE_SOLVERS.items()}
"""SDE solvers by their names in a configuration."""
