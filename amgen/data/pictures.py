"""Pictures of what was drawn: grids of images, scatters of points."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from amgen.data.images import make_grid

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
