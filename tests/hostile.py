"""Writers of files that no library writes on purpose, for the tests of what is read."""

import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def png(array: np.ndarray, size: tuple[int, int] | None = None) -> bytes:
    """Return the bytes of a PNG of uint8 or uint16 (H, W) or (H, W, C), which may claim another `size` (width, height) than it has."""
    height, width = array.shape[:2]
    width, height = size or (width, height)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[1 if array.ndim == 2 else array.shape[2]]
    rows = array.astype(array.dtype.newbyteorder(">"))
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 8 * array.dtype.itemsize, colour, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )


def tiff16(array: np.ndarray) -> bytes:
    """Return the bytes of an uncompressed little-endian TIFF of uint16 RGB (H, W, 3)."""
    height, width, channels = array.shape
    data = array.astype("<u2").tobytes()
    bits = 8 + len(data)
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, channels, bits),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8),
        (277, 3, 1, channels),
        (278, 3, 1, height),
        (279, 4, 1, len(data)),
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = bits + 2 * channels
    start = struct.pack("<2sHI", b"II", 42, directory) + data + struct.pack(f"<{channels}H", *[16] * channels)
    return start + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)


def images(folder: Path, count: int = 16) -> Path:
    """Write good gray images of 8x8 pixels, of levels 0, 1, 2..."""
    folder.mkdir(parents=True, exist_ok=True)
    for level in range(count):
        Image.new("L", (8, 8), level).save(folder / f"{level:03}.png")
    return folder


def damage_member(archive: Path, name: str, encrypted: bool = False, method: int | None = None, corrupt: bool = False) -> None:
    """Damage a member of a zip: mark it as encrypted, as compressed by another method, or change its data."""
    with zipfile.ZipFile(archive) as opened:
        entry, start = opened.getinfo(name), opened.start_dir
    data = bytearray(archive.read_bytes())
    place = data.index(b"PK\1\2", start)
    while data[place + 46 : place + 46 + len(name)] != name.encode():
        place = data.index(b"PK\1\2", place + 4)
    for flags, methods in ((entry.header_offset + 6, entry.header_offset + 8), (place + 8, place + 10)):
        if encrypted:
            data[flags] |= 1
        if method is not None:
            data[methods : methods + 2] = struct.pack("<H", method)
    if corrupt:
        body = entry.header_offset + 30 + len(name)
        for offset in range(body, body + entry.compress_size):
            data[offset] ^= 0xFF
    archive.write_bytes(data)


def make_fifo(path: Path) -> None:
    """Make a named pipe that nobody writes to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
