"""The state of a training, how it is saved, and the checks of a checkpoint before training resumes from it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from amgen.actions import Action
from amgen.config import Config
from amgen.core.errors import UserError
from amgen.model import checkpoints
from amgen.model.checkpoints import Checkpoint, Progress
from amgen.model.export import load_weights
from amgen.paths import TimeSampler
from amgen.training.ema import ExponentialAverages

OPTIMIZER = ("step", "exp_avg", "exp_avg_sq")
"""Entries of Adam's state for each parameter."""


@dataclass
class TrainingState:
    """Everything that a checkpoint saves and `resume` restores.

    Attributes:
        config: the resolved options.
        action: the network.
        optimizer: the optimiser of its weights.
        averages: the averaged weights.
        times: the sampler of times; adaptive ones have a state.
        progress: steps, images, and metrics since the last log line.
        neighbourhood: tensors of the neighbourhood of the training data, for a population.
    """

    config: Config
    action: Action
    optimizer: torch.optim.Optimizer
    averages: ExponentialAverages
    times: TimeSampler
    progress: Progress
    neighbourhood: Mapping[str, Tensor] = field(default_factory=dict)

    def checkpoint(self) -> Checkpoint:
        """Return the current state as a checkpoint."""
        progress = replace(self.progress, times=self.times.state())
        weights = {checkpoints.ACTION: self.action.state_dict(), **self.averages.state()}
        optimizer = {
            f"{name}:{entry}": value
            for name, parameter in self.action.named_parameters()
            for entry, value in self.optimizer.state[parameter].items()
        }
        return Checkpoint(self.config, progress, weights, optimizer, self.neighbourhood)

    def save(self, run: Path) -> None:
        """Write a checkpoint, and delete old ones as the options say. Only the main process calls this.

        Raises:
            UserError: if the disk is full or cannot be written.
        """
        options = self.config.training
        checkpoints.save(run, self.checkpoint())
        checkpoints.rotate(run, options.keep_last, options.keep_every / options.batch_size)

    def resume(self, folder: Path, description: str) -> None:
        """Restore the state of a checkpoint.

        Args:
            folder: the checkpoint.
            description: description of the data, for errors.

        Raises:
            UserError: if it is damaged, or was trained on other images.
        """
        checkpoint = checkpoints.load(folder)
        if checkpoint.progress.data != self.progress.data:
            raise UserError(
                f"{folder} was trained on other images than {description}: give the same data.path, or choose another --run-dir"
            )
        check_resumable(checkpoint, folder, self.action, self.averages.rates, self.times.state())
        load_weights(self.action, checkpoint.weights[checkpoints.ACTION], str(folder))
        self.averages.load(checkpoint.weights)
        for name, parameter in self.action.named_parameters():
            self.optimizer.state[parameter] = {entry: checkpoint.optimizer[f"{name}:{entry}"].to(parameter.device) for entry in OPTIMIZER}
        self.progress = checkpoint.progress
        self.times.load(checkpoint.progress.times)


def check_resumable(
    checkpoint: Checkpoint, folder: Path, action: nn.Module, rates: Sequence[float], times: Sequence[Sequence[float]]
) -> None:
    """Refuse an incomplete checkpoint, tensors of other shapes, numbers that are not finite and counts that contradict each other.

    Args:
        checkpoint: the checkpoint.
        folder: its folder, for errors.
        action: the network for its weights.
        rates: rates of the averaged weights.
        times: state of a new sampler of times.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    _check_progress(checkpoint.progress, folder / "state.json", checkpoint.config.training.batch_size)
    weights = {name: tensor.shape for name, tensor in action.state_dict().items()}
    for name in (checkpoints.ACTION, *map(checkpoints.ema_name, rates)):
        if name not in checkpoint.weights:
            raise _damaged(folder / f"{name}.safetensors", "it is missing")
        _check_tensors(folder / f"{name}.safetensors", checkpoint.weights[name], weights)
    moments = {
        f"{name}:{entry}": torch.Size() if entry == "step" else parameter.shape
        for name, parameter in action.named_parameters()
        for entry in OPTIMIZER
    }
    _check_tensors(folder / "optimizer.safetensors", checkpoint.optimizer, moments)
    if [len(row) for row in checkpoint.progress.times] != [len(row) for row in times]:
        raise _damaged(folder / "state.json", "its `times` are not those of times.kind")


def _check_tensors(file: Path, found: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> None:
    for name, shape in expected.items():
        if name not in found:
            raise _damaged(file, f"it lacks {name}")
        if found[name].shape != shape:
            raise _damaged(file, f"{name} has shape {tuple(found[name].shape)}, expected {tuple(shape)}")
        if not found[name].is_floating_point() or not torch.isfinite(found[name]).all():
            raise _damaged(file, f"{name} holds values that are not finite")
    if unknown := [name for name in found if name not in expected]:
        raise _damaged(file, f"the network has no {unknown[0]}")


def _check_progress(progress: Progress, file: Path, batch_size: int) -> None:
    step, images, skipped = progress.step, progress.images, progress.skipped
    if min(step, images, skipped) < 0 or images != step * batch_size:
        raise _damaged(file, f"step {step}, images {images} and skipped {skipped} are not the counts of steps of {batch_size} images")
    if progress.window and "steps" not in progress.window:
        raise _damaged(file, "its `window` has no `steps`")
    if not all(map(math.isfinite, [*progress.window.values(), *(value for row in progress.times for value in row)])):
        raise _damaged(file, "it holds numbers that are not finite")


def _damaged(file: Path, problem: str) -> UserError:
    folder = file if file.is_dir() else file.parent
    return UserError(f"cannot go on from {file}: {problem}: remove {folder} to fall back on the checkpoint before it, if there is one")
