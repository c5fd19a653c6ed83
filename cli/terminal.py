"""Standard output and standard error: they may be closed, full, or a pipe that nobody reads any more."""

import errno
import io
import os
import sys
from typing import Any

LONGEST = 2_000
"""Most characters of an error message: some quote the contents of a file."""

FAILED = 2
"""Exit code of a command whose output could not be written."""

UNREAD = 128 + 13
"""Exit code of a command whose output nobody reads any more: that of a process that SIGPIPE ends."""


def one_line(message: str) -> str:
    """Return a message as one line that is safe for every terminal: control characters, such as those of file names, are escaped."""
    from amgen.core.errors import printable

    text = printable(message.strip())
    return text if len(text) <= LONGEST else f"{text[: LONGEST * 3 // 4]} [...] {text[-LONGEST // 5 :]}"


def complain(message: str) -> None:
    """Print an error. If standard error cannot be written to, there is no further error."""
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
    """Standard output that may fail, because of a full disk or a closed pipe, while the work goes on.

    A closed pipe is silent, as in other programs: `amgen config | head -1` has all the lines that its user wants.
    This is the layer below all buffers, because libraries put their own buffers above it.

    Attributes:
        code: exit code for the output: 0 while everything could be written, `FAILED`, or `UNREAD` after a closed pipe.
    """

    code = 0

    def write(self, data: Any) -> int:
        """Write; after a failure, everything that follows is dropped."""
        try:
            return super().write(data)
        except OSError as error:
            self.code = UNREAD if error.errno == errno.EPIPE else FAILED
            _point_to_nowhere(1)
            if self.code == FAILED:
                complain(f"standard output cannot be written ({error.strerror}): going on without it")
            return len(data)


def prepare() -> None:
    """Make standard output and error ready for printing, whatever they are.

    Characters that the terminal's encoding does not have are escaped.

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


def finish() -> int:
    """Write what is left in the buffers; return the exit code for the output, 0 if everything was written."""
    sys.stdout.flush()
    return getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "code", 0)


def _fill_closed() -> set[int]:
    """Open /dev/null in place of closed standard streams, because the next opened file would take their place; return their numbers."""
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
