"""Lists of the image files in a folder or a zip."""

import errno
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from amgen.core.errors import UserError, printable

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
"""Extensions of image files, in lower case."""

NO_EXTENSION = "no extension"


@dataclass
class Listing:
    """The contents of a folder or an archive; paths are relative to it and have slashes.

    Attributes:
        images: path and size in bytes of each file with an image extension.
        folders: paths of all folders.
        others: number of other files of each extension.
        left_out: reason to the paths that are left out for it.
    """

    images: list[tuple[str, int]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, path: str) -> None:
        """Record that `path` is left out."""
        self.left_out.setdefault(reason, []).append(path)


def list_folder(root: Path) -> Listing:
    """List a folder and everything below it; links are followed.

    Raises:
        UserError: if a folder cannot be read, because its images would otherwise be missing without a message.
    """
    listing = Listing()
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while pending:
        # `above` are the folders that lead here, by device and inode. A link back to one of them would be followed without end.
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
    """Add an entry of a folder to `listing`; return whether it is a folder to search."""
    extension = os.path.splitext(entry.name)[1].lower()
    try:
        status = entry.stat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            raise
        if extension in EXTENSIONS:
            listing.images.append((path, 0))  # a missing image: reported or skipped like other unreadable images
        else:
            listing.leave_out("broken links", path)
        return False
    if stat.S_ISDIR(status.st_mode):
        if (status.st_dev, status.st_ino) in above:
            listing.leave_out("links to a folder that contains them", path)
            return False
        listing.folders.append(path)
        return True
    if extension in EXTENSIONS:
        listing.images.append((path, status.st_size))
    elif stat.S_ISREG(status.st_mode):
        listing.others[extension or NO_EXTENSION] += 1
    return False


def list_zip(archive: zipfile.ZipFile) -> Listing:
    """List the members of a zip. Nothing is unpacked, so a member's path may be anything."""
    listing, images = Listing(), dict[str, int]()
    for entry in archive.infolist():
        path = entry.filename
        extension = os.path.splitext(path)[1].lower()
        if any(_hidden(part) for part in PurePosixPath(path).parts):
            continue
        if path.endswith("/"):
            listing.folders.append(path.rstrip("/"))
        elif extension in EXTENSIONS:
            if path in images:
                listing.leave_out("earlier members of the same name", path)
            images[path] = archive.getinfo(path).file_size
        else:
            listing.others[extension or NO_EXTENSION] += 1
    listing.images = list(images.items())
    return listing


def _hidden(name: str) -> bool:
    """Return whether files and folders of this name belong to the operating system and not to the data."""
    return name == "lost+found" or (name.startswith((".", "__MACOSX")) and name != "..")
