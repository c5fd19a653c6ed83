"""The log of a run: metrics.jsonl, machine.jsonl, trackers, and the live line on the terminal.

metrics.jsonl is a function of the options alone: a run that was killed and resumed has the same file byte for byte. Measurements
of the machine, such as speed, go into machine.jsonl. Trackers get both.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from amgen.core.errors import UserError
from amgen.core.files import write_text


class MetricsFile:
    """One JSON object per line, each with the `step` after which it was written. A resumed run neither loses nor repeats a line."""

    def __init__(self, path: Path, step: int):
        """Open `path` for appending, and remove the lines after `step`, the last saved step.

        Raises:
            UserError: if it is not a text file, or cannot be read or written.
        """
        if path.exists():
            if not path.is_file():
                raise UserError(f"{path} is not a file: move it away and run again")
            try:
                lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"cannot read {path} ({error}): move it away and run again") from None
            write_text(path, "".join(line for line in lines if _step_of(line) <= step))
        try:
            self._file: TextIO = path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._unwritten(path, error) from None

    def write(self, values: dict[str, Any]) -> None:
        """Append a line and hand it to the operating system.

        Raises:
            UserError: if the disk is full.
        """
        try:
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._unwritten(Path(self._file.name), error) from None

    def sync(self) -> None:
        """Flush to the disk.

        Raises:
            UserError: if the disk is full.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritten(Path(self._file.name), error) from None

    def close(self) -> None:
        """Close the file. Complete lines were written already. A partial line after an error is dropped."""
        with suppress(OSError):
            self._file.close()

    def _unwritten(self, path: Path, error: OSError) -> UserError:
        return UserError(f"cannot write {path}: {error.strerror or error}: free some space, or make it writable, and run again")


def _step_of(line: str) -> float:
    """Return the step of a line; infinity for a line that a crash cut off."""
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else float("inf")
    except (ValueError, KeyError, TypeError):
        return float("inf")


class Recorder:
    """Writes the metrics on the main process: files, trackers, and a live line on a terminal, or plain lines without a terminal.

    In the other processes it does nothing.

    Args:
        run: the run directory.
        console: the console for the lines.
        total: images of the whole run.
        step: steps taken so far.
        images: images seen so far.
        enabled: whether this is the main process.
        tell: called with all metrics by name and the images seen, for the trackers.
    """

    def __init__(
        self,
        run: Path,
        console: Console,
        total: int,
        step: int,
        images: int,
        enabled: bool,
        tell: Callable[[dict[str, Any], int], None] | None = None,
    ):
        self._console, self._total, self._enabled, self._tell = console, total, enabled, tell
        self._files: list[MetricsFile] = []
        try:
            for name in ("metrics.jsonl", "machine.jsonl") if enabled else ():
                self._files.append(MetricsFile(run / name, step))
        except UserError:
            self._close()
            raise
        self._progress = Progress(
            TextColumn("{task.completed:,}/{task.total:,} images"),
            BarColumn(),
            TextColumn("{task.fields[metrics]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not (enabled and console.is_terminal),
        )
        self._task: TaskID = self._progress.add_task("", total=total, completed=images, metrics="")

    def step(self, images: int, loss: float, gradient_norm: float) -> None:
        """Update the live line after a step."""
        if self._enabled and self._console.is_terminal:
            speed = self._progress.tasks[0].speed
            rate = f"{speed:,.0f} images/s  " if speed else ""
            metrics = f"{rate}loss {loss:.4g}  gradient norm {gradient_norm:.3g}"
            with suppress(OSError):  # a closed terminal does not end the training
                self._progress.update(self._task, completed=images, metrics=metrics)

    def line(self, metrics: dict[str, Any], machine: dict[str, Any]) -> None:
        """Write a line of metrics, with its `step` and `images`, and a line of measurements of the machine."""
        if not self._enabled:
            return
        place = {"step": metrics["step"], "images": metrics["images"]}
        for file, values in zip(self._files, (metrics, {**place, **machine}), strict=True):
            file.write(values)
        if self._tell is not None:
            try:
                self._tell({key: value for key, value in {**metrics, **machine}.items() if key != "images"}, metrics["images"])
            except Exception as error:  # of any class: the files already hold everything that the trackers get
                self._tell = None
                with suppress(OSError):
                    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                    self._console.print(f"the trackers failed ({reason}): training continues without them", soft_wrap=True, highlight=False)
        if not self._console.is_terminal:
            rate = machine["images_per_second"]
            left = (self._total - metrics["images"]) / rate
            with suppress(OSError):  # nor does a closed pipe
                self._console.print(
                    f"{metrics['images']:,}/{self._total:,} images  loss {metrics['loss']:.4g}  gradient norm "
                    f"{metrics['gradient_norm']:.3g}  {rate:,.0f} images/s  {left / 60:.1f} min left",
                    soft_wrap=True, highlight=False,
                )  # fmt: skip

    def sync(self) -> None:
        """Make sure that the lines are on the disk, before a checkpoint that relies on them."""
        for file in self._files:
            file.sync()

    def __enter__(self) -> "Recorder":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):
            self._progress.stop()
        self._close()

    def _close(self) -> None:
        for file in self._files:
            file.close()
