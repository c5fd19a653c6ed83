"""Do two folders of PNG images agree? Prints the largest difference in gray levels and how many values differ; fails above --most."""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--most", type=int, default=1, help="largest difference allowed, gray levels")
    options = parser.parse_args()
    names = [sorted(file.name for file in folder.glob("*.png")) for folder in (options.first, options.second)]
    if names[0] != names[1] or not names[0]:
        sys.exit(f"{options.first} holds {len(names[0])} images and {options.second} {len(names[1])}, or others")
    largest = different = values = 0
    for name in names[0]:
        with Image.open(options.first / name) as first, Image.open(options.second / name) as second:
            difference = np.abs(np.asarray(first).astype(int) - np.asarray(second))
        largest, different, values = max(largest, int(difference.max())), different + np.count_nonzero(difference), values + difference.size
    print(f"{len(names[0])} images: largest difference {largest} gray levels, {different:,} of {values:,} values differ")
    sys.exit(largest > options.most)


if __name__ == "__main__":
    main()
