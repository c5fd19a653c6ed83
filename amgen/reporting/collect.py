"""What a run directory holds, read without trust: whatever cannot be read is left out and named, with the reason."""

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
from amgen.evaluation.report import Evaluation
from amgen.model import checkpoints
from amgen.model.weights_file import read_images
from amgen.reporting import CONFIG, check_run

GRIDS = 12
"""Most sample grids on a page."""
LARGEST_SIDE = 1024
"""Pixels of a grid's longer side; larger ones are reduced to it, or a page would take tens of megabytes."""
LARGEST_NUMBER = 1e300
"""Beyond it a number is as good as infinite, and differences might be."""

_EVALUATION = TypeAdapter(Evaluation)


@dataclass(frozen=True)
class Skipped:
    """Something that could not be read: its name in the run directory, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Grid:
    """A picture of samples, drawn after `images` images of training.

    Attributes:
        images: images seen.
        data: the encoded picture.
        mime: its media type.
        width: of `data`, in pixels.
        height: of `data`, in pixels.
        original: width and height in the file, if the picture was reduced.
    """

    images: int
    data: bytes
    mime: str
    width: int
    height: int
    original: tuple[int, int] | None = None


@dataclass(frozen=True)
class Evaluated:
    """An evaluation, and the file that it was read from."""

    file: str
    evaluation: Evaluation

    @property
    def images(self) -> int:
        """Images that the model was trained on."""
        return int(self.evaluation.model["images_trained"])

    @property
    def weights(self) -> str:
        """Which weights of the model."""
        return str(self.evaluation.model.get("weights", ""))


@dataclass(frozen=True)
class Saved:
    """A checkpoint: its name, the images seen, the weights that it holds and its size in bytes."""

    name: str
    images: int
    weights: tuple[str, ...]
    size: int


@dataclass
class RunRecord:
    """What is known of a run.

    Attributes:
        name: of the run directory.
        config_text: config.yaml as it is.
        options: its sections; empty if they cannot be read.
        config: the same, checked; None if this version of amgen refuses them.
        metrics: a dict for each line of metrics.jsonl, with what machine.jsonl tells of it, finite numbers alone, by images seen.
        grids: sample grids, by images seen, at most GRIDS of them.
        grid_count: how many there are in the run directory.
        evaluations: by images trained on, solver and NFE.
        checkpoints: oldest first, and at the end the best one if it was kept.
        skipped: what could not be read.
    """

    name: str
    config_text: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    config: Config | None = None
    metrics: list[dict[str, float]] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    grid_count: int = 0
    evaluations: list[Evaluated] = field(default_factory=list)
    checkpoints: list[Saved] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


@dataclass(frozen=True)
class Environment:
    """Where and when a report is written."""

    written: datetime
    amgen: str
    torch: str
    python: str
    platform: str
    device: str

    @classmethod
    def here(cls) -> "Environment":
        """Describe this process."""
        return cls(
            written=datetime.now().astimezone(),
            amgen=__version__,
            torch=metadata.version("torch"),
            python=platform.python_version(),
            platform=platform.platform(),
            device=_device(),
        )


def collect(run: Path) -> RunRecord:
    """Read a run directory.

    Raises:
        UserError: if it is none.
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
        except (OSError, UserError) as error:  # a folder that may not be looked into
            record.skipped.append(Skipped(name, getattr(error, "strerror", None) or str(error)))
    return record


def _read_config(file: Path, record: RunRecord) -> None:
    try:
        record.config_text = _read_text(file)
        record.options = config.read_yaml(str(file))
        record.config = config.load(str(file))
    except (UserError, ValueError, RecursionError) as error:
        record.skipped.append(Skipped(file.name, f"shown as it is, since this version of amgen does not read it: {error}"))


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
            record.skipped.append(Skipped(name, "it does not say how many images were seen"))
            continue
        found.append(values)
        if len(values) < len(entries):
            strange = ", ".join(key for key in entries if key not in values)
            record.skipped.append(Skipped(name, f"not a finite number: {strange}"))
    return found


def _read_grids(folder: Path, record: RunRecord) -> None:
    found: list[tuple[int, Path]] = []
    for file in _entries(folder, ".png"):
        modality, _, images = file.stem.partition("-")
        if modality not in ("images", "points"):  # what the items are; pictures of other names are a user's own
            continue
        if images.isascii() and images.isdigit():
            found.append((int(images), file))
        else:
            record.skipped.append(Skipped(f"samples/{file.name}", "its name does not end in a number of images"))
    found.sort()
    record.grid_count = len(found)
    for images, file in evenly(found, GRIDS):
        try:
            record.grids.append(_read_grid(images, file))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what PIL raises for damaged files
            record.skipped.append(Skipped(f"samples/{file.name}", f"not a picture that can be read ({error})"))


def _read_grid(images: int, file: Path) -> Grid:
    _check_regular(file)
    data = file.read_bytes()
    with Image.open(BytesIO(data)) as picture:
        picture.load()
        size, mime = picture.size, Image.MIME[picture.format or ""]
        if max(size) <= LARGEST_SIDE:
            return Grid(images, data, mime, size[0], size[1])
        picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
        buffer = BytesIO()
        picture.save(buffer, format="png")
    return Grid(images, buffer.getvalue(), "image/png", picture.width, picture.height, size)


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
                record.evaluations.append(Evaluated(name, _evaluation(entry)))
            except ValueError as error:
                record.skipped.append(Skipped(part, str(error)))

    def order(found: Evaluated) -> tuple[int, str, float]:
        sampling = found.evaluation.sampling
        return found.images, str(sampling.get("solver")), nfe_of(found.evaluation) or 0

    record.evaluations.sort(key=order)


def _evaluations_in(name: str, contents: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the name and the contents of each evaluation in a file: itself, or those of a sweep."""
    entries = contents.get("evaluations")
    if not isinstance(entries, list):
        yield name, contents
        return
    for number, entry in enumerate(entries, start=1):
        yield f"{name}, evaluation {number}", entry


def _evaluation(entry: Any) -> Evaluation:
    """Check an evaluation.

    Raises:
        ValueError: saying what is wrong with it.
    """
    if not isinstance(entry, dict) or "figures" not in entry:
        raise ValueError("it holds no figures, so it is of another version of amgen or no evaluation")
    try:
        evaluation = _EVALUATION.validate_python(entry)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "missing":
            raise ValueError(f"it lacks {place}") from None
        raise ValueError(f"{place}: expected {expected(problem['type'], problem.get('ctx', {}))}") from None
    if not evaluation.figures:
        raise ValueError("its list of figures is empty")
    for figure in evaluation.figures:
        if not _is_number(figure.value) or not _is_number(figure.standard_error or 0.0):
            raise ValueError(f"{figure.name} is not a finite number")
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
            weights = tuple(file.stem for file in files if file.suffix == ".safetensors" and file.stem != "optimizer")
            images = read_images(folder / f"{checkpoints.ACTION}.safetensors")
            record.checkpoints.append(Saved(folder.name, images, weights, sum(file.stat().st_size for file in files)))
        except (UserError, OSError, ValueError, KeyError, TypeError) as error:
            record.skipped.append(Skipped(f"checkpoints/{folder.name}", str(error)))


def nfe_of(evaluation: Evaluation) -> float | None:
    """Return the number of gradients an image took, None where an evaluation does not say."""
    value = evaluation.sampling.get("NFE")
    return float(value) if _is_number(value) else None


def evenly(items: list[Any], most: int) -> list[Any]:
    """Choose at most `most` of `items` at even distances, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def _read_text(file: Path) -> str:
    """Return the text of a file, with bytes that are not UTF-8 replaced.

    Raises:
        ValueError: if it cannot be read.
    """
    try:
        _check_regular(file)
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None


def _entries(folder: Path, ending: str) -> list[Path]:
    """Return what lies in a folder under names of that ending, sorted; nothing if there is no such folder.

    Raises:
        OSError: if it cannot be looked into.
    """
    return sorted(file for file in folder.iterdir() if file.suffix == ending) if folder.is_dir() else []


def _check_regular(file: Path) -> None:
    """Refuse what reading might wait for without end, such as a named pipe.

    Raises:
        ValueError: saying so.
    """
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise ValueError("it is neither a file nor a folder")


def _parse(text: str) -> dict[str, Any]:
    """Read a JSON object; integers that no float can hold become infinite.

    Raises:
        ValueError: if it is none.
    """
    try:
        contents = json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= 300 else float(digits))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON ({error})") from None
    if not isinstance(contents, dict):
        raise ValueError("not a JSON object")
    return contents


def _is_number(value: Any) -> TypeGuard[int | float]:
    """Tell whether a value is a number that can be drawn (NaN is below nothing)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER


def _device() -> str:
    """Name what `device: auto` computes on here."""
    if not torch.accelerator.is_available():
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    device = torch.accelerator.current_accelerator()
    return torch.cuda.get_device_name() if device is not None and device.type == "cuda" else str(device)
