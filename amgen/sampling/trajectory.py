"""Trajectories of a few images from noise to data, recorded at each step."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from amgen.config import SamplingConfig
from amgen.core.batching import in_batches
from amgen.dynamics import Dynamics
from amgen.model.trained import TrainedAction
from amgen.sampling.generate import generate, initial_drift
from amgen.sampling.request import Request


@dataclass
class Trajectory:
    """N images at T times.

    Attributes:
        times: T times from 0 to 1.
        frames: uint8, (T, N, C, H, W); noise is clipped to the range of images. Points are float32 (T, N, D).
        speeds: |v| of each image, (T, N).
    """

    times: list[float]
    frames: Tensor
    speeds: Tensor

    @property
    def energy(self) -> Tensor:
        """The kinetic energy 1/2 |v|^2 of each image, (T, N)."""
        return 0.5 * self.speeds.square()

    def strip(self, columns: int = 9) -> Tensor:
        """Return at most `columns` evenly spaced frames of each image, all those of image 0 first, uint8 (N * columns, C, H, W)."""
        chosen = torch.linspace(0, len(self.times) - 1, min(columns, len(self.times))).round().long()
        return self.frames[chosen].transpose(0, 1).flatten(0, 1)


def record(model: TrainedAction, options: SamplingConfig, indices: Sequence[int], request: Request) -> Trajectory:
    """Generate images and record them at each step. The speeds cost one more gradient per step.

    Args:
        model: the model.
        options: how to generate.
        indices: indices of the images.
        request: what to generate.

    Raises:
        UserError: if the request or the options do not fit the model.
    """

    def work(batch: Sequence[int]) -> Trajectory:
        times: list[float] = []
        frames: list[Tensor] = []
        speeds: list[Tensor] = []

        def watch(t: float, x: Tensor, dynamics: Dynamics) -> None:
            times.append(t)
            frames.append(model.inverse_transform(model.path.finish(x)))
            speeds.append(dynamics.velocity(t, x).flatten(1).norm(dim=1).cpu())

        generate(model, options, batch, request, watch)
        return Trajectory(times, torch.stack(frames), torch.stack(speeds))

    probe = partial(initial_drift, model, options, request=request)
    parts = [part for _, part in in_batches(work, indices, options.batch_size, probe, model.device)]
    frames, speeds = (torch.cat([getattr(part, name) for part in parts], dim=1) for name in ("frames", "speeds"))
    return Trajectory(parts[0].times, frames, speeds)
