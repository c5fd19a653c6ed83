"""Checkpoints: folders of safetensors and JSON, written whole or not at all, and verified when read.

RUN/checkpoints/step-00003125/
    action.safetensors      the weights, with the configuration in the metadata
    ema-44300.safetensors   averaged weights, one file for each rate of training.ema
    optimizer.safetensors   the optimiser's state, keyed by parameter
    neighbourhood.safetensors   for a population: points that the action was trained on, see amgen.paths.neighbourhood
    state.json              the progress of the training
    manifest.json           SHA-256 of each of the other files
RUN/checkpoints/best/       the same for the weights with the best evaluation, and their evaluation.json
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from amgen.config import Config
from amgen.core.errors import UserError
from amgen.core.files import make_folder, remove_folder, sha256, write_folder
from amgen.model.weights_file import FORMAT, READABLE, load_tensors, read_config, reading, reason_of, save_tensors

ACTION = "action"
"""Name of the weights themselves, beside the averages `ema-RATE`."""

BEST = "best"
"""Name of the checkpoint with the best evaluation."""

NEIGHBOURHOOD = "neighbourhood"
"""Name of the file with the neighbourhood of the training data of a population; older checkpoints have none."""

NAME = re.compile(r"step-(\d{1,18})")
"""Names of the other checkpoints."""


@dataclass
class Progress:
    """The progress of a training: together with the tensors, everything that resuming needs.

    Attributes:
        step: optimisation steps taken.
        images: images seen.
        window: sums of the metrics since the last line of metrics.jsonl, and their `steps`.
        data: fingerprint of the training images.
        times: state of the sampler of times.
        skipped: number of images that could not be read and were replaced by others.
    """

    step: int = 0
    images: int = 0
    window: dict[str, float] = field(default_factory=dict)
    data: str = ""
    times: list[list[float]] = field(default_factory=list)
    skipped: int = 0

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")  # for reading it back


@dataclass
class Checkpoint:
    """The complete state of a training run.

    Attributes:
        config: the resolved configuration.
        progress: the progress of the training.
        weights: state dicts by name, `action` and `ema-RATE`.
        optimizer: state of the optimiser, `parameter:entry` to tensor.
        neighbourhood: tensors of `amgen.paths.Neighbourhood`; empty for images.
    """

    config: Config
    progress: Progress
    weights: Mapping[str, Mapping[str, Tensor]]
    optimizer: Mapping[str, Tensor]
    neighbourhood: Mapping[str, Tensor] = field(default_factory=dict)


def rate_text(rate: float) -> str:
    """Return a rate as text for names: 0.998, or 44300 for a half-life in whole images."""
    return str(int(rate)) if rate >= 1 and rate == int(rate) else str(rate)


def ema_name(rate: float) -> str:
    """Return the name of the averaged weights of a rate."""
    return f"ema-{rate_text(rate)}"


def folder_of(run: Path) -> Path:
    """Return the folder that holds a run's checkpoints."""
    return run / "checkpoints"


def save(run: Path, checkpoint: Checkpoint, name: str | None = None, notes: Mapping[str, Any] | None = None) -> Path:
    """Write a checkpoint and return its folder.

    Args:
        run: the run directory.
        checkpoint: what to write.
        name: name of the folder, by default that of the step.
        notes: contents of further JSON files, by file name.

    Raises:
        UserError: if the disk is full or cannot be written; earlier checkpoints are untouched.
    """
    progress = checkpoint.progress
    path = make_folder(folder_of(run)) / (name or f"step-{progress.step:08d}")

    def fill(folder: Path) -> None:
        metadata = {"amgen": json.dumps({"format": FORMAT, "config": checkpoint.config.model_dump(mode="json"),
                                         "step": progress.step, "images": progress.images})}  # fmt: skip
        for name, tensors in checkpoint.weights.items():
            save_tensors(folder / f"{name}.safetensors", tensors, metadata)
        save_tensors(folder / "optimizer.safetensors", checkpoint.optimizer, None)
        if checkpoint.neighbourhood:
            save_tensors(folder / f"{NEIGHBOURHOOD}.safetensors", checkpoint.neighbourhood, None)
        (folder / "state.json").write_text(json.dumps(asdict(progress)))
        for file, note in (notes or {}).items():
            (folder / file).write_text(json.dumps(note))
        manifest = {file.name: sha256(file) for file in sorted(folder.iterdir())}
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))

    try:
        write_folder(path, fill)
    except (OSError, SafetensorError) as error:
        last = latest(run)
        rescue = f"the last good one is {last}" if last else "there is no earlier one"
        raise UserError(f"cannot write the checkpoint {path}: {error}: free some space and run again; {rescue}") from None
    return path


def load(folder: Path) -> Checkpoint:
    """Read and verify a whole checkpoint; the tensors are on the CPU.

    Raises:
        UserError: naming the file that is missing, damaged or has other contents than expected.
    """
    verify(folder)
    action, optimizer = folder / f"{ACTION}.safetensors", folder / "optimizer.safetensors"
    config, progress = read_config(action), _read_progress(folder / "state.json")
    with reading(folder, _fall_back(folder)):
        files = [file for file in sorted(folder.glob("*.safetensors")) if file.stem not in (optimizer.stem, NEIGHBOURHOOD)]
    weights = {file.stem: load_tensors(file) for file in files}
    return Checkpoint(config, progress, weights, load_tensors(optimizer), read_neighbourhood(folder))


def read_neighbourhood(folder: Path) -> Mapping[str, Tensor]:
    """Return the tensors of the neighbourhood of the training data in a checkpoint; empty if it has none.

    Raises:
        UserError: if the file is damaged.
    """
    file = folder / f"{NEIGHBOURHOOD}.safetensors"
    if not file.is_file():
        return {}
    verify(folder, [file.name])
    return load_tensors(file)


def verify(folder: Path, names: Iterable[str] | None = None) -> None:
    """Compare the files of a checkpoint (those in `names`, or all) with its manifest.

    Raises:
        UserError: naming the file that is missing or damaged.
    """
    advice = _fall_back(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if not isinstance(manifest, dict):
            raise ValueError("it holds no table of checksums")
    except PermissionError:
        raise UserError(f"cannot read {folder / 'manifest.json'}: Permission denied: {READABLE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder} is not a whole checkpoint: cannot read its manifest.json ({reason_of(error)}): {advice}") from None
    always = [f"{ACTION}.safetensors", "optimizer.safetensors", "state.json"]
    for name in dict.fromkeys([*always, *manifest]) if names is None else names:
        file = folder / name
        with reading(file, advice):
            if not file.is_file():
                raise UserError(f"the checkpoint {folder} lacks {name}: {advice}")
            found = sha256(file)
        if name not in manifest:
            raise UserError(f"the manifest of the checkpoint {folder} does not name {name}: {advice}")
        if found != manifest[name]:
            raise UserError(f"the checkpoint file {file} is damaged (its SHA-256 differs from the manifest's): {advice}")


def _read_progress(file: Path) -> Progress:
    """Read the progress of a training."""
    with reading(file, _fall_back(file.parent)):
        text = file.read_text(encoding="utf-8")
    try:
        progress = TypeAdapter(Progress).validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise UserError(f"{file} does not say how far training has come ({place or 'it is no JSON'}): {_fall_back(file.parent)}") from None
    return progress


def _fall_back(folder: Path) -> str:
    return f"remove {folder} to fall back on the checkpoint before it, if there is one"


def all_checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    folder = folder_of(run)
    with reading(folder, "choose another run"):
        if not folder.is_dir():
            return []
        return sorted((path for path in folder.iterdir() if NAME.fullmatch(path.name)), key=step_of)


def step_of(checkpoint: Path) -> int:
    """Return the step in a checkpoint's name."""
    match = NAME.fullmatch(checkpoint.name)
    assert match is not None
    return int(match[1])


def latest(run: Path) -> Path | None:
    """Return the newest checkpoint of a run, or None."""
    checkpoints = all_checkpoints(run)
    return checkpoints[-1] if checkpoints else None


def find(path: Path) -> Path:
    """Return the checkpoint that a path names: the path itself, or the newest checkpoint of a run.

    Raises:
        UserError: if there is none.
    """
    with reading(path, "give the folder of a run or of a checkpoint"):
        if not path.exists():
            raise UserError(f"{path} does not exist: give the folder of a run or of a checkpoint")
        if (path / f"{ACTION}.safetensors").is_file() or NAME.fullmatch(path.name):
            return path
    newest = latest(path)
    if newest is None:
        raise UserError(f"{path} holds no checkpoint: give the folder of a run that `amgen train` has saved")
    return newest


def rotate(run: Path, keep_last: int, keep_every_steps: float) -> None:
    """Delete old checkpoints, except the newest `keep_last` and the first one at or after each multiple of `keep_every_steps` (0: none)."""
    reached = 0
    for path in all_checkpoints(run)[:-keep_last]:
        multiple = int(step_of(path) / keep_every_steps) if keep_every_steps else 0
        if multiple > reached:
            reached = multiple
        else:
            remove_folder(path)
