"""A population carried along a trained action, and seen at chosen times."""

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
from amgen.sampling.solver import solver_of
from amgen.solvers import BrownianMotion, SDESolver


@dataclass
class SimulatedPopulation:
    """A population at T times.

    Attributes:
        times: the times, in the table's unit.
        points: float32 (T, N, D), in the table's units.
        log_weights: log of each point's mass, float64 (T, N), zeros but for unbalanced dynamics.
        evaluations: gradients of the action (NFE).
    """

    times: Sequence[float]
    points: Tensor
    log_weights: Tensor
    evaluations: int


def simulate_population(
    model: TrainedAction, points: Tensor, times: Sequence[float], options: SamplingConfig | None = None, seed: int = 0
) -> SimulatedPopulation:
    """Carry points from the first of `times` through the others; the solver takes its steps anew between two of them.

    Args:
        model: a model of a population.
        points: where they are at the first time, (N, D), in the table's units.
        times: increasing, in the table's unit, between the first and the last that the model was trained on.
        options: the solver; by default the run's.
        seed: seed of the noise of entropic dynamics.

    Raises:
        UserError: if the model is of images, or a time lies outside.
    """
    units, data = model.units, model.config.data
    if units is None or data.kind == "images" or data.times is None:
        raise UserError(f"{model.source} is a model of images: only populations are carried between times of their own")
    first, last = data.times[0], data.times[-1]
    if min(times) < first or max(times) > last:
        raise UserError(f"times {min(times):g} to {max(times):g}: the model knows {first:g} to {last:g}")
    solver = solver_of(model.config.sampling if options is None else options)
    dynamics = Dynamics(model.action, model.dynamics, model.path)
    x = units.transform(points).to(model.device)
    log_weights = torch.zeros(len(x), dtype=torch.float64)
    seen, weights = [x], [log_weights]
    for number, (start, end) in enumerate(pairwise((time - first) / (last - first) for time in times)):
        leg = _Leg(dynamics, start, end - start)
        if isinstance(solver, SDESolver):
            brownian = BrownianMotion(derive_seed(seed, Purpose.BROWNIAN, number), range(len(x)), model.config.shape, model.device)
            x = solver.solve(leg.drift, leg.diffusion, brownian, x)
        elif isinstance(model.dynamics, Unbalanced):
            state = solver.solve(leg.velocity_and_growth, torch.cat([x, x.new_zeros(len(x), 1)], dim=1))
            x, log_weights = state[:, :-1], log_weights + state[:, -1].cpu().double()
        else:
            x = solver.solve(leg.velocity, x)
        x = model.path.finish(x)
        seen.append(x)
        weights.append(log_weights)
    return SimulatedPopulation(list(times), units.inverse_transform(torch.stack(seen)), torch.stack(weights), dynamics.evaluations)


@dataclass(frozen=True)
class _Leg:
    """Dynamics between two times, as a motion between 0 and 1: t = start + length s."""

    dynamics: Dynamics
    start: float
    length: float

    def velocity(self, s: float, x: Tensor) -> Tensor:
        return self.length * self.dynamics.velocity(self.start + self.length * s, x)

    def velocity_and_growth(self, s: float, state: Tensor) -> Tensor:
        velocity, growth = self.dynamics.velocity_and_growth(self.start + self.length * s, state[:, :-1])
        return self.length * torch.cat([velocity, growth[:, None].to(velocity.dtype)], dim=1)

    def drift(self, s: float, x: Tensor) -> Tensor:
        return self.length * self.dynamics.drift(self.start + self.length * s, x)

    def diffusion(self, s: float, x: Tensor) -> Tensor:
        return self.length**0.5 * self.dynamics.diffusion(self.start + self.length * s, x)
