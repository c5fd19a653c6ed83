"""The environment variables of launchers such as torchrun; torch is not imported for them."""

import os

from amgen.core.errors import UserError

TIMEOUT = "AMGEN_TIMEOUT"
"""Environment variable: seconds that a process waits for the others. `amgen train` has the option training.timeout instead."""

DEFAULT_TIMEOUT = 600

LONGEST_TIMEOUT = 30 * 24 * 3600


def world_size() -> int:
    """Return the number of processes that a launcher started, 1 without a launcher.

    Raises:
        UserError: if the variables that launchers set contradict each other.
    """
    count = _number("WORLD_SIZE", 1, 1, 1_000_000)
    if count > 1:
        if missing := [name for name in ("RANK", "MASTER_ADDR") if not os.environ.get(name)]:
            raise UserError(
                f"WORLD_SIZE={count} but {' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not set: launch with torchrun, "
                "or unset WORLD_SIZE for a single process"
            )
        rank()
        _number("MASTER_PORT", 29500, 1, 65535)
        _number("LOCAL_RANK", 0, -1, count - 1)
    return count


def rank() -> int:
    """Return the number of this process, from 0; raises as `world_size`."""
    return _number("RANK", 0, 0, _number("WORLD_SIZE", 1, 1, 1_000_000) - 1) if "WORLD_SIZE" in os.environ else 0


def timeout() -> int:
    """Return the number of seconds that a process waits for the others.

    Raises:
        UserError: if the environment variable is not a number in its range.
    """
    return _number(TIMEOUT, DEFAULT_TIMEOUT, 1, LONGEST_TIMEOUT)


def _number(variable: str, default: int, least: int, most: int) -> int:
    text = os.environ.get(variable, "")
    if not text:
        return default
    if not text.removeprefix("-").isdecimal() or len(text) > 12 or not least <= int(text) <= most:
        raise UserError(f"{variable}={text[:40]!r} in the environment: expected an integer from {least:,} to {most:,}, or no such variable")
    return int(text)
