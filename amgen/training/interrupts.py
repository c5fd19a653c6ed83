"""Signals that ask a run to stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass
class StopRequest:
    """Which signal has come, if any."""

    name: str | None = None


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """Note signals instead of ending the process.

    Within the block, SIGINT, SIGTERM and SIGUSR1 only set the request; a second SIGINT ends it at once. Python
    handles signals in its main thread alone; elsewhere nothing is caught.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        if request.name == "SIGINT" and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.name = signal.Signals(number).name

    previous = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
