"""Progress of long work in lines, the same for every command."""

import time
from collections.abc import Callable

from amgen.core.processes import Processes

REPORT_EVERY = 10.0
"""Seconds between two lines."""


class Progress:
    """Reports `done/total`, rate and time left on the main process, at most once every `REPORT_EVERY` seconds.

    The main process counts its own part of the work and assumes that the others are as fast.

    Args:
        total: number of items, all processes together.
        unit: name of the items, such as images.
        say: takes a line.
        processes: the processes that share the work.
        doing: first words of the line, such as "sampling".
    """

    def __init__(
        self,
        total: int,
        unit: str,
        say: Callable[[str], None] = print,
        processes: Processes = Processes(),  # noqa: B008 (immutable)
        doing: str = "",
    ):
        self.total, self.unit, self.say, self.processes, self.doing = total, unit, say, processes, doing
        self._done = 0
        self._started = self._reported = time.perf_counter()

    def advance(self, count: int) -> None:
        """Count `count` more items of this process as done, and report if the last report is old enough."""
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
        self.say(f"{begin}{done:,}/{self.total:,} {self.unit}  {rate:,.1f} {self.unit}/s  {remaining}")
