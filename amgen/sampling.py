"""From a checkpoint and seeds to images."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from amgen import checkpoints
from amgen.actions import Action
from amgen.build import build_action, build_path
from amgen.config import Config, SamplingConfig
from amgen.data import to_uint8
from amgen.dynamics import Dynamics
from amgen.errors import Diverged, UserError
from amgen.paths import Path as ProbabilityPath
from amgen.randomness import Purpose, gaussian
from amgen.solvers import ADAPTIVE, Solver, make_solver


@dataclass
class Model:
    """A trained action, ready to generate.

    Attributes:
        config: the configuration it was trained with.
        action: the network, frozen.
        path: the path it was trained on.
        weights: which weights these are, `action` or `ema-RATE`.
        images: how many images they were trained on.
        source: where they came from.
    """

    config: Config
    action: Action
    path: ProbabilityPath
    weights: str
    images: int
    source: Path

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.action.parameters()).device

    @property
    def run(self) -> Path:
        """The run directory that the checkpoint lies in, or the checkpoint's own folder if it was copied out of one."""
        run = self.source.parent.parent
        return run if (run / "config.yaml").exists() else self.source

    def describe(self) -> dict[str, Any]:
        """Return what identifies the weights, for reports."""
        return {"checkpoint": str(self.source), "weights": self.weights, "images_trained": self.images}


@dataclass
class Samples:
    """A batch of generated images.

    Attributes:
        indices: index of each image; image i is a function of (model, solver, seed, i).
        images: uint8, (B, C, H, W).
        labels: classes asked for, int64 (B,); None for an unconditional model.
        evaluations: gradients of the action evaluated for the batch (NFE).
    """

    indices: Sequence[int]
    images: Tensor
    labels: Tensor | None
    evaluations: int


def load(source: str | Path, ema: float | None = None, raw: bool = False, device: str = "auto") -> Model:
    """Load a model from a run directory (its newest checkpoint) or a checkpoint.

    Args:
        source: the folder.
        ema: rate of the averaged weights to use; by default the first of the run's.
        raw: use the weights themselves instead of an average.
        device: where to put it: a torch device, or auto for a GPU where there is one.

    Raises:
        UserError: if there is no such checkpoint or average, or it is damaged.
    """
    folder = checkpoints.find(Path(source))
    checkpoints.verify(folder, [f"{checkpoints.ACTION}.safetensors"])
    config = checkpoints.read_config(folder / f"{checkpoints.ACTION}.safetensors")
    rates = config.training.ema
    if ema is not None and ema not in rates:
        raise UserError(f"{folder} has no averaged weights of rate {ema}: choose one of {', '.join(map(str, rates))}")
    name = checkpoints.ACTION if raw else checkpoints.ema_name(rates[0] if ema is None else ema)
    file = folder / f"{name}.safetensors"
    checkpoints.verify(folder, [file.name])
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read the weights {file}: {error}") from None
    action = build_action(config)
    checkpoints.load_weights(action, weights, str(file))
    action.to(_device(device)).requires_grad_(False).eval()
    return Model(config, action, build_path(config), name, checkpoints.read_images(file), folder)


def with_weights(action: Action, weights: Mapping[str, Tensor]) -> Action:
    """Return a frozen copy of an action with other weights."""
    copied = copy.deepcopy(action).requires_grad_(False).eval()
    copied.load_state_dict(weights)
    return copied


def generate(
    action: Action,
    path: ProbabilityPath,
    config: Config,
    solver: Solver,
    indices: Sequence[int],
    seed: int,
    label: int | None = None,
) -> Samples:
    """Generate the images `indices` in one batch.

    The noise of image i is drawn on the CPU from (seed, i). A class-conditional model is asked for `label`, or by default for class i
    modulo the number of classes.

    Raises:
        Diverged: if an image comes out with values that are not finite.
    """
    device = next(action.parameters()).device
    labels = _labels(config.action.classes, indices, label)
    noise = path.prior(gaussian(seed, Purpose.SAMPLE_NOISE, indices, config.image_shape)).to(device)
    dynamics = Dynamics(action, labels if labels is None else labels.to(device))
    x = solver.solve(dynamics.velocity, noise)
    finite = torch.isfinite(x).flatten(1).all(dim=1)
    if not finite.all():
        first = indices[int((~finite).nonzero()[0])]
        raise Diverged(f"image {first} has values that are not finite: use more steps or another checkpoint")
    return Samples(indices, to_uint8(x).cpu(), labels, dynamics.evaluations)


def generate_all(model: Model, options: SamplingConfig, indices: Sequence[int], seed: int, label: int | None = None) -> Iterator[Samples]:
    """Generate the images `indices`, `options.batch_size` at a time."""
    solver = make_solver(options.solver, options.steps, options.tolerance)
    for start in range(0, len(indices), options.batch_size):
        chosen = indices[start : start + options.batch_size]
        yield generate(model.action, model.path, model.config, solver, chosen, seed, label)


def _labels(classes: int, indices: Sequence[int], label: int | None) -> Tensor | None:
    if not classes:
        if label is not None:
            raise UserError(f"label={label}: this model was trained without classes (action.classes=0)")
        return None
    if label is not None and not 0 <= label < classes:
        raise UserError(f"label={label}: this model knows the classes 0 to {classes - 1}")
    return torch.tensor([index % classes if label is None else label for index in indices])


def describe_solver(options: SamplingConfig) -> dict[str, Any]:
    """Return the solver's name and the one setting it heeds, for reports."""
    adaptive = options.solver in ADAPTIVE
    return {"solver": options.solver, **({"tolerance": options.tolerance} if adaptive else {"steps": options.steps})}


def _device(name: str) -> torch.device:
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device
