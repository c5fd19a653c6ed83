"""Snapshots of a population at several times, and the tables that they are read from: .csv, .npz and AnnData files."""

import csv
import hashlib
import io
import itertools
import math
import re
import stat
import zipfile
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import torch

from amgen.config import SnapshotsConfig
from amgen.core.decoding import open_regular
from amgen.core.errors import UserError, nearest, printable
from amgen.core.memory import free_bytes
from amgen.data.annotated import read_annotated
from amgen.data.checking import check_masses, check_numbers, chosen_rows
from amgen.data.loadings import Loadings
from amgen.data.locating import locate
from amgen.data.messages import first_few, shortened

LAYOUTS = (("times", "points"), ("sample_labels", "pcs"))
"""Names of the arrays of an .npz that hold times (N,) and features (N, D). The second pair is that of the embryoid-body data set."""

MAX_HEADER = 1 << 22
"""Most characters of a header."""

DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")
"""A number with a comma where a point is expected."""


@dataclass
class Snapshots:
    """Points of a population at several times.

    Attributes:
        times: increasing, in any unit.
        points: for each time k, float64 (N_k, D); if paired, N_k is the same for all k.
        masses: for each time k, weights of the points, (N_k,). Their mean is the total mass, in units of that of the first time.
        description: what the points are and where they come from, for messages and reports.
        paired: whether row i of every time is the same particle.
        loadings: mean and loadings of principal components that were computed from gene expression, or None.
    """

    times: Sequence[float]
    points: Sequence[np.ndarray]
    masses: Sequence[np.ndarray]
    description: str
    paired: bool = False
    loadings: Loadings | None = None

    classes: Sequence[str] = ("",)
    """Points have no classes: all of them are of one class."""

    def select(self, times: Sequence[float]) -> "Snapshots":
        """Return the snapshots at `times` only.

        Raises:
            UserError: naming a time that has no snapshot.
        """
        places = [self.place(time, "data.times") for time in times]
        points, masses = ([values[place] for place in places] for values in (self.points, self.masses))
        return Snapshots(list(times), points, masses, self.description, self.paired, self.loadings)

    def place(self, time: float, option: str) -> int:
        """Return the position of a time.

        Args:
            time: the time.
            option: the option that asks for it, for the error.

        Raises:
            UserError: if there is no snapshot at that time.
        """
        if time not in self.times:
            raise UserError(f"{option}={time:g}: {self.description} has the times {first_few(f'{known:g}' for known in self.times)}")
        return list(self.times).index(time)

    def fingerprint(self) -> str:
        """Return a hash of all times, points and masses, in hexadecimal."""
        digest = hashlib.sha256(np.asarray(self.times, dtype=np.float64).tobytes())
        for values in (*self.points, *self.masses):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


def read_table(options: SnapshotsConfig, say: Callable[[str], None] | None = None, loadings: Loadings | None = None) -> Snapshots:
    """Read the table that the options name.

    Args:
        options: the section `data` of a configuration.
        say: takes a line about gene expression that looks like raw counts.
        loadings: for `data.embedding=pca` the loadings of a run, which are computed from the table otherwise.

    Raises:
        UserError: if there is no such file, or it does not hold what the options say.

    Example:
        >>> from pathlib import Path
        >>> from amgen.config import SnapshotsConfig
        >>> from amgen.data.tables import read_table
        >>> _ = Path("cells.csv").write_text("day,gene_1,gene_2\\n0,1.0,2.0\\n0,1.5,2.5\\n3,4.0,0.5\\n")
        >>> cells = read_table(SnapshotsConfig(path="cells.csv", time_key="day", dimension=2))
        >>> cells.times
        [0.0, 3.0]
        >>> [points.shape for points in cells.points]
        [(2, 2), (1, 2)]
    """
    return _split(read_cells(options, say, loadings), options)


def read_cells(options: SnapshotsConfig, say: Callable[[str], None] | None = None, loadings: Loadings | None = None) -> "Table":
    """Read and check the rows of the table, in its order, which may be of one time only. Arguments and errors are those of `read_table`."""
    table = _read(options, say, loadings)
    if len(table.times) == 0:
        raise UserError(f"{table.name} holds no rows: expected points at several times")
    if table.features.shape[1] < options.dimension:
        raise UserError(f"data.dimension={options.dimension} but {table.name} has {table.features.shape[1]} columns of features")
    table.features = table.features[:, : options.dimension]
    _check_values(table)
    return table


def _read(options: SnapshotsConfig, say: Callable[[str], None] | None, loadings: Loadings | None) -> "Table":
    """Read the rows that `data.max_cells` leaves."""
    file, mode = locate(options.path, f": give {ACCEPTED}")
    extension = file.suffix.lower()
    if (extension == ".h5ad" and stat.S_ISREG(mode)) or (extension == ".zarr" and stat.S_ISDIR(mode)):
        read = read_annotated(file, options, say, loadings)
        return Table(printable(options.path), read.times, read.features, read.masses, read.names, read.rows, read.loadings)
    if not stat.S_ISREG(mode) or extension not in READERS:
        raise UserError(f"data.path={options.path!r}: expected {ACCEPTED}{ADVICE.get(extension, '')}")
    if options.embedding is not None:
        raise UserError(f"data.embedding={options.embedding!r} is for AnnData files, and {printable(options.path)} is none: leave it out")
    table = READERS[extension](file, options)
    if options.max_cells is not None:
        _check_values(table)
        rows, table.masses = chosen_rows(table.times, table.masses, options)
        table.times, table.features, table.rows = table.times[rows], table.features[rows], [table.rows[row] for row in rows]
    return table


@dataclass
class Table:
    """The rows of a file.

    Attributes:
        name: name of the file, for messages.
        times: float64 (N,).
        features: float64 (N, D).
        masses: float64 (N,).
        names: names of the columns for messages: of the times, of each feature, of the masses.
        rows: number of each row in the file, for messages.
        loadings: of principal components, or None.
    """

    name: str
    times: np.ndarray
    features: np.ndarray
    masses: np.ndarray
    names: tuple[str, Sequence[str], str]
    rows: Sequence[int]
    loadings: Loadings | None = None


def _check_values(table: Table) -> None:
    """Refuse numbers that are not finite or too large, and masses that are not positive."""
    time_name, feature_names, mass_name = table.names
    columns = [(time_name, table.times), (mass_name, table.masses)]
    columns += [(name, table.features[:, place]) for place, name in enumerate(feature_names[: table.features.shape[1]])]
    for name, values in columns:
        check_numbers(table.name, name, values, table.rows)
    check_masses(table.name, mass_name, table.masses, table.rows)


def _split(table: Table, options: SnapshotsConfig) -> Snapshots:
    """Split the rows by time, and compute their masses."""
    known, counts = np.unique(table.times, return_counts=True)
    if len(known) < 2:
        raise UserError(f"{table.name} holds one time: expected several")
    if options.paired and len(set(counts)) > 1:
        raise UserError(
            f"data.paired, but the times of {table.name} have {first_few(counts)} rows: expected the same number of rows at each time"
        )
    order = np.argsort(table.times, kind="stable")
    ends = np.cumsum(counts)[:-1]
    points, masses = np.split(table.features[order], ends), np.split(table.masses[order], ends)
    # A row is sampled with probability 1 / N_k and has the mass m. With the weight m N_k / M_0, the first time has a total mass of 1.
    total = masses[0].sum()
    shares = [here * len(here) / total if options.weighted else np.ones(len(here)) for here in masses]
    return Snapshots(known.tolist(), points, shares, table.name, options.paired, table.loadings)


def _read_npz(file: Path, options: SnapshotsConfig) -> Table:
    name = printable(options.path)
    try:
        with open_regular(file) as opened, zipfile.ZipFile(opened) as archive:
            names = [entry[:-4] for entry in archive.namelist() if entry.endswith(".npy")]
            layout = next((layout for layout in LAYOUTS if set(layout) <= set(names)), None)
            if layout is None:
                wanted = " or ".join(f"{times} and {points}" for times, points in LAYOUTS)
                raise UserError(f"{name} holds {first_few(names) or 'nothing'}: expected {wanted}")
            if options.mass_key is not None and options.mass_key not in names:
                close = nearest(options.mass_key, names)
                raise UserError(f"{name} has no array data.mass_key={options.mass_key!r}{close}: it has {first_few(names)}")
            times, features = (_array(archive, key, name) for key in layout)
            masses = np.ones(times.shape) if options.mass_key is None else _array(archive, options.mass_key, name)
    except UserError:
        raise
    # For damaged archives zipfile and NumPy raise many classes of errors: BadZipFile, EOFError, zlib.error, RuntimeError, SyntaxError.
    except Exception as error:
        reason = getattr(error, "strerror", None) or shortened(str(error)) or type(error).__name__
        raise UserError(f"cannot read {name}: {reason}: expected an .npz as NumPy writes it") from None
    if features.ndim != 2 or times.shape != features.shape[:1]:
        raise UserError(
            f"{name} holds {layout[0]} of shape {times.shape} and {layout[1]} of shape {features.shape}: expected (N,) and (N, D)"
        )
    if masses.shape != times.shape:
        raise UserError(
            f"{name} holds {options.mass_key} of shape {masses.shape} and {layout[0]} of shape {times.shape}: expected the same"
        )
    columns = [f"{layout[1]}[:, {column}]" for column in range(features.shape[1])]
    return Table(name, times, features, masses, (layout[0], columns, options.mass_key or ""), range(len(times)))


def _array(archive: zipfile.ZipFile, key: str, name: str) -> np.ndarray:
    """Read an array of an .npz as float64. Its header is checked first, since it may ask for more memory than there is."""
    member = archive.getinfo(f"{key}.npy")
    with archive.open(member) as opened:
        version = np.lib.format.read_magic(opened)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(opened)
    if dtype.kind not in "iufb":
        raise UserError(f"{name}: the array {key} is of type {shortened(str(dtype))}: expected real numbers")
    count = math.prod(shape)
    if count * dtype.itemsize > member.file_size:
        raise UserError(
            f"{name}: the array {key} has the shape {shape} by its header, but only {member.file_size:,} bytes: save the file again"
        )
    if max(8, dtype.itemsize) * count > free_bytes(torch.device("cpu")):
        raise UserError(f"{name}: the array {key} of shape {shape} does not fit into memory: save fewer rows or columns")
    with archive.open(member) as opened:
        return np.asarray(np.lib.format.read_array(opened, allow_pickle=False), dtype=np.float64)


def _read_csv(file: Path, options: SnapshotsConfig) -> Table:
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


def _parse_csv(opened: TextIO, name: str, options: SnapshotsConfig) -> Table:
    """Parse a table. The separator is the most frequent one in its header: comma, semicolon or tab."""
    first = opened.readline(MAX_HEADER)
    if len(first) == MAX_HEADER:
        raise UserError(f"{name} has a first line of more than {MAX_HEADER:,} characters: expected a header with the names of the columns")
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
    special = [header.index(column) for column in (options.time_key, options.mass_key) if column is not None]
    masses = np.ones(len(table)) if options.mass_key is None else table[:, special[1]]
    features = [printable(column) for place, column in enumerate(header) if place not in special]
    names = (printable(options.time_key), features, printable(options.mass_key or ""))
    return Table(name, table[:, special[0]], np.delete(table, special, axis=1), masses, names, numbers)


def _check_header(header: Sequence[str], name: str, options: SnapshotsConfig) -> None:
    if not any(header):
        raise UserError(f"{name} is empty: expected a header and rows")
    if "" in header:
        raise UserError(f"{name}: column {header.index('') + 1} has no name (an index that pandas wrote?): name it, or leave it out")
    twice = sorted(column for column, count in Counter(header).items() if count > 1)
    if twice:
        raise UserError(f"{name} has several columns of the name {first_few(twice)}: rename them or leave them out")
    for option, column in (("data.time_key", options.time_key), ("data.mass_key", options.mass_key)):
        if column is not None and column not in header:
            raise UserError(f"{option}={column!r}: {name} has no such column{nearest(column, header)}: it has {first_few(header)}")
    if options.time_key == options.mass_key:
        raise UserError(f"data.time_key and data.mass_key are both {options.time_key!r}: expected two columns")


def _number(value: str, name: str, row: int, column: str) -> float:
    try:
        return float(value)
    except ValueError:
        comma = " (write a decimal point)" if DECIMAL_COMMA.fullmatch(value) else ""
        open_quote = " (is a quote open?)" if "\n" in value else ""
        raise UserError(f"{name}, row {row}, {shortened(column)}: {shortened(value)!r} is not a number{comma}{open_quote}") from None


READERS: dict[str, Callable[[Path, SnapshotsConfig], Table]] = {".npz": _read_npz, ".csv": _read_csv, ".tsv": _read_csv, ".txt": _read_csv}
"""Functions that read a table, by the extension of the file."""

ACCEPTED = "a .csv (or .tsv, .txt), .npz or .h5ad of points at several times"

ADVICE = {
    ".zarr": "; the folder that adata.write_zarr makes, or an .h5ad",
    ".loom": "; anndata.io.read_loom(...).write_h5ad(...) writes an .h5ad",
    ".parquet": "; pandas.read_parquet(...).to_csv(..., index=False) writes a .csv",
    ".npy": "; numpy.savez writes an .npz",
}
"""What to do with tables of other formats, by extension."""
