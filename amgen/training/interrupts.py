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
"""Seconds after Ctrl-C in which another one is the same: under torchrun it comes from the terminal and from the launcher."""


@dataclass
class StopRequest:
    """Which signal has come, if any."""

    name: str | None = None


@contextmanager
def catch_signals(say: bool = True, launched: bool = False) -> Iterator[StopRequest]:
    """Note signals instead of ending the process.

    Within the block SIGINT, SIGTERM, SIGUSR1 and SIGHUP only set the request; a second SIGINT ends it at once. Python
    handles signals in its main thread alone; elsewhere nothing is caught. SIGHUP stays ignored where it was (nohup).

    Args:
        say: answer SIGINT with a line on the standard error: a step may take long.
        launched: whether a launcher started this process, which hands on the Ctrl-C that the terminal also sends here.
    """
    request, owner = StopRequest(), os.getpid()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    interrupted = float("-inf")

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if os.getpid() != owner:  # a process forked from this one, which is asked through this one alone
            return
        if number == signal.SIGINT:
            now = time.monotonic()
            if launched and now - interrupted < ECHO:
                return
            if interrupted > float("-inf"):
                raise KeyboardInterrupt
            interrupted = now
            if say:  # not by print, which may be at work right now
                os.write(2, b"amgen: stopping once this step is taken and saved; Ctrl-C again ends at once, without saving\n")
        request.name = signal.Signals(number).name

    caught = [number for number in SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, note) for number in caught}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
