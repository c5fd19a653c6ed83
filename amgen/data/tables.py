"""Populations seen at several times, and the tables they are read from: csv and npz."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from amgen.config import SnapshotsConfig
from amgen.errors import UserError, unknown

LAYOUTS = (("times", "points"), ("sample_labels", "pcs"))
"""Arrays of an npz that hold times (N,) and features (N, D); the second pair is that of the embryoid-body data in common use."""


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
            raise UserError(f"{option}={time:g}: {self.description} has the times {', '.join(f'{known:g}' for known in self.times)}")
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
    file = Path(options.path).expanduser()
    if not file.is_file():
        raise UserError(f"data.path={options.path!r} does not exist: give a .csv or .npz of points at several times")
    if file.suffix.lower() not in (".csv", ".npz"):
        raise UserError(f"data.path={options.path!r}: expected a .csv or .npz of points at several times")
    times, features, masses = (_read_npz if file.suffix.lower() == ".npz" else _read_csv)(file, options)
    if features.shape[1] < options.dimension:
        raise UserError(f"data.dimension={options.dimension} but {file} has {features.shape[1]} columns of features")
    points = features[:, : options.dimension]
    if not (np.isfinite(points).all() and np.isfinite(times).all() and np.isfinite(masses).all()):
        raise UserError(f"{file} holds numbers that are not finite: remove those rows")
    if (masses <= 0).any():
        raise UserError(f"{file} holds masses that are not positive: remove those rows")
    return _split(times, points, masses, options)


def _split(times: np.ndarray, points: np.ndarray, masses: np.ndarray, options: SnapshotsConfig) -> Snapshots:
    """Divide rows by their times, and weigh them."""
    known, counts = np.unique(times, return_counts=True)
    if len(known) < 2:
        raise UserError(f"{options.path} holds one time: expected several")
    if options.paired and len(set(counts)) > 1:
        raise UserError(f"data.paired, but the times of {options.path} have {', '.join(map(str, counts))} rows: expected as many each")
    rows = [times == time for time in known]
    # A row is drawn with chance 1/N_k and stands for the mass m: weighed by m N_k / M_0, the first time has mass 1 in all.
    total = masses[rows[0]].sum()
    shares = [masses[here] * here.sum() / total if options.weighted else np.ones(here.sum()) for here in rows]
    return Snapshots(known.tolist(), [points[here] for here in rows], shares, options.path, options.paired)


def _read_npz(file: Path, options: SnapshotsConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        with np.load(file) as archive:
            layout = next((names for names in LAYOUTS if all(name in archive for name in names)), None)
            if layout is None:
                wanted = " or ".join(f"{times} and {points}" for times, points in LAYOUTS)
                raise UserError(f"{file} holds {', '.join(archive) or 'nothing'}: expected {wanted}")
            times, features = (np.asarray(archive[name], dtype=np.float64) for name in layout)
            masses = np.ones(len(times)) if options.mass_column is None else _array(archive, options.mass_column, file)
    except (OSError, ValueError, BadZipFile, TypeError) as error:
        raise UserError(f"cannot read {file}: {error}") from None
    if features.ndim != 2 or times.shape != features.shape[:1] or masses.shape != times.shape:
        raise UserError(
            f"{file} holds {layout[0]} of shape {times.shape} and {layout[1]} of shape {features.shape}: expected (N,) and (N, D)"
        )
    return times, features, masses


def _array(archive: Mapping[str, np.ndarray], name: str, file: Path) -> np.ndarray:
    if name not in archive:
        raise unknown(f"array in {file}", name, archive)
    return np.asarray(archive[name], dtype=np.float64)


def _read_csv(file: Path, options: SnapshotsConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            header, *rows = [row for row in csv.reader(opened) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {file}: {error}") from None
    except ValueError:
        raise UserError(f"{file} is empty: expected a header and rows") from None
    for name in (options.time_column, options.mass_column):
        if name is not None and name not in header:
            raise unknown(f"column of {file}", name, header)
    table = np.empty((len(rows), len(header)))
    for number, row in enumerate(rows, start=2):
        try:
            table[number - 2] = [float(value) for value in row]
        except ValueError as error:
            raise UserError(f"{file}, row {number}: {error}: expected {len(header)} numbers") from None
    special = [header.index(name) for name in (options.time_column, options.mass_column) if name is not None]
    masses = np.ones(len(rows)) if options.mass_column is None else table[:, special[1]]
    return table[:, special[0]], np.delete(table, special, axis=1), masses
