"""How to read arrays from an npz file that may be damaged or hostile."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from amgen.core.checks import MOST_IMAGES
from amgen.core.errors import UserError
from amgen.core.memory import free_bytes


def read_npz(
    file: Path, names: Sequence[str], advice: str, shapes: Mapping[str, tuple[int, ...] | None] | None = None
) -> dict[str, np.ndarray]:
    """Return the arrays `names` of an npz file by name, without those that it does not contain.

    The size in the header of an array is checked before memory is allocated for it.

    Args:
        file: the npz file.
        names: names of the arrays.
        advice: last part of the error message: what to do about a file that cannot be read.
        shapes: shape of each array by name, without the first dimension; None for any shape.

    Raises:
        UserError: if the file cannot be read, or an array has another shape or does not fit into memory.
    """
    try:
        found = {}
        with file.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            for name in names:
                if f"{name}.npy" not in archive.namelist():
                    continue
                with archive.open(f"{name}.npy") as member:
                    version = np.lib.format.read_magic(member)
                    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                    shape, _, dtype = read(member)
                    size = int(np.prod([int(length) for length in shape], dtype=object)) * dtype.itemsize
                    expected = None if shapes is None else shapes[name]
                    if expected is not None and tuple(shape[1:]) != expected:
                        described = ", ".join(["N", *map(str, expected)])
                        raise UserError(f"{file} holds {name} of shape {shape}, {dtype}: expected floats ({described})")
                    if size > archive.getinfo(f"{name}.npy").file_size or (shape and shape[0] > MOST_IMAGES):
                        raise ValueError(f"{name} is said to have the shape {shape}, which the file does not hold")
                    if size > free_bytes(torch.device("cpu")):
                        raise ValueError(f"{name} has {size:,} bytes, more than the memory")
                with archive.open(f"{name}.npy") as member:
                    found[name] = np.lib.format.read_array(member, allow_pickle=False)
        return found
    except (OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read {file}: {reason}: {advice}") from None
