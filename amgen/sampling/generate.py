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
from amgen.core.randomness import Purpose, gaussian
from amgen.dynamics import Dynamics, MarginalNoise, Unbalanced
from amgen.model.build import no_label
from amgen.model.trained import TrainedAction
from amgen.sampling.conditioning import labels_of, start_batch
from amgen.sampling.request import Request
from amgen.sampling.solver import solver_of
from amgen.sampling.weights import solve_with_weights
from amgen.solvers import BrownianMotion, SDESolver


@dataclass
class Samples:
    """A batch of B generated images, or of B points, on the CPU.

    Attributes:
        indices: index of each image; image i is a function of (model, sampling settings, seed, i).
        images: uint8, (B, C, H, W); points at t = 1, float32 (B, D), for a model of points.
        labels: class of each image, int64 (B,); None for an unconditional model.
        evaluations: number of evaluations of the action's gradient on the batch (NFE).
        log_weights: log of each image's mass, float64 (B,), for unbalanced dynamics; None if all images count the same.
        inputs: the known part of each start image, uint8 (B, C, H, W), or the point at t = 0; None for a model that starts from noise.
        truths: the start images themselves, uint8 (B, C, H, W); None for points and for a model that starts from noise.
        outside: which points are outside the neighbourhood of the training data, bool (B,), see `amgen.paths.Neighbourhood`; None for
            images, and for runs of earlier versions.
    """

    indices: Sequence[int]
    images: Tensor
    labels: Tensor | None
    evaluations: int
    log_weights: Tensor | None = None
    inputs: Tensor | None = None
    truths: Tensor | None = None
    outside: Tensor | None = None

    @classmethod
    def join(cls, batches: Sequence["Samples"]) -> "Samples":
        """Return batches of one model as one; `evaluations` is the largest of theirs."""

        def joined(name: str) -> Tensor | None:
            parts = [getattr(batch, name) for batch in batches]
            return None if parts[0] is None else torch.cat(parts)

        indices = [index for batch in batches for index in batch.indices]
        evaluations = max(batch.evaluations for batch in batches)
        images = torch.cat([batch.images for batch in batches])
        optional = (joined(name) for name in ("log_weights", "inputs", "truths", "outside"))
        return cls(indices, images, joined("labels"), evaluations, *optional)

    def image_sets(self) -> list[Tensor]:
        """Return the sets of images that a grid of the batch shows: inputs, images and truths, or the images alone."""
        return [images for images in (self.inputs, self.images, self.truths) if images is not None]

    def by_index(self, wanted: Container[int]) -> dict[int, list[Tensor]]:
        """Return one image of each of the `image_sets` for each index in `wanted`. They are copies: a view would keep the whole batch."""
        sets = self.image_sets()
        return {index: [images[row].clone() for images in sets] for row, index in enumerate(self.indices) if index in wanted}


Observer = Callable[[float, Tensor, Dynamics], None]
"""Called with the time t, the points (B, C, H, W) and the dynamics, at the start and after each step."""


@dataclass
class InitialState:
    """A batch at t = 0 and its dynamics.

    Attributes:
        x: points at t = 0, float (B, C, H, W) or (B, D).
        dynamics: the dynamics of the points, with the classes and the conditioning of the batch.
        labels: classes, int64 (B,), or None.
        data: start images in [-1, 1], or start points; None for a model that starts from noise.
    """

    x: Tensor
    dynamics: Dynamics
    labels: Tensor | None
    data: Tensor | None


def initial_state(model: TrainedAction, options: SamplingConfig, indices: Sequence[int], request: Request) -> InitialState:
    """Return the points at t = 0 and the dynamics of a batch.

    Noise is computed on the CPU as a function of (seed, i), so that it is the same on every device.

    Raises:
        UserError: if the request or the options do not fit the model.
    """
    labels = labels_of(model.config, indices, request)
    data, conditioning = start_batch(model, indices, request)
    dynamics = Dynamics(
        model.action,
        model.dynamics,
        model.path,
        None if labels is None else labels.to(model.device),
        conditioning,
        options.guidance,
        no_label(model.config),
        MarginalNoise(options.noise_level, model.path) if options.noise_level else None,
    )
    if request.starts is not None:
        x = request.starts[torch.as_tensor(indices)].to(model.device)
    else:
        x = model.path.prior(_noise(model, indices, request).to(model.device), data, conditioning)
    return InitialState(x, dynamics, labels, data)


def initial_drift(model: TrainedAction, options: SamplingConfig, indices: Sequence[int], request: Request) -> Tensor:
    """Return the drift dx/dt of a batch at t = 0. A solver evaluates it in every step, so it shows how much memory a batch needs."""
    state = initial_state(model, options, indices, request)
    return state.dynamics.drift(0.0, state.x)


def generate(
    model: TrainedAction, options: SamplingConfig, indices: Sequence[int], request: Request, observe: Observer | None = None
) -> Samples:
    """Generate the images `indices` in one batch; `options.batch_size` is not used.

    Args:
        model: the model.
        options: how to generate: solver, guidance and noise level.
        indices: indices of the images.
        request: what to generate.
        observe: called at the start and after each step.

    Raises:
        UserError: if the request or the options do not fit the model.
        Diverged: if an image has values that are not finite.
    """
    solver, state = solver_of(options), initial_state(model, options, indices, request)
    dynamics = state.dynamics
    watch = None if observe is None else lambda t, x: observe(t, x, dynamics)
    log_weights = None
    if isinstance(solver, SDESolver):
        brownian = BrownianMotion(request.seed, indices, model.config.shape, model.device)
        x = solver.solve(dynamics.drift, dynamics.diffusion, brownian, state.x, watch)
    elif isinstance(model.dynamics, Unbalanced):
        x, log_weights = solve_with_weights(solver, dynamics, state.x, model.path.start_mass(state.data), watch)
    else:
        x = solver.solve(dynamics.velocity, state.x, observe=watch)
    finite = torch.isfinite(x).flatten(1).all(dim=1)
    if not finite.all():
        first = indices[int((~finite).nonzero()[0])]
        raise Diverged(f"image {first} has values that are not finite: use more steps or another checkpoint")
    shown = None if state.data is None else model.inverse_transform(model.path.shown(state.data, dynamics.conditioning))
    truths = None if state.data is None or model.units is not None else model.inverse_transform(state.data)
    x = model.path.finish(x)
    outside = None if model.neighbourhood is None else model.neighbourhood.outside(x, 1.0)
    return Samples(indices, model.inverse_transform(x), state.labels, dynamics.evaluations, log_weights, shown, truths, outside)


def generate_all(
    model: TrainedAction,
    options: SamplingConfig,
    indices: Sequence[int],
    request: Request,
    processes: Processes = Processes(),  # noqa: B008 (immutable)
    say: Callable[[str], None] = print,
) -> Iterator[Samples]:
    """Generate this process's share of the images `indices`, at most `options.batch_size` in a batch.

    Args:
        model: the model.
        options: how to generate: solver, guidance, noise level and batch size; see `Model.options`.
        indices: indices of all images, the same on every process.
        request: what to generate.
        processes: the processes that share the work; each of them calls this function.
        say: takes a line when memory runs out.

    Yields:
        The batches, one `Samples` each.

    Raises:
        UserError: if the request or the options do not fit the model, or one image does not fit into memory.
        Diverged: if an image has values that are not finite.

    Example:
        >>> import amgen
        >>> from amgen.sampling import Request, generate_all
        >>> model = amgen.load("runs/digits")
        >>> options = model.options({"solver": "heun", "steps": 2, "batch_size": 4})
        >>> for samples in generate_all(model, options, range(8), Request(seed=1)):
        ...     print(list(samples.indices), tuple(samples.images.shape), samples.evaluations)
        [0, 1, 2, 3] (4, 1, 8, 8) 4
        [4, 5, 6, 7] (4, 1, 8, 8) 4
    """
    work, probe = partial(generate, model, options, request=request), partial(initial_drift, model, options, request=request)
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
