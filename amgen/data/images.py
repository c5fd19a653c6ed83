"""Images at the border: uint8 outside, float in [-1, 1] inside, and the preparation of files for training."""

from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from amgen.config import DataConfig
from amgen.errors import UserError

VISIBLE = 32
"""Pixels that an image takes in a grid, at least about."""


def to_float(images: Tensor) -> Tensor:
    """Map uint8 0..255 to float32 in [-1, 1], any shape."""
    return images.to(torch.float32) / 127.5 - 1.0


def to_uint8(images: Tensor) -> Tensor:
    """Map floats in [-1, 1] to uint8 0..255, rounding to nearest; values outside are clipped.

    Raises:
        ValueError: if any value is NaN.
    """
    if torch.isnan(images).any():
        raise ValueError("images contain NaN")
    return ((images + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def prepare(image: Image.Image, options: DataConfig, name: str) -> Tensor:
    """Bring a decoded image into the form the options ask for: uint8, shape (channels, size, size).

    Raises:
        UserError: naming the image, if it has another size or colour mode and the options forbid to convert it.
    """
    image = _set_mode(_flatten_alpha(image, options.background), options, name)
    return _set_size(v2.functional.pil_to_tensor(image), options, name)


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


def to_image(image: Tensor) -> Image.Image:
    """Turn a uint8 tensor (1 or 3, H, W) into a PIL image in mode L or RGB."""
    array = image.cpu().numpy()
    return Image.fromarray(array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0)))


def _flatten_alpha(image: Image.Image, background: int) -> Image.Image:
    """Composite transparent pixels onto a gray background; palettes become the colours they stand for."""
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode == "1":
        return image.convert("L")
    if image.mode not in ("LA", "La", "RGBA", "RGBa", "PA"):
        return image
    opaque: Literal["L", "RGB"] = "L" if image.mode in ("LA", "La") else "RGB"
    image = image.convert("RGBA")
    canvas = Image.new("RGBA", image.size, (background, background, background, 255))
    return Image.alpha_composite(canvas, image).convert(opaque)


def _set_mode(image: Image.Image, options: DataConfig, name: str) -> Image.Image:
    wanted = "L" if options.channels == 1 else "RGB"
    if image.mode == wanted:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        raise UserError(f"{name} has more than 8 bits a channel (mode {image.mode}): convert it to 8-bit PNG first")
    if image.mode in ("L", "RGB") and not options.convert:
        kind = {"L": "gray", "RGB": "RGB"}
        raise UserError(
            f"{name} is {kind[image.mode]} but data.channels={options.channels} asks for {kind[wanted]}: "
            "set data.convert=true (or --convert) to convert, or change data.channels"
        )
    return image.convert(wanted)


def _set_size(image: Tensor, options: DataConfig, name: str) -> Tensor:
    height, width = image.shape[-2:]
    if height == width == options.size:
        return image
    if options.resize == "forbid":
        raise UserError(
            f"{name} is {width}x{height} pixels, expected {options.size}x{options.size}: "
            "set data.resize=crop or stretch (or --resize crop), or change data.size"
        )
    if options.resize == "crop":
        image = v2.functional.center_crop(image, [min(height, width)] * 2)
    return v2.functional.resize(image, [options.size] * 2, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
