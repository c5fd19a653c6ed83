"""Errors that end a command with one line: what was wrong, the value, what was expected and what to do."""

import errno
from collections.abc import Iterable
from difflib import get_close_matches


class AmgenError(Exception):
    """Base of the errors that the CLI prints on one line, without a traceback.

    Attributes:
        exit_code: exit code of the command.
        collective: whether every process raises it, so that one line from the first process is enough.
    """

    exit_code = 1
    collective = False


class UserError(AmgenError):
    """A mistake in the input or the environment (exit code 2)."""

    exit_code = 2


class UnreadableImage(UserError):
    """An image file that cannot be decoded."""


class Diverged(AmgenError):
    """A loss, gradient or sample is infinite or not a number."""


class Interrupted(AmgenError):
    """Training was stopped by a signal, has saved its state and can be resumed (exit code 75, EX_TEMPFAIL)."""

    exit_code = 75
    collective = True


class PeerLost(AmgenError):
    """Another process of the command died or did not answer in time (exit code 76). Written files are complete; run the command again.

    Attributes:
        reason: message of the communication library.
    """

    exit_code = 76

    def __init__(self, message: str, reason: str = ""):
        super().__init__(message)
        self.reason = reason


OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "STATUS_ALLOC_FAILED",
    "bad_alloc",
    "Storage size calculation",
)
"""Messages of PyTorch and its libraries when memory runs out; only some of them have an exception class."""


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a CPU or a GPU ran out of memory. Torch is not imported for it."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and any(message in str(error) for message in OUT_OF_MEMORY))


def short(value: object, most: int = 60) -> str:
    """Return the `repr` of a value for a message, without its middle if it is longer than `most` characters."""
    if isinstance(value, str):  # cut before it is quoted: it may be the content of a whole file
        value = value if len(value) <= most else f"{value[: most * 2 // 3]}...{value[-(most // 3) :]}"
        return repr(value)
    text = repr(value)
    return text if len(text) <= most else f"{text[: most * 2 // 3]}...{text[-(most // 3) :]}"


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest of `choices`, or an empty string if none is close."""
    close = get_close_matches(word[:100], list(choices), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def unknown(what: str, word: str, choices: Iterable[str]) -> UserError:
    """Build the error for a name that is not among the valid `choices`, which it lists."""
    valid = sorted(choices)
    return UserError(f"unknown {what} {short(word)}{nearest(word, valid)}: choose one of {', '.join(valid)}")


def printable(text: str) -> str:
    """Return `text` on one line: control characters and undecodable bytes become escapes."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
