"""Conversion of images: uint8 in files and results, float in [-1, 1] in networks; and the preparation of decoded files for training."""

from io import BytesIO
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor
from torchvision.transforms import v2

from amgen.config import DataConfig
from amgen.core.decoding import refuse_deep
from amgen.core.errors import UserError

PREPARATION = 2
"""Version of the rules that turn a file into an image. Raise it when they change: cached results of the old rules are then ignored."""


def to_float(images: Tensor) -> Tensor:
    """Map uint8 0..255 to float32 in [-1, 1], any shape: x / 127.5 - 1."""
    return images.to(torch.float32) / 127.5 - 1.0


def to_uint8(images: Tensor) -> Tensor:
    """Map floats in [-1, 1] to uint8 0..255, any shape, rounded to nearest; values outside are clipped.

    Raises:
        ValueError: if any value is NaN.
    """
    if torch.isnan(images).any():
        raise ValueError("images contain NaN")
    return ((images + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def prepare(image: Image.Image, options: DataConfig, name: str) -> Tensor:
    """Bring a decoded image into the form that the options ask for.

    In this order: transparent pixels are composited onto gray `background`, the colour mode is set, the size is set.

    The EXIF orientation is respected, but not here: image sources apply it when they decode a file (`amgen.core.decoding.decode`), so the
    images of a data set are the right way up. Apply `PIL.ImageOps.exif_transpose` to images that you open yourself.

    Args:
        image: the image.
        options: `channels`, `size`, and whether and how to convert and resize.
        name: name of the image for error messages.

    Returns:
        uint8 (channels, size, size).

    Raises:
        UserError: naming the image, if it has another size or colour mode and the options do not allow to change it.
    """
    image = _set_mode(_flatten_alpha(image, options), options, name)
    return _set_size(v2.functional.pil_to_tensor(image), options, name)


def to_image(image: Tensor) -> Image.Image:
    """Return a uint8 tensor (1 or 3, H, W) as a PIL image in mode L or RGB."""
    array = image.cpu().numpy()
    return Image.fromarray(array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0)))


def _flatten_alpha(image: Image.Image, options: DataConfig) -> Image.Image:
    """Composite transparent pixels onto a gray background, replace palettes by their colours, and drop padding channels."""
    if image.mode == "RGBX":
        return image.convert("RGB")
    gray = image.mode in ("1", "L", "LA", "La") or (image.mode in ("P", "PA") and options.channels == 1 and _has_gray_palette(image))
    opaque: Literal["L", "RGB"] = "L" if gray else "RGB"
    if image.mode in ("RGBa", "La"):  # multiplied by alpha
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    # In an image without an alpha channel, one colour may mean transparency.
    if image.mode not in ("LA", "RGBA", "PA") and not (image.mode in ("1", "L", "RGB", "P") and "transparency" in image.info):
        return image.convert(opaque) if image.mode in ("1", "P") else image
    image = image.convert("RGBA")
    canvas = Image.new("RGBA", image.size, (options.background,) * 3 + (255,))
    return Image.alpha_composite(canvas, image).convert(opaque)


def _has_gray_palette(image: Image.Image) -> bool:
    """Return whether all colours of an image with a palette are gray. Such an image serves as gray and as RGB."""
    colours = image.convert("RGBA").getcolors(1 << 16) or []
    return all(alpha == 0 or red == green == blue for _, (red, green, blue, alpha) in colours)  # type: ignore[misc]


def _set_mode(image: Image.Image, options: DataConfig, name: str) -> Image.Image:
    wanted = "L" if options.channels == 1 else "RGB"
    if image.mode == wanted:
        return image
    refuse_deep(image, name)
    if not options.convert:
        kind = {"L": "gray", "RGB": "RGB"}
        raise UserError(
            f"{name} is {kind.get(image.mode, image.mode)} but data.channels={options.channels} asks for {kind[wanted]}: "
            "set data.convert=true (or --convert) to convert, or change data.channels"
        )
    return (image if image.mode == "L" else _to_rgb(image, name)).convert(wanted)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Convert an image of another colour space to sRGB: CMYK by the profile in its file, if there is one."""
    profile: bytes = image.info.get("icc_profile") or b"" if image.mode == "CMYK" else b""
    if image.mode != "LAB" and not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.createProfile("LAB") if image.mode == "LAB" else ImageCms.ImageCmsProfile(BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), image.mode, "RGB")
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise UserError(f"{name} cannot be converted from {image.mode} to RGB by its colour profile: {error}: save it as RGB") from None
    assert converted is not None  # since the conversion is not done in place
    return converted


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
