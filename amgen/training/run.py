"""The run directory: opened fresh, resumed, or refused."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amgen import checkpoints, config
from amgen.config import Config
from amgen.errors import UserError
from amgen.files import is_temporary, make_folder, remove_temporaries, write_text

CONFIG = "config.yaml"
CONTENTS = (CONFIG, "metrics.jsonl", "machine.jsonl", "tracking", "samples", "checkpoints", "eval", "report.html")


@contextmanager
def hold(run: Path) -> Iterator[None]:
    """Keep other trainings out of a run directory; the operating system lets go when this process ends, however it does.

    Raises:
        UserError: if another training holds it.
    """
    make_folder(run)
    folder = os.open(run, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another training is at work in {run}: wait for it, stop it, or choose another --run-dir") from None
        except OSError:  # file systems of some clusters lock no folders; then nobody is kept out
            pass
        yield
    finally:
        os.close(folder)


def prepare_run(run: Path, options: Config, restart: bool) -> Path | None:
    """Make `run` ready for training with `options` and return the checkpoint to resume from, or None to start.

    Raises:
        UserError: if the folder holds something else, or a run whose options differ in a way that would change what is learned.
    """
    file = run / CONFIG
    if not file.exists():
        # What a run killed in its first moments was writing is no stranger.
        strangers = [entry.name for entry in run.iterdir() if not is_temporary(entry)]
        if strangers:
            raise UserError(f"{run} is not empty and holds no {CONFIG} (it holds {strangers[0]}): choose another --run-dir")
    elif restart:
        clear_run(run)
    else:
        differences = config.load(str(file)).differences(options)
        if differences:
            changes = ", ".join(f"{key} ({old!r} there, {new!r} now)" for key, (old, new) in differences.items())
            raise UserError(
                f"{run} was trained with other options: {changes}: "
                "choose another --run-dir, or start over with --restart (which deletes that run)"
            )
    remove_temporaries(run)
    write_text(file, options.to_yaml())
    return checkpoints.latest(run)


def clear_run(run: Path) -> None:
    """Delete what a run has written, and nothing else in its folder."""
    for name in CONTENTS:
        entry = run / name
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
