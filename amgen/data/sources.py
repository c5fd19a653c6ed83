"""Where images come from: the embedded digits, a folder, a zip read in place, and torchvision's data sets by name.

A source is a sequence of decoded PIL images with one integer label each; what form they are brought into is decided elsewhere.
"""

import hashlib
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from amgen.config import DataConfig
from amgen.errors import UnreadableImage, UserError, nearest
from amgen.files import locked, make_folder

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


class ImageSource(ABC):
    """A sequence of images.

    Attributes:
        description: what and where, for messages and reports.
        labels: class of each image, in [0, len(classes)).
        classes: class names; a single one when the images have no classes.
    """

    description: str
    labels: Sequence[int]
    classes: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """Decode image `index`. Raises UnreadableImage naming it if it cannot be read."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Return what to call image `index` in an error."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash that changes when the images change, in hexadecimal."""

    def contents(self) -> str:
        """Return a hash of all there is in the images, in hexadecimal; it may have to read them all."""
        return self.fingerprint()


class ArraySource(ImageSource):
    """Images held in memory: uint8 (N, H, W) or (N, H, W, 3)."""

    def __init__(self, images: np.ndarray, labels: Sequence[int], classes: Sequence[str], description: str):
        self.images = images
        self.labels = labels
        self.classes = classes
        self.description = description

    def image(self, index: int) -> Image.Image:
        """Return image `index`."""
        return Image.fromarray(self.images[index])

    def name(self, index: int) -> str:
        """Return what to call image `index`."""
        return f"image {index} of {self.description}"

    def fingerprint(self) -> str:
        """Hash every pixel and label."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).tobytes())
        digest.update(np.asarray(self.labels, dtype=np.int64).tobytes())
        return digest.hexdigest()


class FileSource(ImageSource):
    """Image files in a tree whose first level of folders, if any, names the classes."""

    def __init__(self, entries: Sequence[tuple[str, int]], location: str):
        """Sort and label `entries`, pairs of a path relative to `location` and a size in bytes."""
        images = sorted(
            (path, size)
            for path, size in entries
            if PurePosixPath(path).suffix.lower() in EXTENSIONS
            and not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(path).parts)
        )
        if not images:
            raise UserError(f"{location} holds no images: expected files ending in {', '.join(sorted(EXTENSIONS))}")
        self.paths = [path for path, _ in images]
        self.description = location
        self._listing = images
        parts = [PurePosixPath(path).parts for path in self.paths]
        shared = _shared_depth(parts)
        folders = [path[shared] if len(path) > shared + 1 else "" for path in parts]
        self.classes = sorted(set(folders))
        numbers = {folder: number for number, folder in enumerate(self.classes)}
        self.labels = [numbers[folder] for folder in folders]

    @abstractmethod
    def _open(self, path: str) -> Any:
        """Open a file for reading bytes."""

    def image(self, index: int) -> Image.Image:
        """Decode image `index`."""
        try:
            with self._open(self.paths[index]) as file, Image.open(file) as image:
                image.load()
                return image
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UnreadableImage(
                f"cannot read the image {self.name(index)}: {error or type(error).__name__}: replace or remove it"
            ) from None
        except Image.DecompressionBombError as error:
            raise UnreadableImage(f"refusing to decode {self.name(index)}: {error}") from None

    def name(self, index: int) -> str:
        """Return the path of image `index`."""
        return f"{self.description}/{self.paths[index]}"

    def fingerprint(self) -> str:
        """Hash the names and sizes of the files, which survive a copy (unlike dates)."""
        return hashlib.sha256(repr(self._listing).encode()).hexdigest()

    def contents(self) -> str:
        """Hash the names and the bytes of the files."""
        digest = hashlib.sha256()
        for path in self.paths:
            with self._open(path) as file:
                digest.update(f"{path}\0".encode())
                digest.update(hashlib.file_digest(file, "sha256").digest() if hasattr(hashlib, "file_digest") else file.read())
        return digest.hexdigest()


class FolderSource(FileSource):
    """A folder of images, searched recursively."""

    def __init__(self, root: Path):
        self.root = root
        found = (Path(folder) / file for folder, _, files in os.walk(root, followlinks=True) for file in files)
        super().__init__([(path.relative_to(root).as_posix(), path.stat().st_size) for path in found], str(root))

    def _open(self, path: str) -> Any:
        return open(self.root / path, "rb")


class ZipSource(FileSource):
    """A zip of images, read in place. Every process opens the file for itself, so worker processes may share a source."""

    def __init__(self, file: Path):
        self.file = file
        self._handle: zipfile.ZipFile | None = None
        self._owner = -1
        entries = [(entry.filename, entry.file_size) for entry in self._zip().infolist() if not entry.is_dir()]
        super().__init__(entries, str(file))

    def _zip(self) -> zipfile.ZipFile:
        """Return this process's own handle: a forked one would share its file offset with the parent's."""
        if self._handle is None or self._owner != os.getpid():
            try:
                self._handle, self._owner = zipfile.ZipFile(self.file), os.getpid()
            except (OSError, zipfile.BadZipFile) as error:
                raise UserError(f"cannot read the zip {self.file}: {error}") from None
        return self._handle

    def _open(self, path: str) -> Any:
        return self._zip().open(path)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None, "_owner": -1}


def digits() -> ArraySource:
    """Return the embedded 8x8 handwritten digits (UCI, CC BY 4.0; see NOTICE.md)."""
    with resources.files("amgen.data").joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    return ArraySource(images, labels.tolist(), [str(digit) for digit in range(10)], "the embedded digits")


def _torchvision(class_name: str, options: DataConfig, size: str, host: str) -> ArraySource:
    from torchvision import datasets

    root = Path(options.root).expanduser()
    try:
        dataset = getattr(datasets, class_name)(root, train=True, download=False)
    except RuntimeError:
        if not options.download:
            raise UserError(
                f"{class_name} is not in {root}: set data.download=true to fetch it ({size} from {host}), copy it there "
                "as torchvision lays it out, or set data.path to a folder or zip of images"
            ) from None
        # The first process of a machine fetches it; others wait, and find it there.
        try:
            make_folder(root)
        except UserError as error:
            raise UserError(f"data.root={options.root}: {error} (data.root)") from None
        with locked(root / ".lock", wait=True):
            try:
                dataset = getattr(datasets, class_name)(root, train=True, download=True)
            except (RuntimeError, OSError) as error:
                raise UserError(f"could not fetch {class_name} from {host} into {root}: {error}") from None
    images = np.asarray(dataset.data)
    labels = np.asarray(dataset.targets).tolist()
    return ArraySource(images, labels, list(dataset.classes), f"{class_name} in {root}")


NAMED = {
    "digits": lambda options: digits(),
    "mnist": lambda options: _torchvision("MNIST", options, "12 MB", "ossci-datasets.s3.amazonaws.com"),
    "fashion-mnist": lambda options: _torchvision("FashionMNIST", options, "31 MB", "fashion-mnist.s3-website.eu-central-1.amazonaws.com"),
    "cifar10": lambda options: _torchvision("CIFAR10", options, "170 MB", "www.cs.toronto.edu"),
}
"""Data sets known by name."""


def open_source(options: DataConfig) -> ImageSource:
    """Open what `options.path` names: a known data set, a folder or a zip.

    Raises:
        UserError: if there is nothing of that name, or it holds no images.
    """
    if options.path in NAMED:
        return NAMED[options.path](options)
    path = Path(options.path).expanduser()
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        return ZipSource(path)
    raise UserError(
        f"data.path={options.path!r} does not exist{nearest(options.path, NAMED)}: "
        f"give a folder or .zip of images, or one of {', '.join(NAMED)}"
    )


def _shared_depth(paths: Sequence[tuple[str, ...]]) -> int:
    """Count the leading folders that all paths share, such as the single top folder of a zip."""
    depth = 0
    while all(len(path) > depth + 1 for path in paths) and len({path[depth] for path in paths}) == 1:
        depth += 1
    return depth
