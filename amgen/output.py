"""Where generated images go: PNG files or npz shards, written as they come by any number of processes, and pictures of some of them."""

import csv
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from amgen.checks import MOST_IMAGES, check_format
from amgen.data import make_grid, make_picture, to_image
from amgen.errors import UserError
from amgen.files import make_folder, replacing, write_bytes, write_json, write_text
from amgen.memory import free_bytes
from amgen.sampling import Model, Samples
from amgen.trajectory import Encoded

SETTINGS = "sampling.json"
WEIGHT = "log_weight"
KEY = "weights_sha256"
"""What the weights are known by in the settings of a folder."""
CHOOSE = "choose another --out"


class ImageFolder:
    """A folder of generated images, filled batch by batch, whatever the batches.

    png: 000000.png, 000001.png, ..., named by image index; images that carry weights have them in the file's text and, at the end, in
        weights.csv.
    npz: one shard a batch, images-FIRST-LAST.npz (or points-FIRST-LAST.npz), with `images` uint8 (N, H, W, C) (or `points` float32 (N,
        D) and `starts`), `indices`, and `labels`, `log_weights`, `inputs`, `truths` where there are any.

    Each file is there whole or not at all, so that an interrupted command goes on where it stopped.

    Args:
        folder: the folder.
        form: png or npz.
        settings: what the images depend on; a folder that holds images made with other settings is refused.
        main: whether this process prepares the folder.
        noun: images or points.
    """

    def __init__(self, folder: Path, form: str, settings: Mapping[str, Any], main: bool = True, noun: str = "images"):
        check_format(form)
        self.folder = folder
        self.form = form
        self.noun = noun
        if main:
            make_folder(folder)
            _check_settings(folder, {"format": form, **settings})
            write_json(folder / SETTINGS, {"format": form, **settings})

    def missing(self, indices: Sequence[int]) -> list[int]:
        """Return which of the images are not there yet.

        Raises:
            UserError: if a shard cannot be read.
        """
        if self.form == "npz":
            there = {index for shard in self._shards() for index in shard["indices"].tolist()}
        else:
            there = {int(file.stem) for file in self.folder.glob("*.png") if file.stem.isdecimal()}
        return [index for index in indices if index not in there]

    def write(self, samples: Samples) -> None:
        """Write a batch.

        Raises:
            UserError: if the disk is full or the folder cannot be written; what was written before stays.
        """
        if self.form == "npz":
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays(samples))  # type: ignore[arg-type]
            # No other shard begins with this image, since an image is in one shard.
            write_bytes(self.folder / f"{self.noun}-{samples.indices[0]:06d}-{samples.indices[-1]:06d}.npz", buffer.getvalue())
            return
        for row, index in enumerate(samples.indices):
            text = PngInfo()
            if samples.log_weights is not None:
                text.add_text(WEIGHT, repr(float(samples.log_weights[row])))
            buffer = io.BytesIO()
            to_image(samples.images[row]).save(buffer, format="png", pnginfo=text)
            write_bytes(self._png(index), buffer.getvalue())

    def weights(self, indices: Sequence[int]) -> dict[int, float]:
        """Read the log-weights of those of the images that carry some, by index."""
        found: dict[int, float] = {}
        if self.form == "npz":
            for shard in self._shards():
                if "log_weights" in shard:
                    found |= zip(shard["indices"].tolist(), shard["log_weights"].tolist(), strict=True)
            return {index: found[index] for index in indices if index in found}
        for index in indices:
            file = self._png(index)
            try:
                with Image.open(file) as image:
                    text = getattr(image, "text", {})
                found |= {index: float(text[WEIGHT])} if WEIGHT in text else {}
            except (OSError, ValueError, SyntaxError) as error:
                raise UserError(f"cannot read {file}: {error}: delete it, and the same command draws it again") from None
        return found

    def finish(self, weights: Mapping[int, float], resampled: Sequence[int] | None = None) -> list[str]:
        """Write what needs all images, such as the log-weights by index; return a line for each thing that is there."""
        contents = ": points at t = 1 and their starts, in the units of the table" if self.noun == "points" else ""
        written = [f"{self.folder}/*.{self.form}{contents}"]
        if weights and self.form == "png":
            write_text(self.folder / "weights.csv", _csv(["index", WEIGHT], weights.items()))
            written.append(str(self.folder / "weights.csv"))
        if resampled is not None:
            write_text(self.folder / "resampled.csv", _csv(["index"], ([index] for index in resampled)))
            written.append(str(self.folder / "resampled.csv"))
        return written

    def _png(self, index: int) -> Path:
        return self.folder / f"{index:06d}.png"

    def _shards(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield the `indices` of each shard, and `log_weights` where it has some."""
        for file in sorted(self.folder.glob(f"{self.noun}-*.npz")):
            shard = _read_npz(file, ("indices", "log_weights"), f"delete it, and the same command draws its {self.noun} again")
            if "indices" not in shard:
                raise UserError(f"{file} does not say which {self.noun} it holds: delete it, and the same command draws them again")
            yield shard


def arrays(samples: Samples) -> dict[str, np.ndarray]:
    """Return a batch as arrays: pictures with channels last, or `points` and where they started, `starts`."""
    found = {"indices": np.asarray(samples.indices)}
    points = samples.images.dim() == 2
    for name, called in {"images": "points", "inputs": "starts", "truths": ""}.items():
        values = getattr(samples, name)
        if values is not None:
            found[called if points else name] = values.numpy() if points else values.permute(0, 2, 3, 1).numpy()
    for name in ("labels", "log_weights"):
        values = getattr(samples, name)
        if values is not None:
            found[name] = values.numpy()
    return found


def form_of(form: str | None, model: Model) -> str:
    """Return the form of output for a model: the one asked for, by default png for images and npz for points.

    Raises:
        UserError: if points are to be PNG files.
    """
    default = "npz" if model.config.noun == "points" else "png"
    if form == "png" and default == "npz":
        raise UserError("--format png is for images, and this model is of points: leave it out, or give --format npz")
    return form or default


def check_images(model: Model, files: Mapping[str, Path | None]) -> None:
    """Refuse pictures that show images, by their options, for a model of points."""
    for option, file in files.items():
        if file is not None and model.config.noun == "points":
            raise UserError(f"{option} {file} shows images, and this model is of points: use --grid for a scatter, or --plot")


def save_grid(file: Path, pictures: Sequence[Tensor], columns: int | None = None) -> None:
    """Picture uint8 images (N, C, H, W), rows of each set in turn, or sets of points (N, D)."""
    _save(file, make_picture(pictures, columns))


def save_animation(file: Path, frames: Tensor, seconds: float = 2.0) -> None:
    """Write frames, uint8 (T, N, C, H, W), as an animated GIF, PNG or WebP of their grids; the last one stays for a second."""
    grids = [make_grid(frame) for frame in frames]
    durations = [round(1000 * seconds / len(grids))] * (len(grids) - 1) + [1000]
    _save(file, grids[0], save_all=True, append_images=grids[1:], duration=durations, loop=0)


@dataclass
class Codes:
    """Points at t = 0 that lead to images, as `amgen encode` writes them.

    Attributes:
        noise: float32 (N, C, H, W).
        classes: the class that each was encoded with, int64 (N,); None without classes, or where the file does not say.
        settings: what the noise depends on, such as `weights_sha256`, `guidance` and the solver; empty where the file does not say.
    """

    noise: Tensor
    classes: Tensor | None
    settings: dict[str, Any]


def save_noise(file: Path, encoded: Sequence[Encoded], settings: Mapping[str, Any]) -> Tensor:
    """Write encoded images as an npz, whole or not at all, and return the errors.

    `noise` (N, C, H, W), `error` (N,), `labels` (N,) where there are classes, and `settings`, what the noise depends on, as JSON.

    Raises:
        UserError: if the file cannot be written; what was there stays.
    """
    make_folder(file.parent)
    noise, error = (torch.cat([getattr(batch, name) for batch in encoded]) for name in ("noise", "error"))
    found = {"noise": noise.numpy(), "error": error.numpy(), "settings": np.array(json.dumps(settings))}
    labels = [batch.labels for batch in encoded if batch.labels is not None]
    if labels:
        found["labels"] = torch.cat(labels).numpy()
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **found)  # type: ignore[arg-type]
    return error


def read_noise(file: Path, shape: Sequence[int]) -> Codes:
    """Read points at t = 0 of an npz, as amgen encode writes it.

    Args:
        file: the npz; one that holds `noise` alone is read as well.
        shape: shape of what the model moves.

    Raises:
        UserError: if there is no such file, or it holds something else.
    """
    advice = "give an .npz that amgen encode wrote"
    found = _read_npz(file, ("noise", "labels", "settings"), advice, {"noise": tuple(shape), "labels": (), "settings": None})
    if "noise" not in found:
        raise UserError(f"cannot read noise from {file}: it holds none: {advice}")
    values = found["noise"]
    if values.shape[1:] != tuple(shape) or not len(values) or values.dtype.kind != "f":
        raise UserError(_other_noise(file, values.shape, values.dtype, shape))
    with np.errstate(over="ignore"):
        noise = torch.from_numpy(values.astype(np.float32))  # of any precision and byte order
    if not torch.isfinite(noise).all():
        raise UserError(f"{file} holds noise that is not finite: encode the images again")
    try:
        settings = json.loads(str(found["settings"])) if "settings" in found else {}
        if not isinstance(settings, dict):
            raise ValueError("its settings are no table")
        labels = torch.from_numpy(found["labels"].astype(np.int64, casting="safe")) if "labels" in found else None
        if labels is not None and labels.shape != (len(noise),):
            raise ValueError(f"it holds {labels.numel()} labels for {len(noise)} images")
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"cannot read noise from {file}: {error}: {advice}") from None
    return Codes(noise, labels, settings)


def _other_noise(file: Path, found: tuple[int, ...], dtype: object, shape: Sequence[int]) -> str:
    return f"{file} holds noise of shape {found}, {dtype}: expected floats (N, {', '.join(map(str, shape))})"


def _read_npz(
    file: Path, names: Sequence[str], advice: str, shapes: Mapping[str, tuple[int, ...] | None] | None = None
) -> dict[str, np.ndarray]:
    """Return those arrays of an npz that are there; nothing is allocated for a header that promises more than the file holds.

    Args:
        file: the npz.
        names: of the arrays.
        advice: what to do about a file that cannot be read.
        shapes: of an entry of each array, beside the number of entries; None for any.

    Raises:
        UserError: if the file cannot be read, or an array is of another shape or larger than the memory.
    """
    try:
        found = {}
        with file.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            for name in names:
                if f"{name}.npy" not in archive.namelist():
                    continue
                with archive.open(f"{name}.npy") as member:
                    version = np.lib.format.read_magic(member)
                    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                    shape, _, dtype = read(member)
                    size = int(np.prod([int(length) for length in shape], dtype=object)) * dtype.itemsize
                    expected = None if shapes is None else shapes[name]
                    if expected is not None and tuple(shape[1:]) != expected:
                        raise UserError(_other_noise(file, shape, dtype, expected))
                    if size > archive.getinfo(f"{name}.npy").file_size or (shape and shape[0] > MOST_IMAGES):
                        raise ValueError(f"{name} is said to have the shape {shape}, which the file does not hold")
                    if size > free_bytes(torch.device("cpu")):
                        raise ValueError(f"{name} has {size:,} bytes, more than the memory")
                with archive.open(f"{name}.npy") as member:
                    found[name] = np.lib.format.read_array(member, allow_pickle=False)
        return found
    except (OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read {file}: {reason}: {advice}") from None


def figure_of(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    """Return an empty figure of a size in inches and its axes.

    Raises:
        UserError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("--plot needs matplotlib: pip install 'amgen[plots]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns)


def save_plot(file: Path, times: Sequence[float], energy: Tensor, speeds: Tensor) -> None:
    """Plot kinetic energy, mean of (T, N), and the spread of the speeds |v|, (T, N), over time.

    Raises:
        UserError: if matplotlib is not installed.
    """
    figure, (left, right) = figure_of(8, 3.2, columns=2)
    left.plot(times, energy.mean(dim=1), color="black")
    left.set(xlabel="time t", ylabel="kinetic energy, mean of ½ |v|²", ylim=(0, None))
    low, middle, high = speeds.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=speeds.dtype), dim=1)
    right.fill_between(times, low, high, color="0.8", label="10 to 90 %")
    right.plot(times, middle, color="black", label="median")
    right.set(xlabel="time t", ylabel="speed |v| of the images", ylim=(0, None))
    right.legend(frameon=False)
    save_figure(file, figure)


def save_figure(file: Path, figure: Any) -> None:
    """Write a figure of matplotlib, whole or not at all.

    Raises:
        UserError: if it cannot be written; what was there stays.
    """
    make_folder(file.parent)
    with replacing(file) as temporary:
        figure.savefig(temporary, format=file.suffix[1:].lower(), dpi=150)


def _save(file: Path, image: Image.Image, **options: Any) -> None:
    """Write a picture, whole or not at all."""
    make_folder(file.parent)
    form = Image.registered_extensions()[file.suffix.lower()]
    try:
        with replacing(file) as temporary:
            image.save(temporary, format=form, **options)
    except ValueError as error:  # of a format that holds no picture as large
        raise UserError(f"cannot write {file}: {error}: choose .png") from None


def _csv(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse to mix images made in different ways in one folder."""
    file = folder / SETTINGS
    if not file.exists():
        if os.listdir(folder):
            raise UserError(f"{folder} is not empty and was not written by amgen sample: choose another --out")
        return
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {file}, which says how the images beside it were made: {error}: choose another --out") from None
    if not isinstance(there, dict) or KEY not in there:
        raise UserError(f"{file} does not say which weights made the images beside it, as it did not in earlier versions: {CHOOSE}")
    if there[KEY] != settings.get(KEY):
        found, wanted = (str(weights)[:12] for weights in (there[KEY], settings.get(KEY)))
        raise UserError(f"{folder} holds images made with other weights (SHA-256 {found}..., not {wanted}...): {CHOOSE}")
    # The weights are the same wherever they lie, and any size of a batch completes a folder.
    for key in dict.fromkeys([*settings, *there]):
        if key not in ("checkpoint", "batch_size") and there.get(key) != settings.get(key):
            raise UserError(f"{folder} holds images made with {key}={there.get(key)!r}, not {settings.get(key)!r}: {CHOOSE}")
