"""What a trained action says about the cells of an AnnData file, written into a copy of it."""

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from amgen.config import SamplingConfig, SnapshotsConfig
from amgen.core.errors import UserError, printable
from amgen.core.files import replacing
from amgen.core.randomness import Purpose, derive_seed
from amgen.data.annotated import DEFAULT_EMBEDDING, column, index_of, open_annotated
from amgen.data.messages import first_few
from amgen.data.tables import Table, read_cells
from amgen.model.trained import TrainedAction
from amgen.sampling.cells import CellDynamics, FateOptions, carry, cell_dynamics, fates, trained_times

MOST_LABELS = 1000
"""Most labels of a column of fates: a column of barcodes has as many labels as cells."""

FRAMES = 21
"""Times of a trajectory."""

BLOCK_BYTES = 1 << 26
"""Bytes of velocities of genes that are computed at once."""


@dataclass(frozen=True)
class WriteOptions:
    """What is written into an AnnData file, beside the dynamics of each cell.

    Attributes:
        key: name of the velocities: `obsm["KEY_BASIS"]` and `layers["KEY"]`, as scVelo names them.
        genes: whether to write velocities of genes, where the coordinates are genes or their principal components.
        fates: column of obs whose labels the fate probabilities are of, or None for none.
        trajectories: number of cells of the first time whose way is written.
        fate: how fate probabilities are computed.
    """

    key: str = "velocity"
    genes: bool = True
    fates: str | None = None
    trajectories: int = 20
    fate: FateOptions = field(default_factory=FateOptions)


def data_options(model: TrainedAction, data: str | None, changes: Mapping[str, str | None] | None = None) -> SnapshotsConfig:
    """Return the options to read all cells of a table as the model's coordinates.

    Args:
        model: a model of a population that was trained on a table.
        data: the table; None for that of the run.
        changes: options that differ from the run's, such as `time_key`; None keeps that of the run.

    Raises:
        UserError: for a model of images or of a simulated system.
    """
    options = model.config.data
    trained_times(model)
    if not isinstance(options, SnapshotsConfig):
        raise UserError(f"{model.source} was trained on a simulated system: expected a model that was trained on a table of cells")
    given = {key: value for key, value in {"path": data, **(changes or {})}.items() if value is not None}
    return options.model_copy(update={**given, "max_cells": None})


def basis_of(options: SnapshotsConfig) -> str:
    """Return the name of the coordinates in the sense of Scanpy: `pca` for the key X_pca, `amgen_pca` for components computed here."""
    embedding = options.embedding or DEFAULT_EMBEDDING
    return "amgen_pca" if embedding == "pca" else embedding.removeprefix("X_")


def write_cells(
    model: TrainedAction,
    options: SnapshotsConfig,
    out: Path,
    write: WriteOptions = WriteOptions(),
    sampling: SamplingConfig | None = None,
    say: Callable[[str], None] | None = None,
) -> list[str]:
    """Write a copy of an AnnData file with the dynamics of its cells, and return the places of what was added, such as `obs[...]`.

    Args:
        model: a model of a population.
        options: the AnnData file and its columns, as `data_options` returns them.
        out: the .h5ad to write. One that the same call wrote is replaced; any other is not.
        write: what to write.
        sampling: settings of the solver; by default those of the run.
        say: takes lines about cells that the model does not know.

    Raises:
        UserError: if the file cannot be read, lacks what the options name or already holds other values at those places, or `out` holds
            something else.
    """
    source, name = Path(options.path).expanduser(), printable(options.path)
    if source.suffix.lower() not in (".h5ad", ".zarr"):
        raise UserError(f"--data {name}: expected an AnnData file, .h5ad or .zarr: amgen cells simulate reads other tables")
    if out.exists() and source.exists() and out.samefile(source):
        raise UserError(f"--out {out} is the file of --data, which is not changed: give another name")
    settings = _settings(model, options, write, sampling)
    refuse_other(out, settings)
    cells = read_cells(options, None, model.loadings)
    basis = basis_of(options)
    with open_annotated(source, name) as group:
        labels = None if write.fates is None else _labels(column(group, write.fates, "--fates", name), write.fates, name)
        genes = index_of(group, "var")
        places = _gene_places(model, options, cells, genes, name) if write.genes else None
        arrays = _targets(write, basis, places is not None, options)
        _check_free(group, arrays, name)
    _check_room(source, out, len(cells.times) * (len(genes) if places is not None else 0) * 4)
    unknown = ~((cells.times >= trained_times(model)[0]) & (cells.times <= trained_times(model)[-1]))
    if unknown.all():
        known = trained_times(model)
        raise UserError(f"no cell of {name} is between the times {known[0]:g} and {known[-1]:g} that the model was trained on")
    if unknown.any() and say is not None:
        say(f"{name}: {unknown.sum():,} cells are at times that the model was not trained between, and have NaN")
    dynamics = cell_dynamics(model, cells.features, cells.times, cells.masses)
    values: dict[str, Any] = {
        f"obsm/{write.key}_{basis}": dynamics.velocity,
        "obs/amgen_growth": dynamics.growth,
        "obs/amgen_action": dynamics.action,
        "obs/amgen_potential": dynamics.potential,
    }
    if options.embedding == "pca":
        values[f"obsm/X_{basis}"] = cells.features.astype(np.float32)
    if labels is not None:
        codes, names = labels
        shares = fates(model, cells.features, cells.times, codes, cells.masses, write.fate, sampling)
        values |= {"obsm/fates": shares.astype(np.float32), "obs/amgen_fate": (shares, names)}
        settings = {**settings, "fate_names": np.array(names, dtype=object)}
    if write.trajectories:
        settings = {**settings, "trajectories": _trajectories(model, cells, write, sampling)}
    settings = {**settings, "written": np.array([*arrays, "uns/amgen"], dtype=object)}
    with replacing(out) as temporary:
        _copy(source, temporary, name)
        _add(temporary, out, values, settings, None if places is None else (places, len(genes), write.key, model, dynamics))
    return [_shown(place) for place in [*arrays, "uns/amgen"]]


def refuse_other(out: Path, settings: Mapping[str, Any]) -> None:
    """Refuse to replace a file that another call wrote.

    Raises:
        UserError: naming what differs.
    """
    if not out.exists():
        return
    advice = "choose another --out, or remove it"
    try:
        with open_annotated(out, str(out)) as group:
            there = {key: _text(group["uns/amgen"][key]) for key in settings if f"uns/amgen/{key}" in group}
    except UserError:
        there = {}
    if not there:
        raise UserError(f"--out {out} exists and was not written by this command: {advice}")
    for key, value in settings.items():
        if key != "checkpoint" and there.get(key) != str(value):
            raise UserError(f"--out {out} was written with another {key} ({str(there.get(key))[:60]!r}, not {str(value)[:60]!r}): {advice}")


def _text(element: Any) -> str:
    value = element[()]
    return value.decode() if isinstance(value, bytes) else str(value)


def _settings(model: TrainedAction, options: SnapshotsConfig, write: WriteOptions, sampling: SamplingConfig | None) -> dict[str, Any]:
    """Return what the values depend on, as text for uns."""
    solver = model.config.sampling if sampling is None else sampling
    return {
        "weights": model.weights,
        "weights_sha256": model.weights_sha256,
        "images_trained": str(model.images),
        "checkpoint": str(model.source),
        "data": str(Path(options.path).expanduser().absolute()),
        "embedding": options.embedding or DEFAULT_EMBEDDING,
        "loadings_sha256": "" if model.loadings is None else model.loadings.sha256,
        "time_key": options.time_key,
        "solver": f"{solver.solver}, {solver.steps} steps, tolerance {solver.tolerance:g}",
        "fate_column": write.fates or "",
        "fate_options": ", ".join(f"{key} {value}" for key, value in asdict(write.fate).items()),
        "options": f"key {write.key}, genes {write.genes}, trajectories {write.trajectories}",
        "config": model.config.to_yaml(),
        "units": f"velocity in the units of the embedding, growth in 1, both divided by the unit of obs[{options.time_key!r}]",
    }


def _labels(values: Any, key: str, name: str) -> tuple[np.ndarray, list[str]]:
    """Return the number of each cell's label, -1 for none, and the labels."""
    import pandas as pd

    codes, known = pd.factorize(pd.Series(values), sort=True)
    if len(known) > MOST_LABELS:
        raise UserError(f"--fates {key}: obs[{key!r}] of {name} has {len(known):,} values: expected a column of labels, such as cell types")
    return codes, [str(label) for label in known]


def _gene_places(model: TrainedAction, options: SnapshotsConfig, cells: Table, genes: Sequence[str], name: str) -> np.ndarray | None:
    """Return the places of the genes that velocities are known of; None if the coordinates are neither genes nor their components."""
    if options.embedding == "X":
        return np.arange(cells.features.shape[1])
    if options.embedding != "pca" or model.loadings is None:
        return None
    places = model.loadings.columns(genes, name)
    return np.arange(len(genes)) if places is None else places


def _targets(write: WriteOptions, basis: str, genes: bool, options: SnapshotsConfig) -> list[str]:
    """Return the places that are written, without uns."""
    found = [f"obsm/{write.key}_{basis}", "obs/amgen_growth", "obs/amgen_action", "obs/amgen_potential"]
    found += [f"obsm/X_{basis}"] if options.embedding == "pca" else []
    found += [f"layers/{write.key}"] if genes else []
    return found + (["obsm/fates", "obs/amgen_fate"] if write.fates is not None else [])


def _check_free(group: Any, places: Sequence[str], name: str) -> None:
    """Refuse to write over values that amgen has not written."""
    ours = set(map(_decoded, group["uns/amgen/written"][:])) if "uns/amgen/written" in group else set()
    taken = [_shown(place) for place in [*places, "uns/amgen"] if place in group and place not in ours]
    if taken:
        raise UserError(f"{name} already has {first_few(taken)}, which amgen did not write: give other names by --key, or remove them")


def _decoded(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _shown(place: str) -> str:
    section, _, key = place.partition("/")
    return f"{section}[{key!r}]"


def _check_room(source: Path, out: Path, layers: int) -> None:
    """Refuse to start if the disk has no room for the copy."""
    size = sum(file.stat().st_size for file in source.rglob("*") if file.is_file()) if source.is_dir() else source.stat().st_size
    free = shutil.disk_usage(out.parent).free
    if size + layers > free:
        raise UserError(
            f"--out {out} needs {(size + layers) / 2**20:,.0f} MiB, and {free / 2**20:,.0f} MiB are free there: choose another place"
            + (", or leave out the genes (--no-genes)" if layers else "")
        )


def _trajectories(model: TrainedAction, cells: Table, write: WriteOptions, sampling: SamplingConfig | None) -> dict[str, Any]:
    """Return the way of some cells of the first time that has any, chosen at random."""
    known = trained_times(model)
    first = cells.times[(cells.times >= known[0]) & (cells.times <= known[-1])].min()
    rows = np.flatnonzero(cells.times == first)
    random = np.random.Generator(np.random.Philox(derive_seed(write.fate.seed, Purpose.FATE, -1)))
    rows = np.sort(rows[random.permutation(len(rows))[: write.trajectories]])
    times = np.linspace(first, known[-1], FRAMES)
    found = carry(model, cells.features[rows], float(first), times.tolist(), write.fate.seed, sampling)
    return {
        "times": np.asarray(found.times),
        "cells": rows,
        "points": found.points.numpy(),
        "log_weights": found.log_weights.numpy(),
    }


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Silence AnnData's warnings for developers, and turn errors of its writer into one line."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(anndata|zarr|pandas|h5py)(\.|$)")
        try:
            yield
        except (UserError, MemoryError):
            raise
        except Exception as error:
            raise UserError(f"cannot write {out}: {' '.join(str(error).split())[:200] or type(error).__name__}") from None


def _copy(source: Path, target: Path, name: str) -> None:
    """Copy an AnnData file; a folder of zarr is read as a whole and written as .h5ad."""
    if not source.is_dir():
        shutil.copyfile(source, target)
        return
    with open_annotated(source, name) as group:
        from anndata.io import read_elem

        cells = read_elem(group)
    with writing(target):
        cells.write_h5ad(target)


def _add(
    file: Path,
    out: Path,
    values: Mapping[str, Any],
    settings: Mapping[str, Any],
    genes: tuple[np.ndarray, int, str, TrainedAction, CellDynamics] | None,
) -> None:
    """Write arrays, columns, settings and velocities of genes into an .h5ad."""
    with writing(out):
        import h5py
        import pandas as pd
        from anndata.io import write_elem

        with h5py.File(file, "r+") as opened:
            for section in ("obsm", "layers", "uns"):
                if section not in opened:
                    write_elem(opened, section, {})
            for place, value in values.items():
                section, _, key = place.partition("/")
                if place == "obs/amgen_fate":
                    shares, names = value
                    codes = np.where(np.isnan(shares[:, 0]), -1, np.nan_to_num(shares).argmax(axis=1))
                    value = pd.Categorical.from_codes(codes, names)
                write_elem(opened[section], key, value)
                if section == "obs":
                    columns = [str(known) for known in opened["obs"].attrs["column-order"]]
                    order = [*(known for known in columns if known != key), key]
                    opened["obs"].attrs["column-order"] = np.array(order, dtype=object)
            if genes is not None:
                _add_gene_velocities(opened["layers"], *genes)
            write_elem(opened["uns"], "amgen", dict(settings))


def _add_gene_velocities(layers: Any, places: np.ndarray, width: int, key: str, model: TrainedAction, dynamics: CellDynamics) -> None:
    """Write the velocities of genes in blocks of cells; genes that the model does not know have NaN."""
    count = len(dynamics.velocity)
    if key in layers:
        del layers[key]
    step = max(1, min(count, BLOCK_BYTES // (4 * width)))
    data = layers.create_dataset(key, shape=(count, width), dtype=np.float32, chunks=(min(step, 256), width), compression="gzip")
    data.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    for start in range(0, count, step):
        velocity = dynamics.velocity[start : start + step]
        block = np.full((len(velocity), width), np.nan, dtype=np.float32)
        block[:, places] = velocity if model.loadings is None else model.loadings.to_genes(velocity)
        data[start : start + step] = block
