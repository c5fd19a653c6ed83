"""Are the PNG images of two folders the same? The largest difference in gray levels, and how many values differ.

Exit code 1 if the largest difference is above --most, 2 if the folders do not hold images of the same names. Takes seconds.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import new_parser, parse, print_conditions, print_table, script
from PIL import Image

from amgen.core.errors import UserError


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, print, and exit with code 1 if the images differ by too much."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("first", type=Path, help="folder of PNG images")
    parser.add_argument("second", type=Path, help="folder of PNG images with the same names")
    parser.add_argument("--most", type=int, default=1, help="largest difference allowed, gray levels")
    options = parse(parser, arguments)
    largest = different = values = 0
    names = common_names(options.first, options.second)
    for name in names:
        with Image.open(options.first / name) as first, Image.open(options.second / name) as second:
            if first.size != second.size or first.mode != second.mode:
                raise UserError(
                    f"{name} is {first.size} {first.mode} in {options.first}, and {second.size} {second.mode} in {options.second}"
                )
            difference = np.abs(np.asarray(first).astype(int) - np.asarray(second))
        largest, different, values = max(largest, int(difference.max())), different + np.count_nonzero(difference), values + difference.size
    row = [f"{len(names):,}", largest, f"{different:,} of {values:,}"]
    print_table(["images", "largest difference, gray levels", "values that differ"], [row])
    print_conditions(options)
    if largest > options.most:
        sys.exit(1)


def common_names(first: Path, second: Path) -> list[str]:
    """Return the names of the images that both folders hold.

    Raises:
        UserError: if there is none, or one folder holds others than the other.
    """
    names, others = (sorted(file.name for file in folder.glob("*.png")) for folder in (first, second))
    if names != others or not names:
        raise UserError(f"{first} holds {len(names)} PNG images and {second} {len(others)}: expected the same names, one at least")
    return names


if __name__ == "__main__":
    main()
