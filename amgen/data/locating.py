"""The file or folder that the option `data.path` names."""

import os
from pathlib import Path

from amgen.core.errors import UserError


def locate(path: str, advice: str) -> tuple[Path, int]:
    """Return what `data.path` names, `~` replaced by the home folder, and its mode as `os.stat` gives it.

    Args:
        path: the option.
        advice: what to add to the error if it does not exist.

    Raises:
        UserError: if it does not exist or cannot be accessed.
    """
    try:
        found = Path(path).expanduser()
        return found, os.stat(found).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"data.path={path!r} does not exist{advice}") from None
    except (OSError, ValueError, RuntimeError) as error:  # a name too long or with a null, a folder without access, no such home
        raise UserError(f"cannot read data.path={path!r}: {getattr(error, 'strerror', None) or error}") from None
