"""What a checkpoint must hold for training to go on from it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from amgen import checkpoints
from amgen.checkpoints import Checkpoint, Progress
from amgen.errors import UserError

OPTIMIZER = ("step", "exp_avg", "exp_avg_sq")
"""What Adam remembers of each parameter."""


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a whole checkpoint.

    Raises:
        UserError: if it cannot be read, or its state.json is not one.
    """
    try:
        checkpoint = checkpoints.load(folder)
    except UserError:
        raise
    except Exception as error:  # files that their manifest vouches for, and that hold something else
        raise _damaged(folder, f"it cannot be read: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from None
    _check_progress(checkpoint.progress, folder / "state.json", checkpoint.config.training.batch_size)
    return checkpoint


def check_resumable(
    checkpoint: Checkpoint, folder: Path, action: nn.Module, rates: Sequence[float], times: Sequence[Sequence[float]]
) -> None:
    """Refuse a checkpoint that lacks something, or holds tensors of other shapes or numbers that are not finite.

    Args:
        checkpoint: what was read.
        folder: from where.
        action: the network that is to have it.
        rates: of the averages that are to have it.
        times: what the sampler of times remembers when it is new.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
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
    if not all(type(count) is int and count >= 0 for count in (step, images, skipped)) or images != step * batch_size:
        raise _damaged(file, f"step {step!r}, images {images!r} and skipped {skipped!r} are not the counts of steps of {batch_size} images")
    if not isinstance(progress.window, dict) or not all(map(_is_number, progress.window.values())):
        raise _damaged(file, "its `window` does not map names to numbers")
    if progress.window and "steps" not in progress.window:
        raise _damaged(file, "its `window` has no `steps`")
    if not isinstance(progress.data, str):
        raise _damaged(file, "its `data` is not a text")
    rows = progress.times
    if not isinstance(rows, list) or not all(isinstance(row, list) and all(map(_is_number, row)) for row in rows):
        raise _damaged(file, "its `times` are not rows of numbers")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _damaged(file: Path, problem: str) -> UserError:
    folder = file if file.is_dir() else file.parent
    return UserError(f"cannot go on from {file}: {problem}: remove {folder} to fall back on the checkpoint before it, if there is one")
