"""Log-weights of the samples of unbalanced dynamics: how they are integrated, and how they are used."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from amgen.core.randomness import Purpose, uniform
from amgen.solvers import ODESolver


def effective_sample_size(log_weights: Sequence[float]) -> float:
    """Return (sum w)^2 / sum w^2, the number of equally weighted samples with the same variance of a mean (Kish, Survey Sampling, 1965).

    Args:
        log_weights: log of each weight w; a constant added to all of them changes nothing.

    Example:
        >>> from amgen.sampling import effective_sample_size
        >>> round(effective_sample_size([0.0, 0.0, 0.0, 0.0]), 6)
        4.0
        >>> round(effective_sample_size([0.0, 0.0, -100.0, -100.0]), 6)
        2.0
    """
    weights = _normalised(log_weights)
    return float(1 / weights.square().sum())


def resample(log_weights: Sequence[float], seed: int) -> list[int]:
    """Return positions of samples in proportion to their weights, by systematic resampling (Kitagawa, J. Comput. Graph. Stat. 5(1), 1996).

    The result has as many positions as there are weights, in increasing order. A position of normalised weight w is there floor(n w) or
    ceil(n w) times, and n w times on average over seeds.

    Args:
        log_weights: log of each of the n weights.
        seed: seed of the one random number that systematic resampling needs.

    Example:
        >>> from amgen.sampling import resample
        >>> resample([0.0, 0.0, -100.0, -100.0], seed=0)
        [0, 0, 1, 1]
    """
    weights = _normalised(log_weights)
    count = len(weights)
    places = (torch.arange(count, dtype=torch.float64) + uniform(seed, Purpose.RESAMPLING, [0])) / count
    return torch.searchsorted(weights.cumsum(0), places).clamp(max=count - 1).tolist()


def _normalised(log_weights: Sequence[float]) -> Tensor:
    """Return weights that sum to 1, float64."""
    return torch.tensor(list(log_weights), dtype=torch.float64).softmax(dim=0)


class GrowingDynamics(Protocol):
    """Dynamics of points and of their log-weights."""

    def velocity_and_growth(self, t: float, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return dx/dt, shaped like `x`, and d(log weight)/dt, (B,)."""


def solve_with_weights(
    solver: ODESolver,
    dynamics: GrowingDynamics,
    x: Tensor,
    mass: Tensor | None = None,
    observe: Callable[[float, Tensor], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Integrate points and their log-weights together from t = 0 to t = 1; the log-weight is one more entry of each point's state.

    Args:
        solver: solver of ODEs.
        dynamics: the dynamics of points and weights.
        x: points at t = 0, (B, ...).
        mass: their mass at t = 0, (B,); None for 1.
        observe: called with the time and the points, at the start and after each step.

    Returns:
        The points at t = 1, and their log-weights, float64 (B,), on the CPU.
    """
    shape = x.shape
    start = x.new_zeros(len(x), 1) if mass is None else mass.log().to(x)[:, None]

    def velocity(t: float, state: Tensor) -> Tensor:
        motion, growth = dynamics.velocity_and_growth(t, state[:, :-1].reshape(shape))
        return torch.cat([motion.flatten(1), growth[:, None].to(motion.dtype)], dim=1)

    watch = None if observe is None else lambda t, state: observe(t, state[:, :-1].reshape(shape))
    end = solver.solve(velocity, torch.cat([x.flatten(1), start], dim=1), observe=watch)
    return end[:, :-1].reshape(shape), end[:, -1].cpu().double()
