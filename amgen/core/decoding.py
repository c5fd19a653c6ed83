"""Safe decoding of image files, which may be damaged or hostile: every problem is an error that names the file. No torch is imported."""

import logging
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import ExifTags, Image, UnidentifiedImageError

from amgen.core.errors import UnreadableImage, UserError, printable, short

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF")
"""Formats that are decoded. Without this list Pillow tries all formats, whatever the name of the file; for EPS it starts Ghostscript."""

MAX_BYTES = 1 << 29
"""Largest file that is read. Several decoders read a whole file into memory, and a small zip may unpack to very many zeros."""

MAX_SIDE = 65_535
"""Largest height and width, pixels. For some formats the decoding time of Pillow grows with the square of the width."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that each EXIF orientation asks for; 1 asks for none."""


# Pillow logs some of what it then raises, and a logger without a handler writes to the terminal.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_STANDARD_ERROR = threading.Lock()
"""Held while file descriptor 2 is redirected. Two threads that redirect it at once could leave it redirected."""

if hasattr(os, "register_at_fork"):  # a process that is forked meanwhile would keep the redirection
    os.register_at_fork(before=_STANDARD_ERROR.acquire, after_in_parent=_STANDARD_ERROR.release, after_in_child=_STANDARD_ERROR.release)


@dataclass
class Decoded:
    """A decoded image.

    Attributes:
        image: the pixels, with the EXIF orientation applied.
        turned: whether the orientation changed the image.
        several: whether the file has further frames or pages; `image` is the first one.
    """

    image: Image.Image
    turned: bool
    several: bool


def open_regular(path: str | Path) -> IO[bytes]:
    """Open a regular file for reading bytes. It never waits, as opening a pipe may.

    Raises:
        OSError: if it cannot be opened, or is a pipe, a device or a folder.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    file = os.fdopen(descriptor, "rb") if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    if file is None:
        os.close(descriptor)
        raise OSError("it is a pipe, a device or a folder, not a regular file")
    return file


def check_size(count: int) -> None:
    """Check the size of a file.

    Raises:
        ValueError: if `count` bytes are more than `MAX_BYTES`.
    """
    if count > MAX_BYTES:
        raise ValueError(f"{count:,} bytes are more than the {MAX_BYTES:,} that an image file may have")


def decode(file: IO[bytes], name: str) -> Decoded:
    """Decode an image and apply its EXIF orientation.

    Args:
        file: the open file.
        name: name of the image for error messages.

    Raises:
        UserError: if it has more than 8 bits a channel, which Pillow would reduce.
        Exception: of any class, for damaged files; `unreadable` turns it into an error for the user.
    """
    # Decoders warn about oddities that do not prevent reading, and about large images that are accepted here.
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
            if turned:  # for some formats, such as TIFF, Pillow has applied it already
                turn = TURNS.get(_orientation(image))
                pixels = image if turn is None else image.transpose(turn)
            if image.format == "GIF":  # in which looking for the next frame overwrites this one
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
    """Refuse images of more than 8 bits a channel.

    They can be reduced by a factor or by a window, and only the user knows which is right: a 12-bit X-ray divided by 257 is black.

    Raises:
        UserError: naming the image.
    """
    if image.mode.startswith("I") or image.mode == "F" or _stored_bits(image) > 8:
        raise UserError(
            f"{name} has more than 8 bits a channel (mode {image.mode}): convert it to 8-bit PNG first, whatever data.convert is"
        )


def unreadable(error: Exception, name: str) -> UnreadableImage:
    """Return the one-line error for an unreadable image, made from the error of its decoder."""
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
    """Discard what C code writes to standard error: libtiff writes messages there for errors that Pillow then raises.

    The file descriptor is one for the whole process, so other threads lose what they write meanwhile. Threads take turns.
    """
    with _STANDARD_ERROR:
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
    except Exception:  # of any class, for damaged metadata; the image itself may be readable
        return 1


def _has_more(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # of any class, for damage after the first frame, which is not used
        return False


def _stored_bits(image: Image.Image) -> int:
    """Return the bits of a channel in the file. Pillow opens PNG and TIFF images of 16-bit colour in 8-bit modes and drops bits."""
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, 8)  # BitsPerSample
        return max(bits) if isinstance(bits, tuple) else int(bits)
    if image.format == "PNG" and any(";16" in str(tile[3]) for tile in getattr(image, "tile", [])):
        return 16
    return 8
