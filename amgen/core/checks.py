"""Checks of a command's options that need neither torch nor the model, and so come before all slow work."""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import get_args

from amgen.core.errors import UserError, unknown
from amgen.core.names import QuadratureRule

FORMATS = ("png", "npz")

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")

ANIMATION_ENDINGS = (".gif", ".png", ".webp")

PLOT_ENDINGS = (".png", ".pdf", ".svg")

MOST_IMAGES = 10_000_000
"""Most images of one command: a longer list takes gigabytes. Further commands can generate others (--seeds)."""

MOST_FRAMES = 2_000
"""Most steps of an animation, a strip or a plot, which keep the images of each step in memory."""

LAST_INDEX = 2**62
"""Largest index of an image; it fits into every integer that counts images."""


def check_format(form: str) -> None:
    """Refuse an unknown format of images."""
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)


def check_image_file(option: str, file: Path | None, endings: Sequence[str] = IMAGE_ENDINGS) -> None:
    """Refuse a file name whose ending is not one of an image file."""
    if file is not None and file.suffix.lower() not in endings:
        raise UserError(f"{option} {file}: expected a file name that ends in {', '.join(endings)}")


def check_plot(option: str, file: Path | None) -> None:
    """Refuse a plot that cannot be made: its file name has another ending, or matplotlib is not installed.

    Raises:
        UserError: naming what is missing.
    """
    check_image_file(option, file, PLOT_ENDINGS)
    if file is not None and find_spec("matplotlib") is None:
        raise UserError(f"{option} needs matplotlib: pip install 'amgen[plots]'")


def check_export(file: Path) -> None:
    """Refuse a file name with another ending than exported weights have."""
    if file.suffix != ".safetensors":
        raise UserError(f"cannot export to {file}: expected a name that ends in .safetensors")


def check_input(option: str, file: Path | None) -> None:
    """Refuse an input file that does not exist."""
    try:
        there = file is None or file.is_file()
    except OSError as error:
        raise UserError(f"cannot read {option} {file}: {error.strerror or error}") from None
    if not there:
        raise UserError(f"cannot read {option} {file}: there is no such file")


def check_number(option: str, count: int) -> None:
    """Refuse a number of images that is below 1 or too large for a list."""
    if not 1 <= count <= MOST_IMAGES:
        raise UserError(f"{option} {count}: expected at least 1 and at most {MOST_IMAGES:,}")


def check_run(run: Path) -> None:
    """Refuse a run that does not exist, before folders for outputs are made."""
    try:
        there = run.exists()
    except OSError as error:
        raise UserError(f"cannot read {run}: {error.strerror or error}: make it readable for this user, or give another run") from None
    if not there:
        raise UserError(f"{run} does not exist: give the folder of a run or of a checkpoint")


def check_frames(steps: int, files: Sequence[Path | None]) -> None:
    """Refuse outputs that keep the images of each step if there are too many steps for memory."""
    if steps > MOST_FRAMES and any(file is not None for file in files):
        raise UserError(f"steps={steps}: --gif, --strip and --plot keep the images of each step: expected at most {MOST_FRAMES:,} for them")


def read_index(text: str) -> int | None:
    """Return the text as the index of an image, or None if it is not an index."""
    text = text.strip()
    return int(text) if text.isdecimal() and len(text) < 20 and int(text) <= LAST_INDEX else None


def parse_indices(text: str) -> list[int]:
    """Read indices such as 5,17-20.

    Raises:
        UserError: if the text has another form, names an index twice, or names too many indices.
    """
    shown = text if len(text) <= 60 else f"{text[:60]}..."
    ranges: list[tuple[int, int]] = []
    for part in text.split(","):
        start, dash, end = part.partition("-")
        first = read_index(start)
        last = read_index(end) if dash else first
        if first is None or last is None or last < first:
            raise UserError(f"--seeds {shown!r}: expected indices and ranges such as 5,17-20, none above 2^62")
        ranges.append((first, last))
    count = sum(last - first + 1 for first, last in ranges)
    if count > MOST_IMAGES:
        raise UserError(f"--seeds {shown!r} names {count:,} indices: expected at most {MOST_IMAGES:,}")
    if any(second[0] <= first[1] for first, second in pairwise(sorted(ranges))):
        raise UserError(f"--seeds {shown!r} names an index twice")
    return [index for first, last in ranges for index in range(first, last + 1)]


def parse_between(text: str) -> tuple[int, int]:
    """Read two indices such as 3,8.

    Raises:
        UserError: if the text has another form, or both indices are the same.
    """
    start, _, end = text.partition(",")
    first, last = read_index(start), read_index(end)
    if first is None or last is None or first == last:
        shown = text if len(text) <= 60 else f"{text[:60]}..."
        raise UserError(f"--between {shown!r}: expected two different indices such as 3,8, none above 2^62")
    return first, last


def quadrature_problem(rule: str, nodes: int) -> str | None:
    """Return why a rule cannot have so many nodes, and what to do; None if it can."""
    if rule not in get_args(QuadratureRule):
        return f"times.rule={rule}: expected one of {', '.join(get_args(QuadratureRule))}"
    if nodes < 1:
        return f"times.nodes={nodes}: expected at least 1"
    if rule == "antithetic" and nodes % 2:
        return f"times.nodes={nodes}: times.rule=antithetic has two nodes in each cell: give an even number, such as {nodes + 1}"
    if rule == "simpson" and (nodes < 3 or nodes % 2 == 0):
        return f"times.nodes={nodes}: times.rule=simpson needs an odd number of at least 3: give {max(3, nodes + 1)}"
    return None
