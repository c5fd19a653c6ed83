"""From a model and seeds to images, or to points, in batches."""

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from amgen.config import SamplingConfig
from amgen.core.batching import in_batches
from amgen.core.errors import Diverged
from amgen.core.processes import Processes
from amgen.core.randomness import Purpose, gaussian, uniforms
from amgen.dynamics import Dynamics, MarginalNoise, Unbalanced
from amgen.model.build import no_label
from amgen.model.trained import TrainedAction
from amgen.paths import Conditioning
from amgen.sampling.conditioning import conditions, labels_of
from amgen.sampling.request import Request
from amgen.sampling.solver import solver_of
from amgen.sampling.weights import solve_with_weights
from amgen.solvers import BrownianMotion, ODESolver, SDESolver


@dataclass
class Samples:
    """A batch of generated images.

    Attributes:
        indices: index of each image; image i is a function of (model, solver, seed, i).
        images: uint8, (B, C, H, W); of a population, points at t = 1, float32 (B, D).
        labels: classes asked for, int64 (B,); None for an unconditional model.
        evaluations: gradients of the action evaluated for the batch (NFE).
        log_weights: log of each image's mass, float64 (B,), where the dynamics are unbalanced; None where all count the same.
        inputs: what was given of each image, as a picture, uint8 (B, C, H, W), or the point at t = 0; None where noise is all.
        truths: the images that it was given of, same shape; None for points.
    """

    indices: Sequence[int]
    images: Tensor
    labels: Tensor | None
    evaluations: int
    log_weights: Tensor | None = None
    inputs: Tensor | None = None
    truths: Tensor | None = None

    @classmethod
    def join(cls, batches: Sequence["Samples"]) -> "Samples":
        """Return batches of one model as one; its `evaluations` are those of the batch that needed most."""

        def joined(name: str) -> Tensor | None:
            parts = [getattr(batch, name) for batch in batches]
            return None if parts[0] is None else torch.cat(parts)

        indices = [index for batch in batches for index in batch.indices]
        evaluations = max(batch.evaluations for batch in batches)
        images = torch.cat([batch.images for batch in batches])
        return cls(indices, images, joined("labels"), evaluations, joined("log_weights"), joined("inputs"), joined("truths"))

    def pictures(self) -> list[Tensor]:
        """Return what a picture of the batch shows: inputs, images and truths, or the images alone."""
        return [part for part in (self.inputs, self.images, self.truths) if part is not None]

    def by_index(self, wanted: Container[int]) -> dict[int, list[Tensor]]:
        """Return what a picture of the batch shows of each `wanted` image; copies, not views, which would carry the whole batch along."""
        parts = self.pictures()
        return {index: [part[row].clone() for part in parts] for row, index in enumerate(self.indices) if index in wanted}


Observer = Callable[[float, Tensor, Dynamics], None]
"""Is shown the time, the points (B, C, H, W) and the dynamics, at the start and after each step."""


@dataclass
class Prepared:
    """A batch ready to be carried.

    Attributes:
        x: points at the start.
        dynamics: the motion, with labels and what is given.
        labels: classes, int64 (B,), or None.
        data: the images that something is given of, in [-1, 1], or None.
    """

    x: Tensor
    dynamics: Dynamics
    labels: Tensor | None
    data: Tensor | None


def prepare(model: TrainedAction, indices: Sequence[int], request: Request) -> Prepared:
    """Draw noise and choices on the CPU for (seed, i), and set up the dynamics of a batch.

    Raises:
        UserError: if the request does not fit the model.
    """
    device, path = model.device, model.path
    labels = labels_of(model.config, indices, request.label, request.images, request.classes, request.between)
    data = conditions(model, request.images, indices)
    auxiliary = uniforms(request.seed, Purpose.SAMPLE_AUXILIARY, indices, path.auxiliary).to(device) if path.auxiliary else None
    conditioning = Conditioning() if data is None else path.conditioning(data, auxiliary)
    dynamics = Dynamics(
        model.action,
        model.dynamics,
        path,
        None if labels is None else labels.to(device),
        conditioning,
        request.guidance,
        no_label(model.config),
        MarginalNoise(request.noise_level, path) if request.noise_level else None,
    )
    if request.starts is not None:
        return Prepared(request.starts[torch.as_tensor(indices)].to(device), dynamics, labels, data)
    return Prepared(path.prior(_noise(model, indices, request).to(device), data, conditioning), dynamics, labels, data)


def generate(
    model: TrainedAction, solver: ODESolver | SDESolver, indices: Sequence[int], request: Request, observe: Observer | None = None
) -> Samples:
    """Generate the images `indices` in one batch.

    Raises:
        UserError: if the request does not fit the model.
        Diverged: if an image comes out with values that are not finite.
    """
    batch = prepare(model, indices, request)
    dynamics, conditioning = batch.dynamics, batch.dynamics.conditioning
    watch = None if observe is None else lambda t, x: observe(t, x, dynamics)
    log_weights = None
    if isinstance(solver, SDESolver):
        brownian = BrownianMotion(request.seed, indices, model.config.shape, model.device)
        x = solver.solve(dynamics.drift, dynamics.diffusion, brownian, batch.x, watch)
    elif isinstance(model.dynamics, Unbalanced):
        x, log_weights = solve_with_weights(solver, dynamics, batch.x, model.path.start_mass(batch.data), watch)
    else:
        x = solver.solve(dynamics.velocity, batch.x, observe=watch)
    finite = torch.isfinite(x).flatten(1).all(dim=1)
    if not finite.all():
        first = indices[int((~finite).nonzero()[0])]
        raise Diverged(f"image {first} has values that are not finite: use more steps or another checkpoint")
    return Samples(
        indices,
        model.inverse_transform(model.path.finish(x)),
        batch.labels,
        dynamics.evaluations,
        log_weights,
        None if batch.data is None else model.inverse_transform(model.path.shown(batch.data, conditioning)),
        None if batch.data is None or model.units is not None else model.inverse_transform(batch.data),
    )


def evaluate_once(model: TrainedAction, indices: Sequence[int], request: Request) -> Tensor:
    """Return dx/dt of the images `indices` at their start: what generating them does again and again, and the memory of a batch goes by."""
    batch = prepare(model, indices, request)
    return batch.dynamics.drift(0.0, batch.x)


def generate_all(
    model: TrainedAction,
    options: SamplingConfig,
    indices: Sequence[int],
    request: Request,
    processes: Processes = Processes(),  # noqa: B008 (immutable)
    say: Callable[[str], None] = print,
) -> Iterator[Samples]:
    """Generate this process's part of the images `indices`, `options.batch_size` at a time; `options` name the solver."""
    solver = solver_of(options)
    work, probe = partial(generate, model, solver, request=request), partial(evaluate_once, model, request=request)
    for _, samples in in_batches(work, indices, options.batch_size, probe, model.device, processes, say):
        yield samples


def _noise(model: TrainedAction, indices: Sequence[int], request: Request) -> Tensor:
    """Return standard normal noise for each image, (B, C, H, W)."""
    shape = model.config.shape
    if request.between is None:
        return gaussian(request.seed, Purpose.SAMPLE_NOISE, indices, shape)
    first, last = gaussian(request.seed, Purpose.SAMPLE_NOISE, request.between, shape).double()
    angle = torch.arccos((first * last).sum() / (first.norm() * last.norm()))
    share = torch.tensor([index / max(1, request.count - 1) for index in indices], dtype=torch.float64).reshape(-1, *[1] * len(shape))
    return ((((1 - share) * angle).sin() * first + (share * angle).sin() * last) / angle.sin()).float()
