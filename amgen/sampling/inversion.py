"""From images back to latent codes: the noise at t = 0 from which the ODE leads to each image."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from amgen.config import SamplingConfig
from amgen.core.batching import in_batches
from amgen.core.errors import UserError
from amgen.core.progress import Progress
from amgen.data import ImageDataset, to_float
from amgen.dynamics import Entropic
from amgen.model.trained import TrainedAction
from amgen.sampling.generate import initial_drift, initial_state
from amgen.sampling.request import Request
from amgen.sampling.solver import solver_of
from amgen.solvers import ODESolver


@dataclass
class Encoded:
    """A batch of encoded images.

    Attributes:
        noise: latent codes, points at t = 0, float32 (B, C, H, W), on the CPU.
        error: largest absolute difference between each image and the decoded image, in [-1, 1] units, (B,).
        evaluations: number of gradients of the action, encoding and decoding together (NFE).
        labels: classes that the images were encoded with, int64 (B,); None for a model without classes.
    """

    noise: Tensor
    error: Tensor
    evaluations: int
    labels: Tensor | None = None


def encode(model: TrainedAction, options: SamplingConfig, images: Tensor, indices: Sequence[int], request: Request) -> Encoded:
    """Encode images by the ODE backwards in time, and decode them again to measure the error.

    Args:
        model: the model.
        options: solver and guidance.
        images: float (B, C, H, W) in [-1, 1].
        indices: indices of the images.
        request: classes and start images.

    Raises:
        UserError: for entropic dynamics and SDE solvers, because their noise is not a function of the image.
    """
    solver = solver_of(options)
    if isinstance(model.dynamics, Entropic) or not isinstance(solver, ODESolver):
        raise UserError("only an ODE can be solved backwards: entropic dynamics and SDE solvers have no latent code of an image")
    state = initial_state(model, options, indices, request)
    velocity = state.dynamics.velocity
    noise = solver.solve(velocity, images.to(model.device), backward=True)
    decoded = model.path.finish(solver.solve(velocity, noise))
    error = (decoded - images.to(model.device)).abs().flatten(1).amax(dim=1)
    return Encoded(noise.cpu(), error.cpu(), state.dynamics.evaluations, state.labels)


def encode_all(
    model: TrainedAction,
    options: SamplingConfig,
    dataset: ImageDataset,
    indices: Sequence[int],
    request: Request,
    say: Callable[[str], None] = print,
) -> Iterator[Encoded]:
    """Encode the images `indices` of a data set, at most `options.batch_size` in a batch; otherwise as `encode`.

    Each image has its own class unless the request gives one. `say` takes lines of progress.
    """
    request = replace(request, images=dataset)
    progress = Progress(len(indices), "images", say, doing="encoding")

    def work(batch: Sequence[int]) -> Encoded:
        return encode(model, options, to_float(dataset.images(batch)), batch, request)

    probe = partial(initial_drift, model, options, request=request)
    for batch, encoded in in_batches(work, indices, options.batch_size, probe, model.device, say=say):
        progress.advance(len(batch))
        yield encoded
