"""What an image source is, and the source that holds its images in memory.

A source is a sequence of decoded PIL images with an integer label each. `amgen.data.images` brings them into the form that a run asks for.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import numpy as np
from PIL import Image


class ImageSource(ABC):
    """A sequence of images.

    Attributes:
        description: what the images are and where they lie, for messages and reports.
        labels: class of each image, in [0, len(classes)).
        classes: class names; a single one when the images have no classes.
        notes: what is left out of the data, and why.
        turned: indices of the images decoded so far that were turned as their EXIF orientation says.
        several: indices of the images decoded so far whose files have further frames or pages.
    """

    description: str
    labels: Sequence[int]
    classes: Sequence[str]
    notes: Sequence[str] = ()
    turned: AbstractSet[int] = frozenset()
    several: AbstractSet[int] = frozenset()

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """Decode image `index`, the right way up: its EXIF orientation is applied.

        Raises:
            UnreadableImage: naming the image, if it cannot be read.
        """

    @abstractmethod
    def name(self, index: int) -> str:
        """Return the name of image `index` for error messages."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash that changes when the images change, in hexadecimal. It is fast: it need not read every file."""

    def contents(self) -> str:
        """Return a hash of all pixels or all bytes, in hexadecimal. It may have to read every file."""
        return self.fingerprint()


class ArraySource(ImageSource):
    """Images held in memory.

    Args:
        images: uint8, (N, H, W) or (N, H, W, 3).
        labels: class of each image.
        classes: class names.
        description: what the images are, for messages and reports.
    """

    def __init__(self, images: np.ndarray, labels: Sequence[int], classes: Sequence[str], description: str):
        self.images = images
        self.labels = labels
        self.classes = classes
        self.description = description

    def image(self, index: int) -> Image.Image:
        """Return image `index`."""
        return Image.fromarray(self.images[index])

    def name(self, index: int) -> str:
        """Return the name of image `index` for error messages."""
        return f"image {index} of {self.description}"

    def fingerprint(self) -> str:
        """Return a hash of every pixel and label."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).tobytes())
        digest.update(np.asarray(self.labels, dtype=np.int64).tobytes())
        return digest.hexdigest()
