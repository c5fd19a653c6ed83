"""Signals that ask a run to stop."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
ECHO = 1.0
"""Seconds after Ctrl-C in which a second one is ignored: torchrun forwards the Ctrl-C that the terminal already sent to this process."""


@dataclass
class StopRequest:
    """The request to stop: the name of the received signal, or None."""

    name: str | None = None


@contextmanager
def catch_signals(say: bool = True, launched: bool = False) -> Iterator[StopRequest]:
    """Record signals instead of ending the process.

    Within the block SIGINT, SIGTERM, SIGUSR1 and SIGHUP only set the request; a second SIGINT ends the block at once. Python handles
    signals in its main thread only; in another thread nothing is caught. SIGHUP stays ignored if it was (nohup).

    Args:
        say: whether to answer SIGINT with a line on standard error, since a step may take long.
        launched: whether a launcher started this process. Processes then agree on the step to stop after, and launchers forward the Ctrl-C
            that the terminal also sends here.
    """
    request, owner = StopRequest(), os.getpid()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    interrupted = float("-inf")

    def record(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if os.getpid() != owner:  # in a process forked from this one
            return
        if number == signal.SIGINT:
            now = time.monotonic()
            if launched and now - interrupted < ECHO:
                return
            if interrupted > float("-inf"):
                raise KeyboardInterrupt
            interrupted = now
            if say:  # not by print, which the signal may have interrupted
                when = b"within training.sync_every steps" if launched else b"after this step"
                os.write(2, b"amgen: stopping " + when + b", with a checkpoint; press Ctrl-C again to stop at once without saving\n")
        request.name = signal.Signals(number).name

    caught = [number for number in SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, record) for number in caught}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
