"""Checkpoints: folders of safetensors and JSON, complete or absent, verified when read.

RUN/checkpoints/step-00003125/
    action.safetensors      the weights; the configuration travels in the metadata
    ema-44300.safetensors   averaged weights, one file for each rate of training.ema
    optimizer.safetensors   the optimiser's state, keyed by parameter
    state.json              how far training has come
    manifest.json           SHA-256 of each of the others
RUN/checkpoints/best/       the same, of the best weights evaluated while training, and their evaluation.json

Exported weights are one file, averaged ones of one rate or the weights themselves, with configuration and checksum in the metadata.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from amgen.config import Config, parse
from amgen.core.checks import check_export
from amgen.core.errors import UserError
from amgen.core.files import make_folder, remove_folder, replacing, sha256, write_folder

FORMAT = 1

ACTION = "action"

BEST = "best"

_NAME = re.compile(r"step-(\d{1,18})")

_ADVICE = "choose another checkpoint or file"

_READABLE = "make it readable for this user"


@dataclass
class Progress:
    """How far training has come; beside the tensors, all that resuming needs.

    Attributes:
        step: optimisation steps taken.
        images: images seen.
        window: sums of the metrics since the last line of metrics.jsonl, and their `steps`.
        data: fingerprint of the training images.
        times: what the sampler of times has learned.
        skipped: images of the stream that others stood in for, because they could not be read.
    """

    step: int = 0
    images: int = 0
    window: dict[str, float] = field(default_factory=dict)
    data: str = ""
    times: list[list[float]] = field(default_factory=list)
    skipped: int = 0

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")  # for reading it back


@dataclass
class Weights:
    """Weights that a network can be given.

    Attributes:
        config: configuration of the run that they come from.
        name: which these are, `action` or `ema-RATE`.
        tensors: the state dict, on the CPU.
        step: optimisation steps that they were trained for.
        images: images that they were trained on.
        source: the checkpoint or the exported file.
        sha256: what identifies them, see `digest`.
    """

    config: Config
    name: str
    tensors: Mapping[str, Tensor]
    step: int
    images: int
    source: Path
    sha256: str


@dataclass
class Checkpoint:
    """The complete state of a training run.

    Attributes:
        config: the resolved configuration.
        progress: how far training has come.
        weights: `action` and `ema-RATE`, each a state dict.
        optimizer: state of the optimiser, `parameter:entry` to tensor.
    """

    config: Config
    progress: Progress
    weights: Mapping[str, Mapping[str, Tensor]]
    optimizer: Mapping[str, Tensor]


def rate_text(rate: float) -> str:
    """Return a rate as it is written in names: 0.998, and 44300 for a half-life in whole images."""
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
        notes: further JSON files by name, to lie beside the weights.

    Raises:
        UserError: if the disk is full or cannot be written; earlier checkpoints are untouched.
    """
    progress = checkpoint.progress
    path = make_folder(folder_of(run)) / (name or f"step-{progress.step:08d}")

    def fill(folder: Path) -> None:
        metadata = {"amgen": json.dumps({"format": FORMAT, "config": checkpoint.config.model_dump(mode="json"),
                                         "step": progress.step, "images": progress.images})}  # fmt: skip
        for name, tensors in checkpoint.weights.items():
            _save_tensors(folder / f"{name}.safetensors", tensors, metadata)
        _save_tensors(folder / "optimizer.safetensors", checkpoint.optimizer, None)
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
    """Read and verify a whole checkpoint, tensors on the CPU.

    Raises:
        UserError: naming the file that is missing, damaged or holds something else, whatever its checksum.
    """
    verify(folder)
    action, optimizer = folder / f"{ACTION}.safetensors", folder / "optimizer.safetensors"
    config, progress = read_config(action), _read_progress(folder / "state.json")
    with _reading(folder, _fall_back(folder)):
        files = [file for file in sorted(folder.glob("*.safetensors")) if file != optimizer]
    weights = {file.stem: _load_tensors(file) for file in files}
    return Checkpoint(config, progress, weights, _load_tensors(optimizer))


def verify(folder: Path, names: Iterable[str] | None = None) -> None:
    """Check the files of a checkpoint (those in `names`, or all) against its manifest.

    Raises:
        UserError: naming the file that is missing or damaged.
    """
    advice = _fall_back(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if not isinstance(manifest, dict):
            raise ValueError("it holds no table of checksums")
    except PermissionError:
        raise UserError(f"cannot read {folder / 'manifest.json'}: Permission denied: {_READABLE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder} is not a whole checkpoint: cannot read its manifest.json ({_reason(error)}): {advice}") from None
    always = [f"{ACTION}.safetensors", "optimizer.safetensors", "state.json"]
    for name in dict.fromkeys([*always, *manifest]) if names is None else names:
        file = folder / name
        with _reading(file, advice):
            if not file.is_file():
                raise UserError(f"the checkpoint {folder} lacks {name}: {advice}")
            found = sha256(file)
        if name not in manifest:
            raise UserError(f"the manifest of the checkpoint {folder} does not name {name}: {advice}")
        if found != manifest[name]:
            raise UserError(f"the checkpoint file {file} is damaged (its SHA-256 differs from the manifest's): {advice}")


def read_weights(source: Path, ema: float | None = None, raw: bool = False) -> Weights:
    """Read and verify one set of weights of a run (its newest checkpoint), a checkpoint or an exported file.

    Args:
        source: the folder or file.
        ema: rate of the averaged weights; by default the first of the run's, or what the file holds.
        raw: take the weights themselves instead of an average.

    Raises:
        UserError: if there is no such checkpoint or average, or it is damaged.
    """
    with _reading(source, "give the folder of a run or of a checkpoint, or an exported file"):
        exported = source.is_file()
    if exported:
        return _read_exported(source, ema, raw)
    folder = find(source)
    verify(folder, [f"{ACTION}.safetensors"])
    config = read_config(folder / f"{ACTION}.safetensors")
    rates = config.training.ema
    if ema is not None and ema not in rates:
        raise UserError(f"{folder} has no averaged weights of rate {rate_text(ema)}: choose one of {', '.join(map(rate_text, rates))}")
    name = ACTION if raw else ema_name(rates[0] if ema is None else ema)
    file = folder / f"{name}.safetensors"
    verify(folder, [file.name])
    metadata, tensors = _metadata(file), _load_tensors(file)
    return Weights(config, name, tensors, metadata["step"], metadata["images"], folder, digest(tensors))


def export(weights: Weights, file: Path) -> None:
    """Write one set of weights as a single file with everything that using it needs, whole or not at all.

    Raises:
        UserError: if it cannot be written.
    """
    check_export(file)
    contents = {
        **{"format": FORMAT, "config": weights.config.model_dump(mode="json"), "step": weights.step, "images": weights.images},
        **{"weights": weights.name, "sha256": weights.sha256},
    }
    make_folder(file.parent)
    with replacing(file) as temporary:
        try:
            _save_tensors(temporary, weights.tensors, {"amgen": json.dumps(contents)})
        except SafetensorError as error:  # how it reports a full disk
            raise UserError(f"cannot write {file}: {error}") from None


def _read_exported(file: Path, ema: float | None, raw: bool) -> Weights:
    metadata = _metadata(file)
    if "weights" not in metadata or "sha256" not in metadata:
        raise UserError(f"{file} is part of a checkpoint: give its folder {file.parent}, or a file of amgen export")
    name, wanted = metadata["weights"], None if ema is None else ema_name(ema)
    if (raw and name != ACTION) or wanted not in (None, name):
        raise UserError(f"{file} holds the weights {name} alone, not {ACTION if raw else wanted}: export those from their run")
    tensors = _load_tensors(file)
    checksum = digest(tensors)
    if checksum != metadata["sha256"]:
        raise UserError(f"the weights in {file} are damaged (their SHA-256 differs from the one in its metadata): export them again")
    return Weights(read_config(file), name, tensors, metadata["step"], metadata["images"], file, checksum)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return what identifies weights whatever they are called and wherever they lie: a SHA-256 of names, types, shapes and values.

    It is hexadecimal; a digest of 100 MB takes about 0.1 s.
    """
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _load_tensors(file: Path) -> dict[str, Tensor]:
    with _reading(file, _ADVICE):
        return load_file(file)


def read_config(file: Path) -> Config:
    """Return the configuration that travels in a weights file.

    Raises:
        UserError: if the file cannot be read or was not written by amgen.
    """
    return parse(_metadata(file)["config"], str(file))


def read_images(file: Path) -> int:
    """Return how many images the weights in a file were trained on."""
    return int(_metadata(file)["images"])


def _read_progress(file: Path) -> Progress:
    """Read how far training has come."""
    with _reading(file, _fall_back(file.parent)):
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


def _reason(error: Exception) -> str:
    """Return an error's message in one line."""
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())


@contextmanager
def _reading(file: Path, advice: str) -> Iterator[None]:
    """Turn whatever an unreadable or damaged file raises into one line."""
    try:
        yield
    except PermissionError:
        raise UserError(f"cannot read {file}: Permission denied: {_READABLE}") from None
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, MemoryError) as error:
        raise UserError(f"cannot read {file}: {_reason(error)}: {advice}") from None


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict into a module.

    Raises:
        UserError: naming the first tensor that does not fit, if the weights are of another architecture.
    """
    own = module.state_dict()
    for name in [*own, *weights]:
        if name not in weights or name not in own:
            place = "the checkpoint lacks" if name not in weights else "the network lacks"
            raise UserError(f"{source} is of another architecture than its configuration describes: {place} {name}")
        if own[name].shape != weights[name].shape:
            raise UserError(
                f"{source} is of another architecture than its configuration describes: {name} has shape "
                f"{tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
            )
    module.load_state_dict(weights)


def all_checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    folder = folder_of(run)
    with _reading(folder, "choose another run"):
        if not folder.is_dir():
            return []
        return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=step_of)


def step_of(checkpoint: Path) -> int:
    """Return the step in a checkpoint's name."""
    match = _NAME.fullmatch(checkpoint.name)
    assert match is not None
    return int(match[1])


def latest(run: Path) -> Path | None:
    """Return the newest checkpoint of a run, or None."""
    checkpoints = all_checkpoints(run)
    return checkpoints[-1] if checkpoints else None


def find(path: Path) -> Path:
    """Return the checkpoint that a user's path means: itself, or the newest of a run.

    Raises:
        UserError: if there is none.
    """
    with _reading(path, "give the folder of a run or of a checkpoint"):
        if not path.exists():
            raise UserError(f"{path} does not exist: give the folder of a run or of a checkpoint")
        if (path / f"{ACTION}.safetensors").is_file() or _NAME.fullmatch(path.name):
            return path
    newest = latest(path)
    if newest is None:
        raise UserError(f"{path} holds no checkpoint: give the folder of a run that `amgen train` has saved")
    return newest


def rotate(run: Path, keep_last: int, keep_every_steps: float) -> None:
    """Delete old checkpoints.

    What stays: the newest `keep_last`, and the first at or after each multiple of `keep_every_steps` (0 for none).
    """
    reached = 0
    for path in all_checkpoints(run)[:-keep_last]:
        multiple = int(step_of(path) / keep_every_steps) if keep_every_steps else 0
        if multiple > reached:
            reached = multiple
        else:
            remove_folder(path)


def _save_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None) -> None:
    file.touch()
    mode = file.stat().st_mode & 0o777  # as the umask has it; safetensors writes for the owner alone
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file, metadata)
    file.chmod(mode)


def _metadata(file: Path) -> dict[str, Any]:
    """Return what amgen wrote into a weights file beside the tensors: `config`, `step`, `images` and, if exported, more."""
    with _reading(file, _ADVICE), safe_open(file, framework="pt") as opened:
        metadata = opened.metadata() or {}
    if "amgen" not in metadata:
        raise UserError(f"{file} was not written by amgen: its metadata holds no configuration")
    with _reading(file, _ADVICE):
        contents = json.loads(metadata["amgen"])
    if not isinstance(contents, dict) or "format" not in contents:
        raise UserError(f"{file} was not written by amgen: its metadata does not say its format")
    if contents["format"] != FORMAT:
        raise UserError(f"{file} has format {contents['format']!r}, this version of amgen reads format {FORMAT}")
    for key, kind in (("config", dict), ("step", int), ("images", int)):
        if not isinstance(contents.get(key), kind):
            raise UserError(f"{file} is damaged: its metadata does not say its {key}: {_ADVICE}")
    return contents
