"""What the benchmarks share: timing of several works in turn; tables, conditions and options are those of the experiments."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))  # where `common` lies, which both folders share

from common import (
    add_outputs,
    counted,
    describe_machine,
    new_parser,
    parse,
    print_conditions,
    print_table,
    progress,
    save_report,
    script,
    seconds,
)

__all__ = [
    "Work",
    "add_outputs",
    "counted",
    "describe_machine",
    "in_turn",
    "new_parser",
    "parse",
    "print_conditions",
    "print_table",
    "progress",
    "save_report",
    "script",
    "seconds",
]

Work = Callable[[], object]


def in_turn(works: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Return the seconds that each work takes, one number a round. Works take turns, so that all see the same machine."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    return times
