"""Lines that tell how far long work has come, for every command alike."""

import time
from collections.abc import Callable

from amgen.core.processes import Processes

REPORT_EVERY = 10.0
"""Seconds between two lines."""


class Progress:
    """Reports `done/total noun, rate, time left` on the main process, at most every `REPORT_EVERY` seconds.

    The main process counts its own part of the work and takes the others to be as fast.

    Args:
        total: items of the whole work, all processes together.
        noun: what the items are, such as images.
        say: takes a line.
        processes: those that share the work.
        doing: what is done with them, such as generating; it begins the line.
    """

    def __init__(
        self,
        total: int,
        modality: str,
        say: Callable[[str], None] = print,
        processes: Processes = Processes(),  # noqa: B008 (immutable)
        doing: str = "",
    ):
        self.total, self.modality, self.say, self.processes, self.doing = total, modality, say, processes, doing
        self._done = 0
        self._started = self._reported = time.perf_counter()

    def advance(self, count: int) -> None:
        """Count `count` more items as done by this process, and report if a line is due."""
        self._done += count
        now = time.perf_counter()
        if not self.processes.main or now - self._reported < REPORT_EVERY:
            return
        self._reported = now
        done = min(self.total, self._done * self.processes.count)
        rate = done / (now - self._started)
        left = (self.total - done) / rate
        remaining = f"{left / 60:.1f} min left" if left >= 60 else f"{left:.0f} s left"
        begin = f"{self.doing}: " if self.doing else ""
        self.say(f"{begin}{done:,}/{self.total:,} {self.modality}  {rate:,.1f} {self.modality}/s  {remaining}")
