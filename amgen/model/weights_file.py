"""A file of weights: safetensors, with the configuration of the run in its metadata. It is verified when read and never executes code."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from amgen.config import Config, parse
from amgen.core.errors import UserError

FORMAT = 1
"""Version of the format of weights files and checkpoints."""

READABLE = "make it readable for this user"
"""Advice for a file that this user may not read."""

_ADVICE = "choose another checkpoint or file"


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the checksum of weights: the SHA-256 of the names, types, shapes and values of the tensors, hexadecimal.

    It does not depend on the file or on the name of the weights. 100 MB take about 0.1 s.
    """
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def save_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None) -> None:
    """Write tensors and metadata as safetensors, with the permissions that the umask gives."""
    file.touch()
    mode = file.stat().st_mode & 0o777  # safetensors itself writes for the owner only
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file, metadata)
    file.chmod(mode)


def read_metadata(file: Path) -> dict[str, Any]:
    """Return the metadata of a weights file: `config`, `step`, `images`, and for an exported file `weights` and `sha256`.

    Raises:
        UserError: if the file cannot be read or was not written by amgen.
    """
    with reading(file, _ADVICE), safe_open(file, framework="pt") as opened:
        metadata = opened.metadata() or {}
    if "amgen" not in metadata:
        raise UserError(f"{file} was not written by amgen: its metadata holds no configuration")
    with reading(file, _ADVICE):
        contents = json.loads(metadata["amgen"])
    if not isinstance(contents, dict) or "format" not in contents:
        raise UserError(f"{file} was not written by amgen: its metadata does not say its format")
    if contents["format"] != FORMAT:
        raise UserError(f"{file} has format {contents['format']!r}, this version of amgen reads format {FORMAT}")
    for key, kind in (("config", dict), ("step", int), ("images", int)):
        if not isinstance(contents.get(key), kind):
            raise UserError(f"{file} is damaged: its metadata does not say its {key}: {_ADVICE}")
    return contents


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file by name, on the CPU.

    Raises:
        UserError: if the file cannot be read.
    """
    with reading(file, _ADVICE):
        return load_file(file)


def read_config(file: Path) -> Config:
    """Return the configuration in the metadata of a weights file.

    Raises:
        UserError: if the file cannot be read or was not written by amgen.
    """
    return parse(read_metadata(file)["config"], str(file))


def read_images(file: Path) -> int:
    """Return the number of images that the weights in a file were trained on."""
    return int(read_metadata(file)["images"])


def reason_of(error: Exception) -> str:
    """Return an error's message in one line."""
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())


@contextmanager
def reading(file: Path, advice: str) -> Iterator[None]:
    """Turn every error of an unreadable or damaged file into a `UserError` of one line."""
    try:
        yield
    except PermissionError:
        raise UserError(f"cannot read {file}: Permission denied: {READABLE}") from None
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, MemoryError) as error:
        raise UserError(f"cannot read {file}: {reason_of(error)}: {advice}") from None
