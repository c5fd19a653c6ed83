"""Where generated images go: PNG files, one npz, a grid."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amgen.data import make_grid, to_image
from amgen.errors import UserError, unknown
from amgen.files import make_folder, write_json, write_text
from amgen.sampling import Samples

FORMATS = ("png", "npz")
SETTINGS = "sampling.json"


class ImageWriter:
    """Writes generated images as they come.

    Args:
        folder: gets 000000.png, 000001.png, ... (named by image index) or images.npz, and sampling.json; None for neither. Images that
            carry weights have them in weights.csv, or in the npz.
        form: png or npz.
        grid: file for one picture of all images; None for none.
        settings: what the images depend on; a folder that holds PNG images made with other settings is refused.
    """

    def __init__(self, folder: Path | None, form: str, grid: Path | None, settings: Mapping[str, Any]):
        if form not in FORMATS:
            raise unknown("format", form, FORMATS)
        self.folder, self.form, self.grid = folder, form, grid
        self._kept: list[Samples] = []
        self._weights: list[tuple[int, float]] = []
        if grid is not None:
            _check_picture(grid)
        if folder is not None:
            make_folder(folder)
            _check_settings(folder, settings)
            write_json(folder / SETTINGS, settings)

    def write(self, samples: Samples) -> None:
        """Take in a batch."""
        if self.folder is not None and self.form == "png":
            for index, image in zip(samples.indices, samples.images, strict=True):
                to_image(image).save(self.folder / f"{index:06d}.png")
        if self.grid is not None or self.form == "npz":
            self._kept.append(samples)
        if samples.log_weights is not None:
            self._weights += zip(samples.indices, samples.log_weights.tolist(), strict=True)

    def close(self) -> list[str]:
        """Write what needs all images, and return a line for each thing written."""
        written = []
        if self.folder is not None and self.form == "png":
            written.append(f"{self.folder}/*.png")
            written += self._write_weights()
        if self.folder is not None and self.form == "npz":
            file = self.folder / "images.npz"
            np.savez_compressed(file, **self._arrays())  # type: ignore[arg-type]
            written.append(str(file))
        if self.grid is not None:
            make_folder(self.grid.parent)
            make_grid(*(torch.cat(part) for part in zip(*(samples.pictures() for samples in self._kept), strict=True))).save(self.grid)
            written.append(str(self.grid))
        return written

    def _write_weights(self) -> list[str]:
        """Write index and log-weight of each image, if they have weights."""
        if self.folder is None or not self._weights:
            return []
        file = self.folder / "weights.csv"
        write_text(file, "index,log_weight\n" + "".join(f"{index},{weight!r}\n" for index, weight in self._weights))
        return [str(file)]

    def _arrays(self) -> dict[str, np.ndarray]:
        """Return `images`, uint8 (N, H, W, C), their `indices`, and what else the model gives with each."""

        def gather(name: str) -> torch.Tensor | None:
            parts = [getattr(samples, name) for samples in self._kept if getattr(samples, name) is not None]
            return torch.cat(parts) if parts else None

        arrays = {"indices": np.concatenate([samples.indices for samples in self._kept])}
        for name in ("images", "inputs", "truths"):
            pictures = gather(name)
            if pictures is not None:
                arrays[name] = pictures.permute(0, 2, 3, 1).numpy()
        for name in ("labels", "log_weights"):
            values = gather(name)
            if values is not None:
                arrays[name] = values.numpy()
        return arrays


def _check_picture(file: Path) -> None:
    """Refuse a file name whose ending is not a picture's, before any image is made."""
    if file.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UserError(f"--grid {file}: expected a file name that ends in .png, .jpg or .webp")


def _check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse to mix images made in different ways in one folder."""
    file = folder / SETTINGS
    if not file.exists():
        return
    try:
        there = json.loads(file.read_text())
    except ValueError:
        there = {}
    for key, value in settings.items():
        if there.get(key) != value:
            raise UserError(f"{folder} holds images made with {key}={there.get(key)!r}, not {value!r}: choose another --out")
