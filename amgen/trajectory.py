"""The way from noise to data of a few images, recorded step by step; and the way back."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from amgen.batching import in_batches
from amgen.config import SamplingConfig
from amgen.data import ImageDataset, to_float
from amgen.dynamics import Dynamics
from amgen.errors import UserError
from amgen.kinds import Entropic
from amgen.progress import Progress
from amgen.sampling import Model, Request, evaluate_once, generate, prepare, solver_of
from amgen.solvers import ODESolver


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


def record(model: Model, options: SamplingConfig, indices: Sequence[int], request: Request) -> Trajectory:
    """Draw images and keep what they were at each step; one more gradient a step tells their speed."""
    solver = solver_of(options)

    def work(batch: Sequence[int]) -> Trajectory:
        times: list[float] = []
        frames: list[Tensor] = []
        speeds: list[Tensor] = []

        def watch(t: float, x: Tensor, dynamics: Dynamics) -> None:
            times.append(t)
            frames.append(model.outside(model.path.finish(x)))
            speeds.append(dynamics.velocity(t, x).flatten(1).norm(dim=1).cpu())

        generate(model, solver, batch, request, watch)
        return Trajectory(times, torch.stack(frames), torch.stack(speeds))

    probe = partial(evaluate_once, model, request=request)
    parts = [part for _, part in in_batches(work, indices, options.batch_size, probe, model.device)]
    frames, speeds = (torch.cat([getattr(part, name) for part in parts], dim=1) for name in ("frames", "speeds"))
    return Trajectory(parts[0].times, frames, speeds)


@dataclass
class Encoded:
    """Images carried back to noise, and forth again.

    Attributes:
        noise: points at t = 0, float32 (B, C, H, W).
        error: largest difference between an image and what its noise leads to, for each image, in [-1, 1] units, (B,).
        evaluations: gradients of the action, both ways (NFE).
        labels: classes that the images were taken to be of, int64 (B,); None for a model without classes.
    """

    noise: Tensor
    error: Tensor
    evaluations: int
    labels: Tensor | None = None


def encode(model: Model, options: SamplingConfig, images: Tensor, indices: Sequence[int], request: Request) -> Encoded:
    """Carry images, float (B, C, H, W) in [-1, 1], to noise by the ODE backwards, and forth again to see what is lost.

    Classes, guidance and what is given of the images are those of the request.

    Raises:
        UserError: for entropic dynamics, whose noise is not a function of the image.
    """
    solver = solver_of(options)
    if isinstance(model.kind, Entropic) or not isinstance(solver, ODESolver):
        raise UserError("only an ODE can be followed backwards: entropic dynamics and SDE solvers have no code for an image")
    batch = prepare(model, indices, request)
    dynamics = batch.dynamics
    noise = solver.solve(dynamics.velocity, images.to(model.device), backward=True)
    again = model.path.finish(solver.solve(dynamics.velocity, noise))
    error = (again - images.to(model.device)).abs().flatten(1).amax(dim=1)
    return Encoded(noise.cpu(), error.cpu(), dynamics.evaluations, batch.labels)


def encode_all(
    model: Model,
    options: SamplingConfig,
    dataset: ImageDataset,
    indices: Sequence[int],
    request: Request,
    say: Callable[[str], None] = print,
) -> Iterator[Encoded]:
    """Encode the images `indices` of a data set, `options.batch_size` at a time; otherwise as `encode`.

    Each image is taken to be of its own class, unless the request says otherwise. `say` takes lines of progress.
    """
    request = replace(request, images=dataset)
    progress = Progress(len(indices), "images", say, doing="encoding")

    def work(batch: Sequence[int]) -> Encoded:
        return encode(model, options, to_float(dataset.images(batch)), batch, request)

    probe = partial(evaluate_once, model, request=request)
    for batch, encoded in in_batches(work, indices, options.batch_size, probe, model.device, say=say):
        progress.advance(len(batch))
        yield encoded
