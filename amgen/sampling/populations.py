"""A population that moves along a trained action, at chosen times."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from amgen.config import SamplingConfig
from amgen.core.errors import UserError
from amgen.core.randomness import Purpose, derive_seed
from amgen.dynamics import Dynamics, Unbalanced
from amgen.model.trained import TrainedAction
from amgen.paths.neighbourhood import describe_outside
from amgen.sampling.solver import solver_of
from amgen.sampling.weights import solve_with_weights
from amgen.solvers import BrownianMotion, SDESolver


@dataclass
class SimulatedPopulation:
    """N points of a population at T times.

    Attributes:
        times: the times, in the table's unit.
        points: float32 (T, N, D), in the table's units.
        log_weights: log of each point's mass, float64 (T, N); zeros unless the dynamics are unbalanced.
        evaluations: number of gradients of the action evaluated (NFE).
        outside: share of the points outside the neighbourhood of the training data at each time, see `amgen.paths.Neighbourhood`; None if
            the run has none, being of an earlier version. `warning` puts it in words.
    """

    times: Sequence[float]
    points: Tensor
    log_weights: Tensor
    evaluations: int
    outside: Sequence[float] | None = None

    @property
    def warning(self) -> str | None:
        """A line for the user if many points left the neighbourhood of the training data, or None."""
        return None if self.outside is None else describe_outside(self.times, self.outside)


def simulate_population(
    model: TrainedAction, points: Tensor, times: Sequence[float], options: SamplingConfig | None = None, seed: int = 0
) -> SimulatedPopulation:
    """Simulate points from the first of `times` to the last, and return them at each time.

    The solver divides each interval between two of the times into its own steps.

    Args:
        model: a model of a population.
        points: positions at the first time, (N, D), in the table's units.
        times: increasing times in the table's unit, within those that the model was trained on.
        options: sampling settings; by default those of the run.
        seed: seed of the Brownian motion of entropic dynamics.

    Raises:
        UserError: if the model generates images, or a time is outside those that it was trained on.

    Example:
        A model of points in the plane at the times 0, 1 and 2, with random weights:

        >>> from pathlib import Path
        >>> import torch
        >>> from amgen import config, sampling
        >>> from amgen.model.build import build_action
        >>> recorded = ["data.times=[0,1,2]", "data.origin=[0,0]", "data.axes=[[1,0],[0,1]]"]
        >>> run = config.load("mixture-unbalanced", recorded)
        >>> model = sampling.assemble(run, build_action(run), "action", 0, Path())
        >>> found = sampling.simulate_population(model, torch.randn(10, 2), [0.5, 1.0, 2.0])
        >>> found.points.shape, found.log_weights.shape
        (torch.Size([3, 10, 2]), torch.Size([3, 10]))
    """
    units, data = model.units, model.config.data
    if units is None or data.kind == "images" or data.times is None:
        raise UserError(f"{model.source} generates images: only a model of a population can be simulated between given times")
    first, last = data.times[0], data.times[-1]
    if min(times) < first or max(times) > last:
        raise UserError(f"times {min(times):g} to {max(times):g}: the model knows {first:g} to {last:g}")
    solver = solver_of(model.config.sampling if options is None else options)
    dynamics = Dynamics(model.action, model.dynamics, model.path)
    x = units.transform(points).to(model.device)
    log_weights = torch.zeros(len(x), dtype=torch.float64)
    found, weights = [x], [log_weights]
    for number, (start, end) in enumerate(pairwise((time - first) / (last - first) for time in times)):
        interval = _Interval(dynamics, start, end - start)
        if isinstance(solver, SDESolver):
            brownian = BrownianMotion(derive_seed(seed, Purpose.BROWNIAN, number), range(len(x)), model.config.shape, model.device)
            x = solver.solve(interval.drift, interval.diffusion, brownian, x)
        elif isinstance(model.dynamics, Unbalanced):
            x, growth = solve_with_weights(solver, interval, x)
            log_weights = log_weights + growth
        else:
            x = solver.solve(interval.velocity, x)
        x = model.path.finish(x)
        found.append(x)
        weights.append(log_weights)
    outside = shares_outside(model, found, times)
    return SimulatedPopulation(
        list(times), units.inverse_transform(torch.stack(found)), torch.stack(weights), dynamics.evaluations, outside
    )


def shares_outside(model: TrainedAction, points: Sequence[Tensor], times: Sequence[float]) -> list[float] | None:
    """Return the share of the points outside the neighbourhood of the training data at each time; None if the model has none.

    Args:
        model: a model of a population.
        points: points at each of the times, in standardized coordinates, (N, D) each.
        times: the times, in the table's unit.
    """
    near, known = model.neighbourhood, getattr(model.config.data, "times", None)
    if near is None or known is None:
        return None
    normalized = [(time - known[0]) / (known[-1] - known[0]) for time in times]
    return [near.share_outside(x, t) for x, t in zip(points, normalized, strict=True)]


@dataclass(frozen=True)
class _Interval:
    """Dynamics between two times, in the time s of 0 to 1 that a solver uses: t = start + length s."""

    dynamics: Dynamics
    start: float
    length: float

    def velocity(self, s: float, x: Tensor) -> Tensor:
        return self.length * self.dynamics.velocity(self.start + self.length * s, x)

    def velocity_and_growth(self, s: float, x: Tensor) -> tuple[Tensor, Tensor]:
        velocity, growth = self.dynamics.velocity_and_growth(self.start + self.length * s, x)
        return self.length * velocity, self.length * growth

    def drift(self, s: float, x: Tensor) -> Tensor:
        return self.length * self.dynamics.drift(self.start + self.length * s, x)

    def diffusion(self, s: float, x: Tensor) -> Tensor:
        return self.length**0.5 * self.dynamics.diffusion(self.start + self.length * s, x)
