"""What a checkpoint must hold for training to go on from it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from amgen.core.errors import UserError
from amgen.model import checkpoints
from amgen.model.checkpoints import Checkpoint, Progress

OPTIMIZER = ("step", "exp_avg", "exp_avg_sq")
"""What Adam remembers of each parameter."""


def check_resumable(
    checkpoint: Checkpoint, folder: Path, action: nn.Module, rates: Sequence[float], times: Sequence[Sequence[float]]
) -> None:
    """Refuse a checkpoint that lacks something, or holds tensors of other shapes, numbers that are not finite or counts that do not agree.

    Args:
        checkpoint: what was read.
        folder: from where.
        action: the network that is to have it.
        rates: of the averages that are to have it.
        times: what the sampler of times remembers when it is new.

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
            raise _damaged(file, f"{name} holds values that are no finite numbers")
    if strangers := [name for name in found if name not in expected]:
        raise _damaged(file, f"the network knows no {strangers[0]}")


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
