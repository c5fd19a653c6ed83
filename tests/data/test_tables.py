"""Tables of snapshots: what is read, what it weighs, and one clear line for what is wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from amgen.config import SnapshotsConfig
from amgen.core.errors import UserError
from amgen.data import Snapshots, open_dataset
from amgen.data.tables import read_table

RNG = np.random.default_rng(0)
TIMES = np.repeat([0.0, 1.0, 3.0], [4, 6, 2])
POINTS = RNG.normal(size=(12, 3))
MASSES = RNG.uniform(1, 2, 12)


def csv_file(folder: Path, header: str = "day,x,weight,y,z") -> Path:
    """Write the points in a random order of rows, with the masses as the third column."""
    order = RNG.permutation(12)
    rows = [
        f"{TIMES[i]},{POINTS[i, 0]!r},{MASSES[i]!r},{POINTS[i, 1]!r},{POINTS[i, 2]!r}".replace("np.float64(", "").replace(")", "")
        for i in order
    ]
    file = folder / "cells.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def options(path: Path, **changes: object) -> SnapshotsConfig:
    return SnapshotsConfig.model_validate({"path": str(path), "dimension": 3, **changes})


def same(found: Snapshots, dimension: int = 3) -> None:
    assert list(found.times) == [0.0, 1.0, 3.0]
    for time, points in zip(found.times, found.points, strict=True):
        expected = POINTS[time == TIMES][:, :dimension]
        assert sorted(map(tuple, points)) == sorted(map(tuple, expected))


def test_csv(tmp_path: Path) -> None:
    found = read_table(options(csv_file(tmp_path), time_key="day", mass_key="weight"))
    same(found)
    # Weights are m N_k / M_0: their mean at each time is the total mass in units of that of the first time.
    means = [masses.mean() for masses in found.masses]
    np.testing.assert_allclose(means, [MASSES[time == TIMES].sum() / MASSES[TIMES == 0].sum() for time in found.times])
    heaviest = found.points[1][found.masses[1].argmax()]
    np.testing.assert_allclose(heaviest, POINTS[TIMES == 1][MASSES[TIMES == 1].argmax()])


@pytest.mark.parametrize("names", [("times", "points"), ("sample_labels", "pcs")])
def test_npz_in_both_layouts(names: tuple[str, str], tmp_path: Path) -> None:
    np.savez(tmp_path / "cells.npz", **{names[0]: TIMES.astype(int), names[1]: POINTS, "other": np.zeros(2)})
    found = read_table(options(tmp_path / "cells.npz", dimension=2))
    same(found, dimension=2)
    assert all((masses == 1).all() for masses in found.masses)


def test_counts_are_the_mass(tmp_path: Path) -> None:
    np.savez(tmp_path / "cells.npz", times=TIMES, points=POINTS)
    found = read_table(options(tmp_path / "cells.npz", mass_from_counts=True))
    assert [set(masses.tolist()) for masses in found.masses] == [{1.0}, {1.5}, {0.5}]


def test_a_time_is_held_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "cells.npz", times=TIMES, points=POINTS)
    dataset = open_dataset(options(tmp_path / "cells.npz", hold_out=1.0))
    assert dataset.source.times == [0.0, 3.0] == dataset.record()["times"]
    assert dataset.whole.times == [0.0, 1.0, 3.0]
    again = open_dataset(options(tmp_path / "cells.npz", hold_out=1.0, **dataset.record()))
    assert again.source.fingerprint() == dataset.source.fingerprint() != dataset.whole.fingerprint()


def bad_number(folder: Path) -> Path:
    file = csv_file(folder)
    file.write_text(file.read_text().replace("\n3.0,", "\n3.0x,", 1))
    return file


def ragged(folder: Path) -> Path:
    file = csv_file(folder)
    file.write_text(file.read_text() + "1,2\n")
    return file


def archive(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "cells.npz", **{"times": TIMES, "points": POINTS, **arrays})  # type: ignore[arg-type]
    return folder / "cells.npz"


def not_an_archive(folder: Path) -> Path:
    (folder / "cells.npz").write_bytes(b"nonsense")
    return folder / "cells.npz"


def empty(folder: Path) -> Path:
    (folder / "cells.csv").write_text("")
    return folder / "cells.csv"


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (lambda folder: folder / "none.csv", {}, "none.csv' does not exist: give a .csv "),
        (
            lambda folder: csv_file(folder).rename(folder / "cells.loom"),
            {},
            "expected a .csv .*read_loom.*writes an .h5ad",
        ),
        (csv_file, {}, "data.time_key='time': .*cells.csv has no such column: it has day, x, weight, y, z"),
        (csv_file, {"time_key": "day", "mass_key": "wight"}, r"data.mass_key='wight'.*\(did you mean 'weight'\?\)"),
        (csv_file, {"time_key": "day", "dimension": 7}, "data.dimension=7 but .* has 4 columns of features"),
        (bad_number, {"time_key": "day"}, r"cells.csv, row \d+, day: '3.0x' is not a number"),
        (ragged, {"time_key": "day"}, "row 14: 2 values: expected 5, as in the header"),
        (empty, {}, "is empty: expected a header and rows"),
        (not_an_archive, {}, "cannot read .*cells.npz"),
        (lambda folder: archive(folder, points=POINTS[:5]), {}, r"of shape \(12,\) and points of shape \(5, 3\)"),
        (
            lambda folder: archive(folder, points=POINTS * np.nan),
            {},
            r"cells.npz, row 0, points\[:, 0\]: nan: expected numbers that are finite.*\(12 are not\)",
        ),
        (
            lambda folder: archive(folder, m=MASSES - 2),
            {"mass_key": "m"},
            r"row \d+, m: -.*expected masses that are positive \(12 are not\)",
        ),
        (lambda folder: archive(folder, times=TIMES * 0), {}, "holds one time: expected several"),
        (archive, {"paired": True}, "the times of .* have 4, 6, 2 rows: expected the same number of rows at each time"),
        (archive, {"hold_out": 2.0}, "data.hold_out=2: .* has the times 0, 1, 3"),
        (archive, {"hold_out": 3.0}, "data.hold_out=3 is the first or the last time"),
        (archive, {"hold_out": 1.0, "times": [0.0, 1.0]}, "data.hold_out=1 is among data.times"),
        (archive, {"times": [0.0, 2.0]}, "data.times=2: .* has the times 0, 1, 3"),
        (archive, {"origin": [0.0, 0.0, 0.0]}, "data.origin and data.axes go together"),
        (archive, {"origin": [0.0, 0.0], "axes": [[1.0]]}, r"data.axes has shape \(1, 1\): expected \(2, 2\)"),
        (archive, {"origin": [0.0], "axes": [[1.0]]}, "data.origin has 1 numbers: expected data.dimension=3"),
        (archive, {"origin": [0.0, 0.0], "axes": [[1.0, 2.0], [2.0, 4.0]]}, "data.axes is singular"),
        (lambda folder: archive(folder, points=POINTS * [1, 1, 0]), {"standardize": "columns"}, "a column is constant or follows"),
        (lambda folder: archive(folder, points=POINTS[:, [0, 1, 1]]), {"standardize": "whiten"}, "a column is constant or follows"),
    ],
)
def test_mistakes_are_named(make: Callable[[Path], Path], changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        open_dataset(options(make(tmp_path), **changes))
    assert "\n" not in str(caught.value)


def test_an_npz_of_something_else(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=POINTS)
    with pytest.raises(UserError, match="x.npz holds images: expected times and points or sample_labels and pcs"):
        read_table(options(tmp_path / "x.npz"))
