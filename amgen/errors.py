"""Errors that end a command with one line: what went wrong, where, and what to do about it."""

from collections.abc import Iterable
from difflib import get_close_matches


class AmgenError(Exception):
    """Base of the errors that the CLI prints on one line, without a traceback.

    Attributes:
        exit_code: what the command exits with.
        collective: whether every process raises it alike, so that the first one's line is enough.
    """

    exit_code = 1
    collective = False


class UserError(AmgenError):
    """A mistake in the input or the environment: names the thing, the value, what was expected and what to do."""

    exit_code = 2


class UnreadableImage(UserError):
    """An image file that cannot be decoded."""


class Diverged(AmgenError):
    """A loss, gradient or sample is no longer a finite number."""


class Interrupted(AmgenError):
    """Training was asked to stop by a signal, has saved its state and can be resumed (exit code EX_TEMPFAIL)."""

    exit_code = 75
    collective = True


class PeerLost(AmgenError):
    """Another process of a training run died or fell silent; the last checkpoint is whole and the run can be resumed."""

    exit_code = 76


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest of `choices`, or an empty string when none is close."""
    close = get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def unknown(what: str, word: str, choices: Iterable[str]) -> UserError:
    """Build the error for a name that is not among the valid `choices`, which it lists."""
    valid = sorted(choices)
    return UserError(f"unknown {what} {word!r}{nearest(word, valid)}: choose one of {', '.join(valid)}")


def printable(text: str) -> str:
    """Return `text` on one line that any terminal and file takes: control characters and bytes that are no text are written as escapes."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
