"""Image grids, scatter plots of points, and animations, as image files."""

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

SCATTER_SIZE = 512
"""Pixels of a side of a scatter plot."""

MARGIN = 28
"""Pixels between its edge and its frame."""

GRAYS = (190, 110, 0)
"""Gray levels of up to three sets of points; the last ones are taken."""

VISIBLE = 32
"""Pixels of a side of an image in a grid, at least about: smaller images are enlarged."""


def image_grid(images: Tensor, *others: Tensor, columns: int | None = None, padding: int = 1) -> Image.Image:
    """Return a grid of images, row by row.

    Small images are enlarged by a whole number, each pixel repeated, to about 32 pixels.

    Args:
        images: uint8 (N, C, H, W).
        others: further sets of the same shape; each row of `images` (of 8 or more) is followed by the same row of each of them.
        columns: images in a row; by default the grid is about square.
        padding: gray pixels between images, before they are enlarged.
    """
    from torchvision.utils import make_grid

    square = max(1, round((len(images) * (1 + len(others))) ** 0.5))
    columns = columns or (min(len(images), max(8, square)) if others else square)
    rows = [part for group in zip(*(part.split(columns) for part in (images, *others)), strict=True) for part in group]
    # A last row that is not full is padded, so that the next set starts on a new row.
    full = [torch.cat([row, row.new_full((columns - len(row), *row.shape[1:]), 128)]) for row in rows] if others else rows
    grid = make_grid(torch.cat(full), nrow=columns, padding=padding, pad_value=128)
    scale = max(1, VISIBLE // images.shape[-1])
    return to_image(grid.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1))


def scatter_plot(*sets: Tensor) -> Image.Image:
    """Return a scatter plot of the first two coordinates of up to three sets of points, each darker than the one before.

    Both axes have the same scale; the limits of the frame are written beside it. Points in one dimension lie on a line.

    Args:
        sets: float (N, D) each.
    """
    planes = [_plane(points) for points in sets]
    everything = np.concatenate(planes)
    low, high = everything.min(axis=0), everything.max(axis=0)
    centre, half = (low + high) / 2, max(float((high - low).max()) / 2 * 1.05, np.finfo(np.float32).tiny)
    image = Image.new("L", (SCATTER_SIZE, SCATTER_SIZE), 255)
    canvas = ImageDraw.Draw(image)
    scale = (SCATTER_SIZE / 2 - MARGIN) / half
    for points, gray in zip(planes, GRAYS[-len(planes) :], strict=True):
        for x, y in (points - centre) * scale:
            column, row = SCATTER_SIZE / 2 + x, SCATTER_SIZE / 2 - y
            canvas.ellipse((column - 2, row - 2, column + 2, row + 2), fill=gray)
    inner = SCATTER_SIZE - MARGIN
    canvas.rectangle((MARGIN, MARGIN, inner, inner), outline=0)
    (left, bottom), (right, top) = centre - half, centre + half
    canvas.text((MARGIN, inner + 6), f"x1 = {left:.3g}", fill=0)
    canvas.text((inner, inner + 6), f"{right:.3g}", fill=0, anchor="ra")
    canvas.text((MARGIN, MARGIN - 16), f"x2 from {bottom:.3g} to {top:.3g}", fill=0)
    return image


def save_grid(file: Path, sets: Sequence[Tensor], columns: int | None = None) -> None:
    """Write sets of images as an image grid, or sets of points as a scatter plot; whole or not at all.

    Args:
        file: the image file; its ending names the format.
        sets: uint8 images (N, C, H, W) each, or points (N, D) each; see `image_grid` and `scatter_plot`.
        columns: images in a row.

    Raises:
        UserError: if the file cannot be written, or its format cannot hold such a large image.
    """
    _save(file, image_grid(*sets, columns=columns) if sets[0].dim() == 4 else scatter_plot(*sets))


def save_animation(file: Path, frames: Tensor, seconds: float = 2.0) -> None:
    """Write an animation of image grids, whole or not at all.

    Args:
        file: .gif, .png or .webp.
        frames: uint8 (T, N, C, H, W).
        seconds: duration of the frames before the last one, which is shown for one second more.

    Raises:
        UserError: if the file cannot be written.
    """
    grids = [image_grid(frame) for frame in frames]
    durations = [round(1000 * seconds / len(grids))] * (len(grids) - 1) + [1000]
    _save(file, grids[0], save_all=True, append_images=grids[1:], duration=durations, loop=0)


def _plane(points: Tensor) -> np.ndarray:
    """Return the first two coordinates, (N, 2)."""
    values = points.double().numpy()
    return values[:, :2] if values.shape[1] > 1 else np.concatenate([values, np.zeros_like(values)], axis=1)


def _save(file: Path, image: Image.Image, **options: Any) -> None:
    """Write an image, whole or not at all."""
    make_folder(file.parent)
    form = Image.registered_extensions()[file.suffix.lower()]
    try:
        with replacing(file) as temporary:
            image.save(temporary, format=form, **options)
    except ValueError as error:  # the format has a limit on the size
        raise UserError(f"cannot write {file}: {error}: choose .png") from None
