"""Where images come from: the embedded digits, a folder, a zip read in place, and torchvision's data sets by name.

A source is a sequence of decoded PIL images with one integer label each; what form they are brought into is decided elsewhere.
"""

import errno
import hashlib
import os
import socket
import stat
import zipfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from PIL import Image

from amgen.config import DataConfig
from amgen.core.decoding import check_size, decode, open_regular, unreadable
from amgen.core.errors import UserError, nearest, printable
from amgen.core.files import locked, make_folder

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
TABLES = frozenset({".csv", ".tsv", ".npz", ".h5ad", ".parquet"})
ARCHIVES = frozenset({".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"})
SILENCE = 15.0
"""Seconds after which a server that says nothing is given up."""


class ImageSource(ABC):
    """A sequence of images.

    Attributes:
        description: what and where, for messages and reports.
        labels: class of each image, in [0, len(classes)).
        classes: class names; a single one when the images have no classes.
        notes: what of the place is left out, and why.
        turned: the images decoded so far that were turned as their EXIF orientation says.
        several: the images decoded so far that are the first of several frames or pages.
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


@dataclass
class Listing:
    """What a folder or an archive holds; paths are relative to it, with slashes.

    Attributes:
        images: paths and sizes in bytes of what has an image's ending.
        folders: all folders.
        others: how many other files there are of each ending.
        left_out: for each reason, the paths that are left out for it.
    """

    images: list[tuple[str, int]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, path: str) -> None:
        """Note that `path` is left out."""
        self.left_out.setdefault(reason, []).append(path)


class FileSource(ImageSource):
    """Image files in a tree whose first level of folders, if any, names the classes."""

    def __init__(self, listing: Listing, location: str):
        """Sort and label the images of `listing`, whose paths are relative to `location`."""
        images = sorted(listing.images)
        if not images:
            raise UserError(f"{printable(location)} holds no images: expected files ending in {', '.join(sorted(EXTENSIONS))}")
        self.paths = [path for path, _ in images]
        self.description = printable(location)
        self._listing = images
        parts = [PurePosixPath(path).parts for path in self.paths]
        shared = _shared_depth(parts)
        folders = [path[shared] if len(path) > shared + 1 else "" for path in parts]
        numbers = {folder: number for number, folder in enumerate(sorted(set(folders)))}
        self.classes = [printable(folder) for folder in numbers]
        self.labels = [numbers[folder] for folder in folders]
        for folder in _without_images(listing.folders, parts, shared):
            listing.leave_out("folders without images", folder)
        self.notes = [f"{reason} are left out: {_some(sorted(paths))}" for reason, paths in listing.left_out.items()]
        if listing.others:
            self.notes.append(
                f"files that do not end like images are left out: {listing.others.total():,} ({_some(sorted(listing.others))})"
            )
        self.turned: set[int] = set()
        self.several: set[int] = set()

    @abstractmethod
    def _open(self, path: str) -> IO[bytes]:
        """Open a file for reading bytes. Raises whatever is wrong with it."""

    def image(self, index: int) -> Image.Image:
        """Decode image `index`; of several frames it is the first, turned as its EXIF orientation says."""
        try:
            with self._open(self.paths[index]) as file:
                decoded = decode(file, self.name(index))
        except UserError:
            raise
        # Decoders and zipfile raise all sorts for damaged files: OSError, SyntaxError, struct.error, zlib.error, NotImplementedError,
        # RuntimeError (of an encrypted member), RecursionError, MemoryError. The list is not documented and grows.
        except Exception as error:
            raise unreadable(error, self.name(index)) from None
        if decoded.turned:
            self.turned.add(index)
        if decoded.several:
            self.several.add(index)
        return decoded.image

    def name(self, index: int) -> str:
        """Return the path of image `index`."""
        return f"{self.description}/{printable(self.paths[index])}"

    def fingerprint(self) -> str:
        """Hash the names and sizes of the files, which survive a copy (unlike dates)."""
        return hashlib.sha256(repr(self._listing).encode()).hexdigest()

    def contents(self) -> str:
        """Hash the names and the bytes of the files; of those that cannot be read, that they cannot."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(path.encode(errors="surrogateescape") + b"\0")
            try:
                with self._open(path) as file:
                    digest.update(_sha256(file))
            except UserError:
                raise
            except Exception:  # as in `image`, which tells what is wrong where the image is wanted
                digest.update(b"unreadable")
        return digest.hexdigest()


class FolderSource(FileSource):
    """A folder of images, searched recursively."""

    def __init__(self, root: Path):
        self.root = root
        super().__init__(_list_folder(root), str(root))

    def _open(self, path: str) -> IO[bytes]:
        file = open_regular(self.root / path)
        try:
            check_size(os.fstat(file.fileno()).st_size)
        except ValueError:
            file.close()
            raise
        return file


class ZipSource(FileSource):
    """A zip of images, read in place. Every process opens the file for itself, so worker processes may share a source."""

    def __init__(self, file: Path):
        self.file = file
        self._handle: zipfile.ZipFile | None = None
        self._owner = -1
        super().__init__(_list_zip(self._zip()), str(file))

    def _zip(self) -> zipfile.ZipFile:
        """Return this process's own handle: a forked one would share its file offset with the parent's."""
        if self._handle is None or self._owner != os.getpid():
            try:
                self._handle, self._owner = zipfile.ZipFile(self.file), os.getpid()
            except Exception as error:  # of damaged directories zipfile raises all sorts, as of damaged members
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                raise UserError(f"cannot read the zip {printable(str(self.file))}: {reason}{_instead(self.file)}") from None
        return self._handle

    def _open(self, path: str) -> IO[bytes]:
        archive = self._zip()
        check_size(archive.getinfo(path).file_size)
        return archive.open(path)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None, "_owner": -1}


def _list_folder(root: Path) -> Listing:
    """List a folder and all below it, links followed.

    Raises:
        UserError: if a folder cannot be read: what it holds is not known then, and would be missing without a word.
    """
    listing = Listing()
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while pending:
        # The folders that lead here, by device and inode, tell a link back to one of them, which would lead round and round.
        relative, above = pending.pop()
        try:
            status = os.stat(root / relative)
            above = (*above, (status.st_dev, status.st_ino))
            with os.scandir(root / relative) as entries:
                for entry in entries:
                    path = f"{relative}/{entry.name}" if relative else entry.name
                    if not _hidden(entry.name) and _add(listing, path, entry, above):
                        pending.append((path, above))
        except OSError as error:
            where = printable(str(error.filename or root / relative))
            raise UserError(f"cannot read {where}: {error.strerror or error}: make it readable, or move it out of the data") from None
    return listing


def _add(listing: Listing, path: str, entry: "os.DirEntry[str]", above: Sequence[tuple[int, int]]) -> bool:
    """Add an entry of a folder to `listing`; return whether it is a folder to be searched."""
    ending = os.path.splitext(entry.name)[1].lower()
    try:
        status = entry.stat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            raise
        if ending in EXTENSIONS:
            listing.images.append((path, 0))  # an image that is missing, to be named or skipped like others that cannot be read
        else:
            listing.leave_out("links that lead nowhere", path)
        return False
    if stat.S_ISDIR(status.st_mode):
        if (status.st_dev, status.st_ino) in above:
            listing.leave_out("links to a folder that they lie in", path)
            return False
        listing.folders.append(path)
        return True
    if ending in EXTENSIONS:
        listing.images.append((path, status.st_size))
    elif stat.S_ISREG(status.st_mode):
        listing.others[ending or "no ending"] += 1
    return False


def _list_zip(archive: zipfile.ZipFile) -> Listing:
    """List the members of a zip. Nothing is ever unpacked, so that a name may lead anywhere."""
    listing, images = Listing(), dict[str, int]()
    for entry in archive.infolist():
        path = entry.filename
        ending = os.path.splitext(path)[1].lower()
        if any(_hidden(part) for part in PurePosixPath(path).parts):
            continue
        if path.endswith("/"):
            listing.folders.append(path.rstrip("/"))
        elif ending in EXTENSIONS:
            if path in images:
                listing.leave_out("earlier members of the same name", path)
            images[path] = archive.getinfo(path).file_size
        else:
            listing.others[ending or "no ending"] += 1
    listing.images = list(images.items())
    return listing


def _hidden(name: str) -> bool:
    """Tell whether files and folders of this name belong to the system rather than to the data."""
    return name == "lost+found" or (name.startswith((".", "__MACOSX")) and name != "..")


def _without_images(folders: Sequence[str], images: Sequence[tuple[str, ...]], shared: int) -> list[str]:
    """Return the folders no deeper than the classes below which there is no image; of one inside another, the outer one.

    Args:
        folders: paths.
        images: paths, in parts.
        shared: leading folders that all images share; those below them are the classes.
    """
    parents = {path[:-1] for path in images} if folders else set()
    above = {parent[:depth] for parent in parents for depth in range(len(parent) + 1)}
    found = {PurePosixPath(folder).parts for folder in folders}
    empty = {parts for parts in found if len(parts) <= shared + 1 and parts not in above}
    return sorted("/".join(parts) for parts in empty if parts[:-1] in above)


def _some(words: Sequence[str]) -> str:
    """Return the first few of many words, for a message."""
    shown = ", ".join(printable(word) for word in words[:5])
    return shown if len(words) <= 5 else f"{shown} and {len(words) - 5:,} more"


def _sha256(file: IO[bytes]) -> bytes:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.digest()


def _instead(file: Path) -> str:
    """Return what to do about a file that is no zip, by what it is."""
    if file.suffix.lower() in EXTENSIONS:
        return ": it is a single image; give the folder that it lies in"
    if file.suffix.lower() in TABLES:
        return ": it looks like a table; set data.kind=snapshots to read one"
    if file.suffix.lower() in ARCHIVES:
        return ": of archives only .zip is read in place; unpack it and give the folder"
    return ": give a folder or .zip of images"


def digits() -> ArraySource:
    """Return the embedded 8x8 handwritten digits (UCI, CC BY 4.0; see NOTICE.md)."""
    with resources.files("amgen.data").joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    return ArraySource(images, labels.tolist(), [str(digit) for digit in range(10)], "the embedded digits")


def _torchvision(class_name: str, options: DataConfig, size: str, host: str, say: Callable[[str], None] | None) -> ArraySource:
    from torchvision import datasets

    try:
        root = Path(options.root).expanduser()
    except RuntimeError as error:  # there is no such home
        raise UserError(f"data.root={options.root!r}: {error}") from None
    where = printable(str(root))
    read = getattr(datasets, class_name)
    offline = "copy it there as torchvision lays it out, or set data.path to a folder or zip of images"
    fetching = False
    try:
        try:
            dataset = read(root, train=True, download=False)
        except RuntimeError:  # it is not there, or not whole
            if not options.download:
                raise UserError(
                    f"{class_name} is not in {where}: set data.download=true to fetch it ({size} from {host}), {offline}"
                ) from None
            try:
                make_folder(root)
            except UserError as error:
                raise UserError(f"data.root={options.root}: {error} (data.root)") from None
            # The first process of a machine fetches it; others wait, and find it there.
            with locked(root / ".lock", wait=True), _impatient():
                if say is not None:
                    say(f"fetching {class_name}, {size} from {host}, into {where}")
                fetching = True
                dataset = read(root, train=True, download=True)
        images = np.asarray(dataset.data)
        labels = np.asarray(dataset.targets).tolist()
        return ArraySource(images, labels, list(dataset.classes), f"{class_name} in {where}")
    except UserError:
        raise
    # Of what is damaged or unreachable torchvision lets through what its readers raise: URLError, AssertionError, EOFError, ReadError.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if fetching:
            raise UserError(f"could not fetch {class_name} from {host} into {where}: {reason}: {offline}") from None
        raise UserError(f"{class_name} in {where} is damaged ({reason}): remove it and set data.download=true, or {offline}") from None


@contextmanager
def _impatient() -> Iterator[None]:
    """Let no connection wait for more than `SILENCE` seconds; torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


NAMED: dict[str, Callable[[DataConfig, Callable[[str], None] | None], ArraySource]] = {
    "digits": lambda options, say: digits(),
    "mnist": lambda options, say: _torchvision("MNIST", options, "12 MB", "ossci-datasets.s3.amazonaws.com", say),
    "fashion-mnist": lambda options, say: _torchvision(
        "FashionMNIST", options, "31 MB", "fashion-mnist.s3-website.eu-central-1.amazonaws.com", say
    ),
    "cifar10": lambda options, say: _torchvision("CIFAR10", options, "170 MB", "www.cs.toronto.edu", say),
}
"""Data sets known by name."""


def open_source(options: DataConfig, say: Callable[[str], None] | None = None) -> ImageSource:
    """Open what `options.path` names: a known data set, a folder or a zip; `say` takes a line about what is fetched.

    Raises:
        UserError: if there is nothing of that name, or it holds no images.
    """
    if options.path in NAMED:
        return NAMED[options.path](options, say)
    try:
        path = Path(options.path).expanduser()
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"data.path={options.path!r} does not exist{nearest(options.path, NAMED)}: "
            f"give a folder or .zip of images, or one of {', '.join(NAMED)}"
        ) from None
    except (OSError, ValueError, RuntimeError) as error:  # a name too long or with a null, a folder that may not be entered, no such home
        raise UserError(f"cannot read data.path={options.path!r}: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISDIR(mode):
        return FolderSource(path)
    if stat.S_ISREG(mode):
        return ZipSource(path)
    raise UserError(f"data.path={options.path!r} is a pipe or a device: give a folder or .zip of images")


def _shared_depth(paths: Sequence[tuple[str, ...]]) -> int:
    """Count the leading folders that all paths share, such as the single top folder of a zip."""
    depth = 0
    while all(len(path) > depth + 1 for path in paths) and len({path[depth] for path in paths}) == 1:
        depth += 1
    return depth
