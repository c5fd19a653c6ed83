"""Write amgen/data/digits.npz, the embedded 8x8 digits, from scikit-learn's copy of the UCI data set.

Usage: pip install scikit-learn && python scripts/make_digits.py
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

OUTPUT = Path(__file__).parent.parent / "amgen" / "data" / "digits.npz"


def main() -> None:
    """Scale the levels 0..16 to 0..255, rounding to nearest, and compress."""
    images, labels = load_digits(return_X_y=True)
    images = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    np.savez_compressed(OUTPUT, images=images, labels=labels.astype(np.uint8))
    print(f"{OUTPUT}: {images.shape} images, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
