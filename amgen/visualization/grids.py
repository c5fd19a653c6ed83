"""Pictures of what was drawn: grids of images, scatters of points."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from amgen.core.errors import UserError
from amgen.core.files import make_folder, replacing
from amgen.data.images import to_image

SIZE = 512

MARGIN = 28

GRAYS = (190, 110, 0)


def make_picture(sets: Sequence[Tensor], columns: int | None = None) -> Image.Image:
    """Picture sets of uint8 images (N, C, H, W), as a grid, or of points (N, D)."""
    return make_grid(*sets, columns=columns) if sets[0].dim() == 4 else make_scatter(*sets)


def make_scatter(*sets: Tensor) -> Image.Image:
    """Draw the first two coordinates of up to three sets of points (N, D), each darker than the one before; one scale for both axes.

    Points in one dimension are drawn on a line. The frame's ends are written beside it, in the points' own units.
    """
    planes = [_plane(points) for points in sets]
    everything = np.concatenate(planes)
    low, high = everything.min(axis=0), everything.max(axis=0)
    centre, half = (low + high) / 2, max(float((high - low).max()) / 2 * 1.05, np.finfo(np.float32).tiny)
    image = Image.new("L", (SIZE, SIZE), 255)
    canvas = ImageDraw.Draw(image)
    scale = (SIZE / 2 - MARGIN) / half
    for points, gray in zip(planes, GRAYS[-len(planes) :], strict=True):
        for x, y in (points - centre) * scale:
            column, row = SIZE / 2 + x, SIZE / 2 - y
            canvas.ellipse((column - 2, row - 2, column + 2, row + 2), fill=gray)
    canvas.rectangle((MARGIN, MARGIN, SIZE - MARGIN, SIZE - MARGIN), outline=0)
    (left, bottom), (right, top) = centre - half, centre + half
    canvas.text((MARGIN, SIZE - MARGIN + 6), f"x1 = {left:.3g}", fill=0)
    canvas.text((SIZE - MARGIN, SIZE - MARGIN + 6), f"{right:.3g}", fill=0, anchor="ra")
    canvas.text((MARGIN, MARGIN - 16), f"x2 from {bottom:.3g} to {top:.3g}", fill=0)
    return image


def _plane(points: Tensor) -> np.ndarray:
    """Return the first two coordinates, (N, 2)."""
    values = points.double().numpy()
    return values[:, :2] if values.shape[1] > 1 else np.concatenate([values, np.zeros_like(values)], axis=1)


def save_grid(file: Path, pictures: Sequence[Tensor], columns: int | None = None) -> None:
    """Picture uint8 images (N, C, H, W), rows of each set in turn, or sets of points (N, D)."""
    _save(file, make_picture(pictures, columns))


def save_animation(file: Path, frames: Tensor, seconds: float = 2.0) -> None:
    """Write frames, uint8 (T, N, C, H, W), as an animated GIF, PNG or WebP of their grids; the last one stays for a second."""
    grids = [make_grid(frame) for frame in frames]
    durations = [round(1000 * seconds / len(grids))] * (len(grids) - 1) + [1000]
    _save(file, grids[0], save_all=True, append_images=grids[1:], duration=durations, loop=0)


def _save(file: Path, image: Image.Image, **options: Any) -> None:
    """Write a picture, whole or not at all."""
    make_folder(file.parent)
    form = Image.registered_extensions()[file.suffix.lower()]
    try:
        with replacing(file) as temporary:
            image.save(temporary, format=form, **options)
    except ValueError as error:  # of a format that holds no picture as large
        raise UserError(f"cannot write {file}: {error}: choose .png") from None


VISIBLE = 32
"""Pixels that an image takes in a grid, at least about."""


def make_grid(images: Tensor, *others: Tensor, columns: int | None = None, padding: int = 1) -> Image.Image:
    """Tile uint8 images (N, C, H, W) row by row into one picture, about square unless `columns` is given.

    With `others`, of the same shape, each row of `images` (of 8 or more) is followed by the same row of each of them. Small images are
    enlarged by a whole number, each pixel repeated, until a person can see them.
    """
    from torchvision.utils import make_grid as tile

    square = max(1, round((len(images) * (1 + len(others))) ** 0.5))
    columns = columns or (min(len(images), max(8, square)) if others else square)
    rows = [part for group in zip(*(part.split(columns) for part in (images, *others)), strict=True) for part in group]
    # A last row that is not full is padded, so that the next set starts on a row of its own.
    full = [torch.cat([row, row.new_full((columns - len(row), *row.shape[1:]), 128)]) for row in rows] if others else rows
    grid = tile(torch.cat(full), nrow=columns, padding=padding, pad_value=128)
    scale = max(1, VISIBLE // images.shape[-1])
    return to_image(grid.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1))
