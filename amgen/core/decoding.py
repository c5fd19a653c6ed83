"""Decoding of untrusted image files: every defect is an error that names the file. Torch is not imported by this module."""

import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import ExifTags, Image, UnidentifiedImageError

from amgen.core.errors import UnreadableImage, UserError, printable, short

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF")
"""Formats that are decoded. By default Pillow tries all its formats whatever the name of the file, also EPS, which runs Ghostscript."""

MAX_BYTES = 1 << 29
"""Largest size of a file: several decoders read a whole file into memory, and a small zip may expand to an endless one."""

MAX_SIDE = 65_535
"""Largest height or width of an image, in pixels; for some formats the time of Pillow grows with the square of the width."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transpositions by EXIF orientation."""


# Pillow logs some errors before it raises them, and a logger without a handler writes to the terminal.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass
class Decoded:
    """A decoded image.

    Attributes:
        image: the pixels, transposed by the EXIF orientation.
        turned: whether the EXIF orientation changed the image.
        several: whether the file has more frames or pages than this first one.
    """

    image: Image.Image
    turned: bool
    several: bool


def open_regular(path: str | Path) -> IO[bytes]:
    """Open a regular file for reading bytes, without blocking.

    Raises:
        OSError: if it cannot be opened, or is a pipe, a device or a folder, where reading may never end.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    file = os.fdopen(descriptor, "rb") if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    if file is None:
        os.close(descriptor)
        raise OSError("it is a pipe, a device or a folder, not a regular file")
    return file


def check_size(count: int) -> None:
    """Refuse a file that is too large.

    Raises:
        ValueError: if `count` bytes are more than `MAX_BYTES`.
    """
    if count > MAX_BYTES:
        raise ValueError(f"{count:,} bytes are more than the {MAX_BYTES:,} that an image file may have")


def decode(file: IO[bytes], name: str) -> Decoded:
    """Decode the image in an open file; `name` is its name in errors.

    Raises:
        UserError: if it has more than 8 bits per channel, which Pillow would truncate.
        Exception: any exception of a decoder; `unreadable` turns it into an error for the user.
    """
    # Decoders also warn about images that can be read, and about sizes that are allowed.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(file, formats=FORMATS) as image:
            if not 0 < min(image.size) <= max(image.size) <= MAX_SIDE:
                raise ValueError(f"it is {image.width}x{image.height} pixels: expected 1 to {MAX_SIDE:,} each way")
            refuse_deep(image, name)
            turned = _orientation(image) in TURNS
            with _silenced() if image.format == "TIFF" else nullcontext():
                image.load()
            pixels: Image.Image = image
            if turned:  # unless Pillow did it in `load`, as for TIFF
                turn = TURNS.get(_orientation(image))
                pixels = image if turn is None else image.transpose(turn)
            if image.format == "GIF":  # reading the next frame would change this one
                pixels = pixels.copy()
            return Decoded(pixels, turned, _has_more(image))


def read_gray(path: str, largest: int) -> Image.Image:
    """Read an image file as gray levels, mode L.

    Raises:
        UserError: naming the file, if it cannot be read or is more than `largest` pixels high or wide.
    """
    name = printable(short(path))
    try:
        with open_regular(path) as file:
            check_size(os.fstat(file.fileno()).st_size)
            image = decode(file, name).image
    except UserError:
        raise
    except Exception as error:  # see `unreadable`
        raise unreadable(error, name) from None
    if max(image.size) > largest:
        raise UserError(f"{name} is {image.width}x{image.height} pixels: expected at most {largest:,} each way")
    return image.convert("L")


def refuse_deep(image: Image.Image, name: str) -> None:
    """Refuse images of more than 8 bits per channel.

    The right conversion (a factor, a window) depends on the image: a 12-bit X-ray divided by 257 would be black.

    Raises:
        UserError: naming the image.
    """
    if image.mode.startswith("I") or image.mode == "F" or _stored_bits(image) > 8:
        raise UserError(f"{name} has more than 8 bits a channel (mode {image.mode}): convert it to 8-bit PNG first (data.convert does not)")


def unreadable(error: Exception, name: str) -> UnreadableImage:
    """Return the one-line error for an exception of a decoder."""
    if isinstance(error, Image.DecompressionBombError):
        return UnreadableImage(f"refusing to decode {name}: {_one_line(error)}")
    if isinstance(error, UnidentifiedImageError):
        reason = f"it is none of {', '.join(FORMATS)}, or damaged"
    elif isinstance(error, MemoryError):
        reason = "it does not fit into memory"
    else:
        reason = getattr(error, "strerror", None) or _one_line(error) or type(error).__name__
    return UnreadableImage(f"cannot read the image {name}: {reason}: replace or remove it")


@contextmanager
def _silenced() -> Iterator[None]:
    """Discard what C code writes to the standard error: libtiff prints the errors there that Pillow raises."""
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # there is no standard error
        yield
        return
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:200]}..."


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # decoders of metadata raise all kinds of errors; the image itself may be intact
        return 1


def _has_more(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # likewise; only the first frame is used
        return False


def _stored_bits(image: Image.Image) -> int:
    """Return the bits per channel in the file; Pillow opens 16-bit colour PNG and TIFF in 8-bit modes and drops the lower half."""
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, 8)  # BitsPerSample
        return max(bits) if isinstance(bits, tuple) else int(bits)
    if image.format == "PNG" and any(";16" in str(tile[3]) for tile in getattr(image, "tile", [])):
        return 16
    return 8
