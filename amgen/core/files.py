"""Atomic writing of files and folders: after a crash there is the old one or the new one, never a part."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amgen.core.errors import UserError


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically.

    Raises:
        UserError: if the folder cannot be written to.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file to write; afterwards it is synced to the disk and replaces `path` in one step.

    Raises:
        UserError: if the disk is full or the folder cannot be written to; `path` is then unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        fsync(temporary)
        os.replace(temporary, path)
        fsync(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def is_temporary(path: Path) -> bool:
    """Return whether a file or folder is a temporary one of this module."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files that killed processes left in `folder`."""
    for entry in filter(is_temporary, folder.iterdir()):
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Delete a folder atomically: after a crash it is complete under its name, or gone."""
    aside = path.with_name(f".{path.name}.removed.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(path, aside)
    shutil.rmtree(aside, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file that is complete or absent even if the process is killed; it is not synced to the disk.

    Raises:
        UserError: if the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


_LOCKED: set[int] = set()
"""Descriptors of the files that this process has locked."""


@contextmanager
def locked(file: Path, wait: bool = False) -> Iterator[bool]:
    """Lock a file, which is created if needed and not deleted; yield whether its file system supports locks.

    The operating system releases the lock when this process ends, even if it is killed.

    Args:
        file: the file.
        wait: wait for another process that has locked it.

    Raises:
        BlockingIOError: if another process has locked it, unless `wait`.
        UserError: if the file cannot be opened for writing.
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}: choose another place") from None
    _LOCKED.add(descriptor)
    try:
        yield _lock(descriptor, wait)
    finally:
        _LOCKED.discard(descriptor)
        os.close(descriptor)


def forget_locks() -> None:
    """Release inherited locks in a forked process; otherwise they would outlive the process that took them."""
    for descriptor in list(_LOCKED):
        os.close(descriptor)
    _LOCKED.clear()


def _lock(descriptor: int, wait: bool) -> bool:
    """Lock by the first method that the file system supports; the second one is for network folders."""
    how = fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)
    for take in (fcntl.flock, fcntl.lockf):
        try:
            take(descriptor, how)
            return True
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise BlockingIOError(error.errno, error.strerror) from None
    return False


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Create a folder atomically: `fill` writes into a temporary one beside it, which is then synced and renamed.

    A folder at `path` is replaced. Temporary folders of killed processes beside it are removed.

    Raises:
        OSError: the error of `fill` or of the disk; the temporary folder is then removed.
    """
    remove_temporaries(path.parent)
    temporary, replaced = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.replaced.tmp")
    try:
        temporary.mkdir()
        fill(temporary)
        for file in temporary.iterdir():
            fsync(file)
        fsync(temporary)
        if path.exists():
            os.rename(path, replaced)
        os.rename(temporary, path)
        fsync(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def make_folder(path: Path) -> Path:
    """Create a folder, parents included, and return it.

    Raises:
        UserError: if it cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {path}: {error.strerror or error}: choose another place") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"cannot write into the folder {path}: permission denied: choose another place")
    return path


def check_output(option: str, path: Path | None) -> None:
    """Check before the work that its result can be written to a file.

    Parent folders are created. Nothing is done for None.

    Raises:
        UserError: naming the option, if the path is a folder, or its folder cannot be created or written to.
    """
    if path is None:
        return
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder: give the name of a file")
    try:
        make_folder(path.parent)
        # A trial also detects read-only file systems, a full disk and names that are too long.
        trial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        trial.touch()
        trial.unlink()
    except UserError as error:
        raise UserError(f"{option} {path}: {error}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{option} {path} cannot be written: {getattr(error, 'strerror', None) or error}: choose another place") from None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fsync(path: Path) -> None:
    """Sync a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
