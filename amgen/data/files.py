"""Image files in a folder or a zip, which is read in place; folders name the classes."""

import hashlib
import os
import zipfile
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from PIL import Image

from amgen.core.decoding import check_size, decode, open_regular, unreadable
from amgen.core.errors import UserError, printable
from amgen.data.listing import EXTENSIONS, Listing, list_folder, list_zip
from amgen.data.messages import first_few
from amgen.data.sources import ImageSource

TABLES = frozenset({".csv", ".tsv", ".npz", ".h5ad", ".parquet"})
ARCHIVES = frozenset({".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"})


class FileSource(ImageSource):
    """Image files in a tree whose first level of folders, if any, names the classes.

    Args:
        listing: the files; they are sorted by path, which gives each its index.
        location: the folder or zip that their paths are relative to.

    Raises:
        UserError: if there are no images.
    """

    def __init__(self, listing: Listing, location: str):
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
        self.notes = [f"{reason} are left out: {first_few(sorted(paths), 5, 300)}" for reason, paths in listing.left_out.items()]
        if listing.others:
            extensions = first_few(sorted(listing.others), 5)
            self.notes.append(f"files without an image extension are left out: {listing.others.total():,} ({extensions})")
        self.turned: set[int] = set()
        self.several: set[int] = set()

    @abstractmethod
    def _open(self, path: str) -> IO[bytes]:
        """Open a file for reading bytes.

        Raises:
            Exception: of any class, if it cannot be opened.
        """

    def image(self, index: int) -> Image.Image:
        """Decode image `index`: the first of several frames, with the EXIF orientation applied.

        Raises:
            UnreadableImage: naming the image, if it cannot be read.
            UserError: if it has more than 8 bits a channel.
        """
        try:
            with self._open(self.paths[index]) as file:
                decoded = decode(file, self.name(index))
        except UserError:
            raise
        # For damaged files decoders and zipfile raise many classes of errors: OSError, SyntaxError, struct.error, zlib.error,
        # NotImplementedError, RuntimeError (of an encrypted member), RecursionError, MemoryError. The list is not documented and grows.
        except Exception as error:
            raise unreadable(error, self.name(index)) from None
        if decoded.turned:
            self.turned.add(index)
        if decoded.several:
            self.several.add(index)
        return decoded.image

    def name(self, index: int) -> str:
        """Return the path of image `index`, for error messages."""
        return f"{self.description}/{printable(self.paths[index])}"

    def fingerprint(self) -> str:
        """Return a hash of the names and sizes of the files; a copy of the files has the same hash."""
        return hashlib.sha256(repr(self._listing).encode()).hexdigest()

    def contents(self) -> str:
        """Return a hash of the names and bytes of the files; an unreadable file counts as the word `unreadable`."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(path.encode(errors="surrogateescape") + b"\0")
            try:
                with self._open(path) as file:
                    digest.update(_sha256(file))
            except UserError:
                raise
            except Exception:  # as in `image`, which reports the reason when the image is needed
                digest.update(b"unreadable")
        return digest.hexdigest()


class FolderSource(FileSource):
    """The images in a folder and in all folders below it.

    Args:
        root: the folder.

    Raises:
        UserError: if it holds no images, or a folder cannot be read.
    """

    def __init__(self, root: Path):
        self.root = root
        super().__init__(list_folder(root), str(root))

    def _open(self, path: str) -> IO[bytes]:
        file = open_regular(self.root / path)
        try:
            check_size(os.fstat(file.fileno()).st_size)
        except ValueError:
            file.close()
            raise
        return file


class ZipSource(FileSource):
    """The images in a zip, which is read in place.

    Every process opens the file for itself, so worker processes may share a source.

    Args:
        file: the zip.

    Raises:
        UserError: if it is not a zip, or holds no images.
    """

    def __init__(self, file: Path):
        self.file = file
        self._handle: zipfile.ZipFile | None = None
        self._owner = -1
        super().__init__(list_zip(self._zip()), str(file))

    def _zip(self) -> zipfile.ZipFile:
        """Return the handle of this process. A handle from before a fork would share its file offset with the parent process."""
        if self._handle is None or self._owner != os.getpid():
            try:
                self._handle, self._owner = zipfile.ZipFile(self.file), os.getpid()
            except Exception as error:  # of any class, as for damaged members
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                raise UserError(f"cannot read the zip {printable(str(self.file))}: {reason}{_advice(self.file)}") from None
        return self._handle

    def _open(self, path: str) -> IO[bytes]:
        archive = self._zip()
        check_size(archive.getinfo(path).file_size)
        return archive.open(path)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None, "_owner": -1}


def _shared_depth(paths: Sequence[tuple[str, ...]]) -> int:
    """Return the number of leading folders that all paths share, such as the single top folder of a zip."""
    depth = 0
    while all(len(path) > depth + 1 for path in paths) and len({path[depth] for path in paths}) == 1:
        depth += 1
    return depth


def _without_images(folders: Sequence[str], images: Sequence[tuple[str, ...]], shared: int) -> list[str]:
    """Return the folders, down to the level of the classes, that hold no image; of nested ones only the outermost.

    Args:
        folders: paths of all folders.
        images: paths of all images, split into parts.
        shared: number of leading folders that all images share; the folders below them are the classes.
    """
    parents = {path[:-1] for path in images} if folders else set()
    above = {parent[:depth] for parent in parents for depth in range(len(parent) + 1)}
    found = {PurePosixPath(folder).parts for folder in folders}
    empty = {parts for parts in found if len(parts) <= shared + 1 and parts not in above}
    return sorted("/".join(parts) for parts in empty if parts[:-1] in above)


def _sha256(file: IO[bytes]) -> bytes:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.digest()


def _advice(file: Path) -> str:
    """Return what to do with a file that is not a zip, judged by its extension."""
    if file.suffix.lower() in EXTENSIONS:
        return ": it is a single image; give the folder that contains it"
    if file.suffix.lower() in TABLES:
        return ": it looks like a table; set data.kind=snapshots to read one"
    if file.suffix.lower() in ARCHIVES:
        return ": only .zip archives are read in place; unpack it and give the folder"
    return ": give a folder or .zip of images"
