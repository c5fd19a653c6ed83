"""Log-weights of unbalanced dynamics: integrated along, and what they are worth."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from amgen.core.randomness import Purpose, uniform
from amgen.dynamics import Dynamics
from amgen.solvers import ODESolver


def effective_sample_size(log_weights: Sequence[float]) -> float:
    """Return (sum w)^2 / sum w^2: how many equally weighted samples those with `log_weights` are worth (Kish)."""
    weights = _weights(log_weights)
    return float(1 / weights.square().sum())


def resample(log_weights: Sequence[float], seed: int) -> list[int]:
    """Draw as many positions as there are weights, each about in proportion to its weight, by systematic resampling.

    One uniform offset and equal strides through the cumulative weights: a position of normalised weight w is taken floor(n w) or ceil(n w)
    times.
    """
    weights = _weights(log_weights)
    count = len(weights)
    places = (torch.arange(count, dtype=torch.float64) + uniform(seed, Purpose.RESAMPLING, [0])) / count
    return torch.searchsorted(weights.cumsum(0), places).clamp(max=count - 1).tolist()


def _weights(log_weights: Sequence[float]) -> Tensor:
    """Return normalised weights, float64."""
    return torch.tensor(list(log_weights), dtype=torch.float64).softmax(dim=0)


def solve_with_weights(
    solver: ODESolver, dynamics: Dynamics, x: Tensor, mass: Tensor | None, observe: Callable[[float, Tensor], None] | None
) -> tuple[Tensor, Tensor]:
    """Carry points and their log-weights, one more entry of each, from t = 0, where their `mass` (B,) may be given, to t = 1."""
    shape = x.shape
    start = x.new_zeros(len(x), 1) if mass is None else mass.log().to(x)[:, None]

    def velocity(t: float, state: Tensor) -> Tensor:
        motion, growth = dynamics.velocity_and_growth(t, state[:, :-1].reshape(shape))
        return torch.cat([motion.flatten(1), growth[:, None].to(motion.dtype)], dim=1)

    watch = None if observe is None else lambda t, state: observe(t, state[:, :-1].reshape(shape))
    end = solver.solve(velocity, torch.cat([x.flatten(1), start], dim=1), observe=watch)
    return end[:, :-1].reshape(shape), end[:, -1].cpu().double()
