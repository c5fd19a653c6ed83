"""The contents of a run directory. Files that cannot be read are skipped, and listed with the reason."""

import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any, TypeGuard

import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from amgen import __version__, config
from amgen.config import Config
from amgen.config.wording import expected
from amgen.core.errors import UserError
from amgen.evaluation.report import OLD_KEYS, Evaluation, with_current_keys
from amgen.model import checkpoints
from amgen.model.weights_file import read_images
from amgen.reporting import CONFIG, check_run

GRIDS = 12
"""Most image grids of samples on a page."""
LARGEST_SIDE = 1024
"""Largest width and height of an image grid, in pixels. Larger ones are reduced: a page would have tens of megabytes."""
LARGEST_NUMBER = 1e300
"""Larger numbers count as infinite, because differences of them may overflow."""

_EVALUATION = TypeAdapter(Evaluation)


@dataclass(frozen=True)
class Skipped:
    """A file or entry that could not be read: its name in the run directory, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class Grid:
    """An image grid of samples.

    Attributes:
        images: images seen in training when the grid was made.
        data: the encoded image.
        mime: its media type.
        width: width of `data`, in pixels.
        height: height of `data`, in pixels.
        original: width and height in the file, if the grid was reduced.
    """

    images: int
    data: bytes
    mime: str
    width: int
    height: int
    original: tuple[int, int] | None = None


@dataclass(frozen=True)
class StoredEvaluation:
    """An evaluation and the file that it was read from."""

    file: str
    evaluation: Evaluation

    @property
    def images(self) -> int:
        """Number of images that the model was trained on."""
        return int(self.evaluation.model["images_trained"])

    @property
    def weights(self) -> str:
        """Name of the weights, such as "ema-0.998"."""
        return str(self.evaluation.model.get("weights", ""))


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint: its name, the images seen, the names of its weights and its size in bytes."""

    name: str
    images: int
    weights: tuple[str, ...]
    size: int


@dataclass
class RunRecord:
    """The contents of a run directory.

    Attributes:
        name: name of the run directory.
        config_text: the text of config.yaml.
        options: its sections; empty if they cannot be read.
        config: the options, checked; None if this version of amgen does not accept them.
        metrics: the finite numbers of each line of metrics.jsonl and machine.jsonl, sorted by images seen.
        grids: image grids of samples, sorted by images seen, at most GRIDS.
        grid_count: number of image grids in the run directory.
        evaluations: sorted by images of training, solver and NFE.
        checkpoints: oldest first; then the best one, if there is one.
        skipped: files and entries that could not be read.
    """

    name: str
    config_text: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    config: Config | None = None
    metrics: list[dict[str, float]] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    grid_count: int = 0
    evaluations: list[StoredEvaluation] = field(default_factory=list)
    checkpoints: list[SavedCheckpoint] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


@dataclass(frozen=True)
class Environment:
    """Time and software of the report."""

    written: datetime
    amgen: str
    torch: str
    python: str
    platform: str
    device: str

    @classmethod
    def here(cls) -> "Environment":
        """Return the environment of this process."""
        return cls(
            written=datetime.now().astimezone(),
            amgen=__version__,
            torch=metadata.version("torch"),
            python=platform.python_version(),
            platform=platform.platform(),
            device=_device(),
        )


def collect(run: Path) -> RunRecord:
    """Return the contents of a run directory.

    Raises:
        UserError: if `run` is not a run directory.

    Example:
        >>> from pathlib import Path
        >>> from amgen.reporting.collect import collect
        >>> record = collect(Path("runs/digits"))
        >>> record.name, record.skipped
        ('digits', [])
    """
    check_run(run)
    record = RunRecord(run.resolve().name)
    _read_config(run / CONFIG, record)
    by_images: dict[float, dict[str, float]] = {}
    for name in ("metrics.jsonl", "machine.jsonl"):
        for values in _read_metrics(run / name, record):
            by_images.setdefault(values["images"], {}).update(values)
    record.metrics = [by_images[images] for images in sorted(by_images)]
    for name, read in {"samples": _read_grids, "eval": _read_evaluations, checkpoints.folder_of(run).name: _read_checkpoints}.items():
        try:
            read(run / name, record)
        except (OSError, UserError) as error:  # a folder without read permission
            record.skipped.append(Skipped(name, getattr(error, "strerror", None) or str(error)))
    return record


def _read_config(file: Path, record: RunRecord) -> None:
    try:
        record.config_text = _read_text(file)
        record.options = config.read_yaml(str(file))
        record.config = config.load(str(file))
    except (UserError, ValueError, RecursionError) as error:
        record.skipped.append(Skipped(file.name, f"shown as text only, because this version of amgen cannot read it: {error}"))


def _read_metrics(file: Path, record: RunRecord) -> list[dict[str, float]]:
    """Return the finite numbers of each line."""
    found: list[dict[str, float]] = []
    if not file.exists():
        return found
    try:
        lines = _read_text(file).splitlines()
    except ValueError as error:
        record.skipped.append(Skipped(file.name, str(error)))
        return found
    for number, line in enumerate(lines, start=1):
        name = f"{file.name}, line {number}"
        try:
            entries = _parse(line)
        except ValueError as error:
            record.skipped.append(Skipped(name, str(error)))
            continue
        values = {key: float(value) for key, value in entries.items() if _is_number(value)}
        if values.get("images", -1.0) < 0:
            record.skipped.append(Skipped(name, "it has no number of images seen"))
            continue
        found.append(values)
        if len(values) < len(entries):
            other = ", ".join(key for key in entries if key not in values)
            record.skipped.append(Skipped(name, f"not a finite number: {other}"))
    return found


def _read_grids(folder: Path, record: RunRecord) -> None:
    found: list[tuple[int, Path]] = []
    for file in _entries(folder, ".png"):
        modality, _, images = file.stem.partition("-")
        if modality not in ("images", "points"):  # a file of the user
            continue
        if images.isascii() and images.isdigit():
            found.append((int(images), file))
        else:
            record.skipped.append(Skipped(f"samples/{file.name}", "its name does not end in a number of images"))
    found.sort()
    record.grid_count = len(found)
    for images, file in evenly_spaced(found, GRIDS):
        try:
            record.grids.append(_read_grid(images, file))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # PIL raises these for damaged files
            record.skipped.append(Skipped(f"samples/{file.name}", f"not an image that can be read ({error})"))


def _read_grid(images: int, file: Path) -> Grid:
    _check_regular(file)
    data = file.read_bytes()
    with Image.open(BytesIO(data)) as image:
        image.load()
        size, mime = image.size, Image.MIME[image.format or ""]
        if max(size) <= LARGEST_SIDE:
            return Grid(images, data, mime, size[0], size[1])
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
        buffer = BytesIO()
        image.save(buffer, format="png")
    return Grid(images, buffer.getvalue(), "image/png", image.width, image.height, size)


def _read_evaluations(folder: Path, record: RunRecord) -> None:
    for file in _entries(folder, ".json"):
        name = f"eval/{file.name}"
        try:
            contents = _parse(_read_text(file))
        except ValueError as error:
            record.skipped.append(Skipped(name, str(error)))
            continue
        for part, entry in _evaluations_in(name, contents):
            try:
                record.evaluations.append(StoredEvaluation(name, _evaluation(entry)))
            except ValueError as error:
                record.skipped.append(Skipped(part, str(error)))

    def order(found: StoredEvaluation) -> tuple[int, str, float]:
        sampling = found.evaluation.sampling
        return found.images, str(sampling.get("solver")), nfe_of(found.evaluation) or 0

    record.evaluations.sort(key=order)


def _evaluations_in(name: str, contents: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the name and the contents of each evaluation in a file: one, or those of a sweep."""
    entries = contents.get("evaluations")
    if not isinstance(entries, list):
        yield name, contents
        return
    for number, entry in enumerate(entries, start=1):
        yield f"{name}, evaluation {number}", entry


def _evaluation(entry: Any) -> Evaluation:
    """Return the evaluation of a report, written by this version of amgen or an older one.

    Raises:
        ValueError: if the report is damaged.
    """
    contents = with_current_keys(entry) if isinstance(entry, dict) else {}
    if "scores" not in contents:
        raise ValueError("it holds no scores, so it is of another version of amgen or not an evaluation")
    try:
        evaluation = _EVALUATION.validate_python(contents)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        in_file = {new: old for old, new in OLD_KEYS.items() if old in entry}
        place = ".".join(in_file.get(str(part), str(part)) for part in problem["loc"])
        if problem["type"] == "missing":
            raise ValueError(f"it lacks {place}") from None
        raise ValueError(f"{place}: expected {expected(problem['type'], problem.get('ctx', {}))}") from None
    if not evaluation.scores:
        raise ValueError("its list of scores is empty")
    for score in evaluation.scores:
        if not _is_number(score.value) or not _is_number(score.standard_error or 0.0):
            raise ValueError(f"{score.name} is not a finite number")
    if not all(map(_is_number, evaluation.seconds.values())):
        raise ValueError("seconds are not finite numbers")
    images = evaluation.model.get("images_trained")
    if not _is_number(images) or images < 0:
        raise ValueError("model.images_trained is not a number of images")
    return evaluation


def _read_checkpoints(place: Path, record: RunRecord) -> None:
    run, best = place.parent, place / checkpoints.BEST
    for folder in [*checkpoints.all_checkpoints(run), *([best] if best.is_dir() else [])]:
        try:
            files = sorted(folder.iterdir())
            for file in files:
                _check_regular(file)
            weights = tuple(
                file.stem for file in files if file.suffix == ".safetensors" and file.stem not in ("optimizer", checkpoints.NEIGHBOURHOOD)
            )
            images = read_images(folder / f"{checkpoints.ACTION}.safetensors")
            record.checkpoints.append(SavedCheckpoint(folder.name, images, weights, sum(file.stat().st_size for file in files)))
        except (UserError, OSError, ValueError, KeyError, TypeError) as error:
            record.skipped.append(Skipped(f"checkpoints/{folder.name}", str(error)))


def nfe_of(evaluation: Evaluation) -> float | None:
    """Return the number of gradient evaluations per image (NFE); None if the report does not say."""
    value = evaluation.sampling.get("NFE")
    return float(value) if _is_number(value) else None


def evenly_spaced(items: list[Any], most: int) -> list[Any]:
    """Return at most `most` of `items` at even distances, with the first and the last one."""
    if len(items) <= most:
        return items
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def _read_text(file: Path) -> str:
    """Return the text of a file. Bytes that are not UTF-8 are replaced.

    Raises:
        ValueError: if it cannot be read.
    """
    try:
        _check_regular(file)
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None


def _entries(folder: Path, ending: str) -> list[Path]:
    """Return the files of a folder with this ending, sorted; an empty list if the folder does not exist.

    Raises:
        OSError: if the folder cannot be read.
    """
    return sorted(file for file in folder.iterdir() if file.suffix == ending) if folder.is_dir() else []


def _check_regular(file: Path) -> None:
    """Refuse special files such as named pipes: reading one may wait forever.

    Raises:
        ValueError: for a special file.
    """
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise ValueError("it is neither a file nor a folder")


def _parse(text: str) -> dict[str, Any]:
    """Return a JSON object. Integers too large for a float become infinite.

    Raises:
        ValueError: if the text is not a JSON object.
    """
    try:
        contents = json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= 300 else float(digits))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON ({error})") from None
    if not isinstance(contents, dict):
        raise ValueError("not a JSON object")
    return contents


def _is_number(value: Any) -> TypeGuard[int | float]:
    """Tell whether a value is a finite number (comparisons with NaN are false)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER


def _device() -> str:
    """Return the name of the device that `device: auto` uses here."""
    if not torch.accelerator.is_available():
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    device = torch.accelerator.current_accelerator()
    return torch.cuda.get_device_name() if device is not None and device.type == "cuda" else str(device)
