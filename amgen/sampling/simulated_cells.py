"""Cells that are simulated from one time to others, written as a table."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from amgen.config import SamplingConfig, SnapshotsConfig
from amgen.core.errors import UserError, printable
from amgen.core.files import replacing
from amgen.data.annotated import DEFAULT_EMBEDDING, require
from amgen.data.messages import first_few
from amgen.data.tables import read_cells
from amgen.model.trained import TrainedAction
from amgen.sampling.annotation import basis_of, writing
from amgen.sampling.cells import carry


def simulate_cells(
    model: TrainedAction,
    options: SnapshotsConfig,
    start: float,
    times: Sequence[float],
    out: Path,
    seed: int = 0,
    sampling: SamplingConfig | None = None,
) -> tuple[int, int, float, str | None]:
    """Simulate the cells of one time of a table to other times, and write them as .h5ad, .npz or .csv.

    Args:
        model: a model of a population.
        options: the table and its columns, as `data_options` returns them.
        start: time of the cells.
        times: where to write them, all at or after `start`, or all at or before it.
        out: file to write.
        seed: seed of the noise.
        sampling: settings of the solver; by default those of the run.

    Returns:
        The numbers of cells and of gradients evaluated, the total mass at the last of the times divided by that at the start, and a line
        if many cells left the neighbourhood of the training data.

    Raises:
        UserError: if there are no cells of that time, or they cannot be carried to `times`.
    """
    name = printable(options.path)
    if out.suffix.lower() == ".h5ad":
        require("anndata", str(out))
    cells = read_cells(options, None, model.loadings)
    rows = np.flatnonzero(cells.times == start)
    if not len(rows):
        known = first_few(f"{time:g}" for time in np.unique(cells.times))
        raise UserError(f"--from {start:g}: no cell of {name} is of that time: it has {known}")
    found = carry(model, cells.features[rows], start, times, seed, sampling)
    count, frames = len(rows), len(found.times)
    gained = found.log_weights.numpy()
    masses = np.asarray(cells.masses)[rows] * np.exp(gained)
    columns = {
        "times": np.repeat(np.asarray(found.times, dtype=np.float64), count),
        "source": np.tile(np.asarray(cells.rows)[rows], frames),
        "log_weight": gained.reshape(-1),
        "mass": masses.reshape(-1),
    }
    points = found.points.numpy().reshape(count * frames, -1)
    about = {
        "weights": model.weights,
        "weights_sha256": model.weights_sha256,
        "checkpoint": str(model.source),
        "data": name,
        "from": f"{start:g}",
        "seed": str(seed),
        "NFE": str(found.evaluations),
        "embedding": options.embedding or DEFAULT_EMBEDDING,
    }
    with replacing(out) as temporary:
        WRITERS[out.suffix.lower()](temporary, out, columns, points, about, basis_of(options))
    return count, found.evaluations, float(masses[-1].sum() / np.asarray(cells.masses)[rows].sum()), found.warning


def _write_npz(file: Path, out: Path, columns: Mapping[str, np.ndarray], points: np.ndarray, about: Mapping[str, str], basis: str) -> None:
    with file.open("wb") as opened:
        np.savez(opened, allow_pickle=False, points=points, **columns, about=np.array(json.dumps(dict(about))))


def _write_csv(file: Path, out: Path, columns: Mapping[str, np.ndarray], points: np.ndarray, about: Mapping[str, str], basis: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["time", *list(columns)[1:], *(f"x{place + 1}" for place in range(points.shape[1]))])
    writer.writerows([*row, *point] for *row, point in zip(*(values.tolist() for values in columns.values()), points.tolist(), strict=True))
    file.write_text(text.getvalue(), encoding="utf-8")


def _write_h5ad(file: Path, out: Path, columns: Mapping[str, np.ndarray], points: np.ndarray, about: Mapping[str, str], basis: str) -> None:
    with writing(out):
        import anndata
        import pandas as pd

        names = [f"{source}@{time:g}" for source, time in zip(columns["source"], columns["times"], strict=True)]
        table = pd.DataFrame({"time": columns["times"], **{key: columns[key] for key in list(columns)[1:]}}, index=names)
        genes = pd.DataFrame(index=[f"{basis}_{place + 1}" for place in range(points.shape[1])])
        cells = anndata.AnnData(X=points, obs=table, var=genes, obsm={f"X_{basis}": points}, uns={"amgen": dict(about)})
        cells.write_h5ad(file)


WRITERS: dict[str, Callable[[Path, Path, Mapping[str, np.ndarray], np.ndarray, Mapping[str, str], str], None]] = {
    ".h5ad": _write_h5ad,
    ".npz": _write_npz,
    ".csv": _write_csv,
}
"""Functions that write simulated cells, by the ending of the file."""
