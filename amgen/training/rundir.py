"""The run directory: created, resumed, or refused."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from amgen import config
from amgen.config import Config
from amgen.core.errors import UserError
from amgen.core.files import is_temporary, locked, make_folder, remove_temporaries, write_text
from amgen.data.loadings import FILE as LOADINGS
from amgen.model import checkpoints

CONFIG = "config.yaml"
LOCK = ".lock"
"""A file of the run directory, locked while a training writes there. Folders cannot be locked on network file systems."""
CONTENTS = (CONFIG, LOADINGS, "metrics.jsonl", "machine.jsonl", "tracking", "samples", "checkpoints", "eval", "report.html")


@contextmanager
def lock(run: Path, say: Callable[[str], None] = print) -> Iterator[None]:
    """Lock a run directory against other trainings. The operating system releases the lock when this process ends, even if it is killed.

    If the file system has no locks, a line says so and nothing is locked.

    Raises:
        UserError: if another training has locked it.
    """
    file = locked(make_folder(run) / LOCK)
    try:
        possible = file.__enter__()
    except BlockingIOError:
        raise UserError(f"another training writes to {run}: wait for it, stop it, or choose another --run-dir") from None
    with ExitStack() as stack:
        stack.push(file)
        if not possible:
            say(f"the file system of {run} has no locks: make sure that no other training writes there")
        yield


def prepare_run(run: Path, options: Config, restart: bool) -> Path | None:
    """Make `run` ready for training with `options` and return the checkpoint to resume from, or None to start.

    Raises:
        UserError: if the folder holds something else, or a run whose options differ in a way that would change what is learned.
    """
    file = run / CONFIG
    if not file.exists():
        # Temporary files are those of a run that was killed while it started.
        unknown = [entry.name for entry in run.iterdir() if entry.name != LOCK and not is_temporary(entry)]
        if unknown:
            raise UserError(f"{run} is not empty and holds no {CONFIG} (it holds {unknown[0]}): choose another --run-dir")
    elif restart:
        clear_run(run)
    else:
        differences = config.load(str(file)).differences(options)
        if differences:
            raise UserError(
                f"{run} was trained with other options: {_described(differences, options)}: "
                "choose another --run-dir, or start over with --restart (which deletes that run)"
            )
    remove_temporaries(run)
    write_text(file, options.to_yaml())
    return checkpoints.latest(run)


MEASURED = ("data.times", "data.origin", "data.axes")
"""Options of populations that are measured from the table unless they are given."""
SHOWN = 60
"""Most characters of an option's value in an error."""


def _described(differences: dict[str, tuple[Any, Any]], options: Config) -> str:
    """Return the differences on one line. Options measured from the data are only named."""
    parts = []
    for key, values in differences.items():
        if key in MEASURED:
            continue
        old, new = (text if len(text := repr(value)) <= SHOWN else f"{text[:SHOWN]}..." for value in values)
        parts.append(f"{key} ({old} there, {new} now)")
        if key == "training.images" and options.training.decay:
            parts[-1] += (
                f", which cannot be changed because training.decay={options.training.decay:g} made the learning rate fall towards the end"
            )
    if measured := [key for key in MEASURED if key in differences]:
        parts.append(f"the table changed ({', '.join(measured)} of {getattr(options.data, 'path', options.data.kind)} differ now)")
    return ", ".join(parts)


def clear_run(run: Path) -> None:
    """Delete the files that a run has written, and nothing else in its folder."""
    for name in CONTENTS:
        entry = run / name
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
