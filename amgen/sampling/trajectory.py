"""The path from noise to data of a few images, recorded step by step."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from amgen.config import SamplingConfig
from amgen.core.batching import in_batches
from amgen.dynamics import Dynamics
from amgen.model.trained import TrainedAction
from amgen.sampling.generate import evaluate_once, generate
from amgen.sampling.request import Request
from amgen.sampling.solver import solver_of


@dataclass
class Trajectory:
    """What was seen at each step.

    Attributes:
        times: T times from 0 to 1.
        frames: uint8, (T, N, C, H, W); noise is clipped to the range of images. Of points, float32 (T, N, D).
        speeds: |v| of each image, (T, N).
    """

    times: list[float]
    frames: Tensor
    speeds: Tensor

    @property
    def energy(self) -> Tensor:
        """Return the kinetic energy 1/2 |v|^2 of each image, (T, N)."""
        return 0.5 * self.speeds.square()

    def strip(self, columns: int = 9) -> Tensor:
        """Return at most `columns` frames of each image, evenly spaced, one image after the other, uint8 (N * columns, C, H, W)."""
        chosen = torch.linspace(0, len(self.times) - 1, min(columns, len(self.times))).round().long()
        return self.frames[chosen].transpose(0, 1).flatten(0, 1)


def record(model: TrainedAction, options: SamplingConfig, indices: Sequence[int], request: Request) -> Trajectory:
    """Draw images and keep what they were at each step; one more gradient a step tells their speed."""
    solver = solver_of(options)

    def work(batch: Sequence[int]) -> Trajectory:
        times: list[float] = []
        frames: list[Tensor] = []
        speeds: list[Tensor] = []

        def watch(t: float, x: Tensor, dynamics: Dynamics) -> None:
            times.append(t)
            frames.append(model.inverse_transform(model.path.finish(x)))
            speeds.append(dynamics.velocity(t, x).flatten(1).norm(dim=1).cpu())

        generate(model, solver, batch, request, watch)
        return Trajectory(times, torch.stack(frames), torch.stack(speeds))

    probe = partial(evaluate_once, model, request=request)
    parts = [part for _, part in in_batches(work, indices, options.batch_size, probe, model.device)]
    frames, speeds = (torch.cat([getattr(part, name) for part in parts], dim=1) for name in ("frames", "speeds"))
    return Trajectory(parts[0].times, frames, speeds)
