"""Standard output and standard error, and what may be printed there."""

import io
import os
import sys
from typing import Any

LONGEST = 2_000
"""Most characters of an error message: some quote what was found in a file."""


def one_line(message: str) -> str:
    """Return a message as one line that any terminal may be sent: control characters, such as those of file names, are escaped."""
    from amgen.core.errors import printable

    text = printable(message.strip())
    return text if len(text) <= LONGEST else f"{text[: LONGEST * 3 // 4]} [...] {text[-LONGEST // 5 :]}"


def complain(message: str) -> None:
    """Print an error; a standard error that cannot be written to is no reason for another one."""
    try:
        print(f"amgen: {one_line(message)}", file=sys.stderr, flush=True)
    except OSError:
        _point_to_nowhere(2)


def note(message: str) -> None:
    """Print a line that is no error on standard error, in the first of several processes only."""
    from amgen.core.launch import rank

    if rank() == 0:
        complain(message)


class Output(io.FileIO):
    """Standard output that may be lost, to a full disk or a closed pipe, while the work goes on.

    It is the layer below all buffers, since libraries wrap these as they like.

    Attributes:
        lost: whether it was.
    """

    lost = False

    def write(self, data: Any) -> int:
        """Write, or note that this is impossible; what follows then goes nowhere."""
        try:
            return super().write(data)
        except OSError as error:
            self.lost = True
            _point_to_nowhere(1)
            complain(f"standard output cannot be written ({error.strerror}): going on without it")
            return len(data)


def prepare() -> None:
    """Make standard output and error fit to print on, whatever they are.

    Letters that the terminal's encoding lacks are escaped.

    Raises:
        UserError: if standard output is closed.
    """
    from amgen.core.errors import UserError

    closed = _fill_closed()
    if sys.stderr is None or 2 in closed:
        sys.stderr = open(2, "w", closefd=False, buffering=1, encoding="utf-8")  # noqa: SIM115 (stays open)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    if sys.stdout is None or 1 in closed:
        sys.stdout = open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115 (stays open)
        raise UserError("standard output is closed: give it somewhere to go, such as > /dev/null")
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.fileno() == 1:
        sys.stdout.flush()
        settings: dict[str, Any] = {"encoding": sys.stdout.encoding, "line_buffering": sys.stdout.line_buffering}
        buffer = io.BufferedWriter(Output(1, "w", closefd=False))
        sys.stdout = io.TextIOWrapper(buffer, errors="backslashreplace", **settings)


def finish() -> bool:
    """Write what is left to be written; return whether standard output took all."""
    sys.stdout.flush()
    return not getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "lost", False)


def _fill_closed() -> set[int]:
    """Open /dev/null in place of closed standard streams, which the next file to be opened would else become; return which."""
    filled = set()
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            filled.add(number)
    return filled


def _point_to_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
