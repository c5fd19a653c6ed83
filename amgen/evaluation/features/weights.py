"""Files with the weights of feature extractors: checks and clear errors."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from amgen.core.errors import UserError
from amgen.core.files import sha256

T = TypeVar("T")


class MissingWeights(UserError):
    """The weights of an extractor are not on this machine. Another extractor can be chosen."""


def check_no_weights(name: str, weights: Path | None) -> None:
    """Refuse `--weights` for features that take no weights file."""
    if weights is not None:
        raise UserError(f"--weights {weights}: features={name} take no weights file: leave it out")


def check_sha256(path: Path, start: str) -> str:
    """Return the SHA-256 of a weights file, after checking its first digits. The check comes before loading, which could run code.

    Raises:
        UserError: if the file cannot be read, or its checksum does not begin with `start`.
    """
    try:
        found = sha256(path)
    except OSError as error:
        raise UserError(f"cannot read the weights {path}: {error.strerror or error}: give a file that can be read") from None
    if not found.startswith(start):
        raise UserError(f"weights {path} have SHA-256 {found[:8]}..., expected {start[:8]}...: download the file again")
    return found


def load_network(path: Path, load: Callable[[], T]) -> T:
    """Return what `load` makes of the weights file `path`.

    Raises:
        UserError: if the file does not hold the expected network.
    """
    try:
        return load()
    except Exception as error:
        raise UserError(f"cannot read the weights {path}: {first_line(error)}: download the file again") from None


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its message, at most 200 characters."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__
