"""Populations seen at several times, and the tables they are read from: csv and npz."""

import csv
import hashlib
import io
import itertools
import math
import os
import re
import stat
import zipfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import torch

from amgen.config import SnapshotsConfig
from amgen.core.decoding import open_regular
from amgen.core.errors import UserError, nearest, printable
from amgen.core.memory import free_bytes

LAYOUTS = (("times", "points"), ("sample_labels", "pcs"))
"""Arrays of an npz that hold times (N,) and features (N, D); the second pair is that of the embryoid-body data in common use."""


LARGEST = 1e30
"""Points are drawn in single precision, which ends at 3e38, and distances between them are squared in double precision."""

MAX_HEADER = 1 << 22
"""Characters of a line above which it is no header."""

DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")


@dataclass
class Snapshots:
    """Points of a population at T times.

    Attributes:
        times: increasing, in a unit of their own.
        points: for each time, float64 (N_k, D); all of the same length where paired.
        masses: for each time, weights of the points, (N_k,); their mean is the total mass, in units of that of the first time.
        description: what and where, for messages and reports.
        paired: whether row i of every time is the same particle.
    """

    times: Sequence[float]
    points: Sequence[np.ndarray]
    masses: Sequence[np.ndarray]
    description: str
    paired: bool = False

    classes: Sequence[str] = ("",)
    """Points have no classes: they are all of one."""

    def select(self, times: Sequence[float]) -> "Snapshots":
        """Return the snapshots at `times` alone.

        Raises:
            UserError: naming a time that there is none of.
        """
        places = [self.place(time, "data.times") for time in times]
        points, masses = ([values[place] for place in places] for values in (self.points, self.masses))
        return Snapshots(list(times), points, masses, self.description, self.paired)

    def place(self, time: float, option: str) -> int:
        """Return the position of a time; `option` names it in the error."""
        if time not in self.times:
            raise UserError(f"{option}={time:g}: {self.description} has the times {_some(f'{known:g}' for known in self.times)}")
        return list(self.times).index(time)

    def fingerprint(self) -> str:
        """Return a hash of all there is, in hexadecimal."""
        digest = hashlib.sha256(np.asarray(self.times, dtype=np.float64).tobytes())
        for values in (*self.points, *self.masses):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


def read_table(options: SnapshotsConfig) -> Snapshots:
    """Read the table that the options name.

    Raises:
        UserError: if there is no such file, or it does not hold what the options say.
    """
    try:
        file = Path(options.path).expanduser()
        mode = os.stat(file).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"data.path={options.path!r} does not exist: give {ACCEPTED}") from None
    except (OSError, ValueError, RuntimeError) as error:  # a name too long or with a null, a folder that may not be entered, no such home
        raise UserError(f"cannot read data.path={options.path!r}: {getattr(error, 'strerror', None) or error}") from None
    ending = file.suffix.lower()
    if not stat.S_ISREG(mode) or ending not in READERS:
        raise UserError(f"data.path={options.path!r}: expected {ACCEPTED}{INSTEAD.get(ending, '')}")
    table = READERS[ending](file, options)
    if len(table.times) == 0:
        raise UserError(f"{table.name} holds no rows: expected points at several times")
    if table.features.shape[1] < options.dimension:
        raise UserError(f"data.dimension={options.dimension} but {table.name} has {table.features.shape[1]} columns of features")
    table.features = table.features[:, : options.dimension]
    _check_values(table)
    return _split(table, options)


@dataclass
class _Table:
    """What a file holds.

    Attributes:
        name: of the file, for messages.
        times: (N,).
        features: (N, D).
        masses: (N,).
        names: what to call a column in an error: the times, each feature, the masses.
        rows: number of each row in the file.
    """

    name: str
    times: np.ndarray
    features: np.ndarray
    masses: np.ndarray
    names: tuple[str, Sequence[str], str]
    rows: Sequence[int]


def _check_values(table: _Table) -> None:
    """Refuse numbers that are not finite or very large, and masses that are not positive."""
    time_name, feature_names, mass_name = table.names
    columns = [(time_name, table.times), (mass_name, table.masses)]
    columns += [(name, table.features[:, place]) for place, name in enumerate(feature_names[: table.features.shape[1]])]
    for name, values in columns:
        wrong = ~(np.abs(values) <= LARGEST)
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(
                f"{table.name}, row {table.rows[row]}, {name}: {values[row]:g}: expected numbers that are finite, at most {LARGEST:g} "
                f"({wrong.sum():,} are not): mend or remove those rows"
            )
    wrong = table.masses <= 0
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{table.name}, row {table.rows[row]}, {mass_name}: {table.masses[row]:g}: expected masses that are positive "
            f"({wrong.sum():,} are not): remove those rows"
        )


def _split(table: _Table, options: SnapshotsConfig) -> Snapshots:
    """Divide rows by their times, and weigh them."""
    known, counts = np.unique(table.times, return_counts=True)
    if len(known) < 2:
        raise UserError(f"{table.name} holds one time: expected several")
    if options.paired and len(set(counts)) > 1:
        raise UserError(f"data.paired, but the times of {table.name} have {_some(counts)} rows: expected as many each")
    order = np.argsort(table.times, kind="stable")
    ends = np.cumsum(counts)[:-1]
    points, masses = np.split(table.features[order], ends), np.split(table.masses[order], ends)
    # A row is drawn with chance 1/N_k and stands for the mass m: weighed by m N_k / M_0, the first time has mass 1 in all.
    total = masses[0].sum()
    shares = [here * len(here) / total if options.weighted else np.ones(len(here)) for here in masses]
    return Snapshots(known.tolist(), points, shares, table.name, options.paired)


def _read_npz(file: Path, options: SnapshotsConfig) -> _Table:
    name = printable(options.path)
    try:
        with open_regular(file) as opened, zipfile.ZipFile(opened) as archive:
            names = [entry[:-4] for entry in archive.namelist() if entry.endswith(".npy")]
            layout = next((layout for layout in LAYOUTS if set(layout) <= set(names)), None)
            if layout is None:
                wanted = " or ".join(f"{times} and {points}" for times, points in LAYOUTS)
                raise UserError(f"{name} holds {_some(names) or 'nothing'}: expected {wanted}")
            if options.mass_column is not None and options.mass_column not in names:
                raise UserError(f"{name} has no array {options.mass_column!r}{nearest(options.mass_column, names)}: it has {_some(names)}")
            times, features = (_array(archive, key, name) for key in layout)
            masses = np.ones(times.shape) if options.mass_column is None else _array(archive, options.mass_column, name)
    except UserError:
        raise
    # Of damaged archives zipfile and NumPy raise all sorts: BadZipFile, EOFError, zlib.error, RuntimeError, SyntaxError of a header.
    except Exception as error:
        reason = getattr(error, "strerror", None) or _shorten(str(error)) or type(error).__name__
        raise UserError(f"cannot read {name}: {reason}: expected an .npz as NumPy writes it") from None
    if features.ndim != 2 or times.shape != features.shape[:1]:
        raise UserError(
            f"{name} holds {layout[0]} of shape {times.shape} and {layout[1]} of shape {features.shape}: expected (N,) and (N, D)"
        )
    if masses.shape != times.shape:
        raise UserError(
            f"{name} holds {options.mass_column} of shape {masses.shape} and {layout[0]} of shape {times.shape}: expected the same"
        )
    columns = [f"{layout[1]}[:, {column}]" for column in range(features.shape[1])]
    return _Table(name, times, features, masses, (layout[0], columns, options.mass_column or ""), range(len(times)))


def _array(archive: zipfile.ZipFile, key: str, name: str) -> np.ndarray:
    """Read an array of an .npz as float64, after a look at what it says of itself: it may ask for more memory than there is."""
    member = archive.getinfo(f"{key}.npy")
    with archive.open(member) as opened:
        version = np.lib.format.read_magic(opened)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(opened)
    if dtype.kind not in "iufb":
        raise UserError(f"{name}: the array {key} is of type {_shorten(str(dtype))}: expected real numbers")
    count = math.prod(shape)
    if count * dtype.itemsize > member.file_size:
        raise UserError(f"{name}: the array {key} says that its shape is {shape}, and the file holds {member.file_size:,} bytes of it")
    if max(8, dtype.itemsize) * count > free_bytes(torch.device("cpu")):
        raise UserError(f"{name}: the array {key} of shape {shape} does not fit into memory")
    with archive.open(member) as opened:
        return np.asarray(np.lib.format.read_array(opened, allow_pickle=False), dtype=np.float64)


def _read_csv(file: Path, options: SnapshotsConfig) -> _Table:
    name = printable(options.path)
    try:
        with open_regular(file) as raw:
            if raw.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                raise UserError(f"{name} is UTF-16: save it as UTF-8")
            raw.seek(0)
            with io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as opened:
                return _parse_csv(opened, name, options)
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 (byte {error.object[error.start]:#x}): save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror or error}") from None


def _parse_csv(opened: TextIO, name: str, options: SnapshotsConfig) -> _Table:
    """Parse a table whose columns are separated by what separates its header: commas, semicolons or tabs."""
    first = opened.readline(MAX_HEADER)
    if len(first) == MAX_HEADER:
        raise UserError(f"{name} has a first line of more than {MAX_HEADER:,} characters: expected a header")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(itertools.chain([first], opened), delimiter=delimiter, strict=True)
    values, numbers = array("d"), array("q")
    try:
        header = [column.strip() for column in next(reader, [])]
        _check_header(header, name, options)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise UserError(f"{name}, row {reader.line_num}: {len(row)} values: expected {len(header)}, as in the header")
            values.extend(_number(value, name, reader.line_num, column) for value, column in zip(row, header, strict=True))
            numbers.append(reader.line_num)
    except csv.Error as error:
        raise UserError(f"{name}, row {reader.line_num}: {error}: is a quote open?") from None
    table = np.asarray(values, dtype=np.float64).reshape(len(numbers), len(header))
    special = [header.index(column) for column in (options.time_column, options.mass_column) if column is not None]
    masses = np.ones(len(table)) if options.mass_column is None else table[:, special[1]]
    features = [printable(column) for place, column in enumerate(header) if place not in special]
    names = (printable(options.time_column), features, printable(options.mass_column or ""))
    return _Table(name, table[:, special[0]], np.delete(table, special, axis=1), masses, names, numbers)


def _check_header(header: Sequence[str], name: str, options: SnapshotsConfig) -> None:
    if not any(header):
        raise UserError(f"{name} is empty: expected a header and rows")
    if "" in header:
        raise UserError(f"{name}: column {header.index('') + 1} has no name (an index that pandas wrote?): name it, or leave it out")
    twice = sorted(column for column, count in Counter(header).items() if count > 1)
    if twice:
        raise UserError(f"{name} has several columns of the name {_some(twice)}: rename them or leave them out")
    for option, column in (("data.time_column", options.time_column), ("data.mass_column", options.mass_column)):
        if column is not None and column not in header:
            raise UserError(f"{option}={column!r}: {name} has no such column{nearest(column, header)}: it has {_some(header)}")
    if options.time_column == options.mass_column:
        raise UserError(f"data.time_column and data.mass_column are both {options.time_column!r}: expected two columns")


def _number(value: str, name: str, row: int, column: str) -> float:
    try:
        return float(value)
    except ValueError:
        comma = " (write a decimal point)" if DECIMAL_COMMA.fullmatch(value) else ""
        open_quote = " (is a quote open?)" if "\n" in value else ""
        raise UserError(f"{name}, row {row}, {_shorten(column)}: {_shorten(value)!r} is not a number{comma}{open_quote}") from None


def _shorten(text: str, length: int = 60) -> str:
    text = printable(text)
    return text if len(text) <= length else f"{text[:length]}..."


def _some(words: Iterable[object]) -> str:
    """Return the first of many words, for a message."""
    shown = [_shorten(str(word)) for word in words]
    return ", ".join(shown[:10]) + (f" and {len(shown) - 10:,} more" if len(shown) > 10 else "")


READERS: dict[str, Callable[[Path, SnapshotsConfig], _Table]] = {".npz": _read_npz, ".csv": _read_csv, ".tsv": _read_csv, ".txt": _read_csv}
"""By a file's ending."""

ACCEPTED = "a .csv (or .tsv, .txt) or .npz of points at several times"

INSTEAD = {
    ".h5ad": "; of an AnnData file save times and points by numpy.savez",
    ".parquet": "; pandas.read_parquet(...).to_csv(..., index=False) writes a .csv",
    ".npy": "; numpy.savez writes an .npz",
}
"""What to do about tables of other kinds."""
