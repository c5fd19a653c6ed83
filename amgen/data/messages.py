"""Words from files, made short enough for one-line messages."""

from collections.abc import Iterable

from amgen.core.errors import printable


def shortened(text: str, most: int = 60) -> str:
    """Return printable text of at most `most` characters; an ellipsis shows where it was cut."""
    text = printable(text)
    return text if len(text) <= most else f"{text[:most]}..."


def first_few(words: Iterable[object], most: int = 10, length: int = 60) -> str:
    """Return the first `most` words, each of at most `length` characters, and the number of those that are not shown."""
    shown = [shortened(str(word), length) for word in words]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most:,} more" if len(shown) > most else "")
