"""Checks of the columns of a table, and the choice of some of its rows."""

import struct
from collections.abc import Sequence

import numpy as np

from amgen.config import SnapshotsConfig
from amgen.core.errors import UserError
from amgen.core.randomness import Purpose, derive_seed

LARGEST = 1e30
"""Largest absolute value of a number. Single precision ends at 3e38, and distances are squared in double precision."""


def check_numbers(table: str, column: str, values: np.ndarray, rows: Sequence[int]) -> None:
    """Refuse numbers that are not finite or too large.

    Args:
        table: name of the table.
        column: name of the column.
        values: its numbers, (N,).
        rows: number of each row in the file.

    Raises:
        UserError: naming the first row of such a number.
    """
    wrong = ~(np.abs(values) <= LARGEST)
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{table}, row {rows[row]}, {column}: {values[row]:g}: expected numbers that are finite, at most {LARGEST:g} "
            f"({wrong.sum():,} are not): correct or remove those rows"
        )


def check_masses(table: str, column: str, values: np.ndarray, rows: Sequence[int]) -> None:
    """Refuse masses that are not positive; arguments and errors are those of `check_numbers`."""
    wrong = values <= 0
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{table}, row {rows[row]}, {column}: {values[row]:g}: expected masses that are positive "
            f"({wrong.sum():,} are not): remove those rows"
        )


def trained_on(times: np.ndarray, options: SnapshotsConfig) -> np.ndarray:
    """Return which rows, by their times (N,), are of the times to train on, bool (N,)."""
    return (
        np.isin(times, options.times) if options.times is not None else times != (np.nan if options.hold_out is None else options.hold_out)
    )


def chosen_rows(times: np.ndarray, masses: np.ndarray, options: SnapshotsConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return at most about `data.max_cells` rows of the times to train on, and their masses.

    Every time keeps the same share of its rows, at least one, chosen at random as a function of that time and its number of rows alone.
    Masses are scaled so that each time keeps its total mass. A time that is held out has no influence on the rows of the others.

    Args:
        times: time of each row, (N,).
        masses: mass of each row, (N,).
        options: the options of the table.

    Returns:
        The rows in increasing order, int64 (n,), and their masses, (n,).
    """
    here = int(trained_on(times, options).sum())
    if options.max_cells is None or here <= options.max_cells:
        return np.arange(len(times)), masses
    rows, scaled = [], masses.copy()
    for time in np.unique(times):
        of_time = np.flatnonzero(times == time)
        count = max(1, len(of_time) * options.max_cells // here)
        # Rows of a table whose rows are paired stay paired.
        (index,) = struct.unpack("<q", struct.pack("<d", 0.0 if options.paired else float(time) + 0.0))
        random = np.random.Generator(np.random.Philox(derive_seed(0, Purpose.SUBSAMPLE, index)))
        kept = np.sort(of_time[random.permutation(len(of_time))[:count]])
        scaled[kept] *= masses[of_time].sum() / masses[kept].sum()
        rows.append(kept)
    found = np.sort(np.concatenate(rows))
    return found, scaled[found]
