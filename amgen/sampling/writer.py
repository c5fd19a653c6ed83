"""A folder of generated images: PNG files or npz shards, written batch by batch by any number of processes."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from amgen.core.checks import check_format
from amgen.core.errors import UserError
from amgen.core.files import make_folder, write_bytes, write_json, write_text
from amgen.core.npz import read_npz
from amgen.data import to_image
from amgen.model.trained import TrainedAction
from amgen.sampling.generate import Samples

SETTINGS = "sampling.json"

WEIGHT = "log_weight"

KEY = "weights_sha256"
"""Key of the checksum of the weights in the settings of a folder."""

CHOOSE = "choose another --out"


class ImageFolder:
    """A folder of generated images. The size of the batches does not matter.

    png: 000000.png, 000001.png, ..., named by image index. The log-weight of an image is in the text of its file and, at the end, in
        weights.csv.
    npz: one shard for each batch, images-FIRST-LAST.npz (or points-FIRST-LAST.npz), with `images` uint8 (N, H, W, C) (or `points` float32
        (N, D) and `starts`), `indices`, and, if they exist, `labels`, `log_weights`, `inputs` and `truths`.

    Each file is written whole or not at all, so that the same command continues after an interruption.

    Args:
        folder: the folder.
        form: png or npz.
        settings: what the images depend on; a folder with images of other settings is refused.
        main: whether this process prepares the folder.
        modality: images or points.

    Raises:
        UserError: for an unknown form, a folder that cannot be made, or one with other files or images of other settings.
    """

    def __init__(self, folder: Path, form: str, settings: Mapping[str, Any], main: bool = True, modality: str = "images"):
        check_format(form)
        self.folder = folder
        self.form = form
        self.modality = modality
        if main:
            make_folder(folder)
            _check_settings(folder, {"format": form, **settings})
            write_json(folder / SETTINGS, {"format": form, **settings})

    def missing(self, indices: Sequence[int]) -> list[int]:
        """Return the indices of the images that are not in the folder yet.

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
            UserError: if the disk is full or the folder cannot be written; files that were written before stay.
        """
        if self.form == "npz":
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays(samples))  # type: ignore[arg-type]
            # No other shard begins with this image, because each image is in one shard.
            write_bytes(self.folder / f"{self.modality}-{samples.indices[0]:06d}-{samples.indices[-1]:06d}.npz", buffer.getvalue())
            return
        for row, index in enumerate(samples.indices):
            text = PngInfo()
            if samples.log_weights is not None:
                text.add_text(WEIGHT, repr(float(samples.log_weights[row])))
            buffer = io.BytesIO()
            to_image(samples.images[row]).save(buffer, format="png", pnginfo=text)
            write_bytes(self._png(index), buffer.getvalue())

    def weights(self, indices: Sequence[int]) -> dict[int, float]:
        """Read the log-weights of the images that have one, by index."""
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
                raise UserError(f"cannot read {file}: {error}: delete it, and the same command generates it again") from None
        return found

    def finish(self, weights: Mapping[int, float], resampled: Sequence[int] | None = None) -> list[str]:
        """Write the files that need all images, such as weights.csv; return one line for each output."""
        contents = ": points at t = 1 and their starts, in the units of the table" if self.modality == "points" else ""
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
        """Yield the `indices` of each shard, and its `log_weights` if it has them."""
        for file in sorted(self.folder.glob(f"{self.modality}-*.npz")):
            shard = read_npz(file, ("indices", "log_weights"), f"delete it, and the same command generates its {self.modality} again")
            if "indices" not in shard:
                raise UserError(f"{file} does not say which {self.modality} it holds: delete it, and the same command generates them again")
            yield shard


def arrays(samples: Samples) -> dict[str, np.ndarray]:
    """Return a batch as arrays: images with channels last, or `points` and their `starts` at t = 0."""
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


def form_of(form: str | None, model: TrainedAction) -> str:
    """Return the form of output for a model: `form`, by default png for images and npz for points.

    Raises:
        UserError: if points are to be PNG files.
    """
    default = "npz" if model.config.modality == "points" else "png"
    if form == "png" and default == "npz":
        raise UserError("--format png is for images, and this model is of points: leave it out, or give --format npz")
    return form or default


def check_images(model: TrainedAction, files: Mapping[str, Path | None]) -> None:
    """Refuse outputs that show images, by the name of their option, for a model of points."""
    for option, file in files.items():
        if file is not None and model.config.modality == "points":
            raise UserError(f"{option} {file} shows images, and this model is of points: use --grid for a scatter plot, or --plot")


def _csv(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder with images of other settings."""
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
    # The same weights can be in another place, and the size of the batches does not matter.
    for key in dict.fromkeys([*settings, *there]):
        if key not in ("checkpoint", "batch_size") and there.get(key) != settings.get(key):
            raise UserError(f"{folder} holds images made with {key}={there.get(key)!r}, not {settings.get(key)!r}: {CHOOSE}")
