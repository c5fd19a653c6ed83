"""Cells of an AnnData file (.h5ad, or a folder .zarr): times, masses and coordinates, without reading what is not needed.

Of `obs` only the named columns are read, of `obsm` the named array. X is read in blocks of rows, and only if the coordinates are genes or
principal components. Layout: https://anndata.readthedocs.io/en/latest/fileformat-prose.html
"""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from amgen.config import SnapshotsConfig
from amgen.core.errors import UserError, nearest, printable
from amgen.core.memory import free_bytes
from amgen.data.checking import check_masses, check_numbers, chosen_rows, trained_on
from amgen.data.loadings import Loadings
from amgen.data.messages import first_few, shortened

INSTALL = "pip install 'amgen[cells]'"

DEFAULT_EMBEDDING = "X_pca"
"""Key of obsm that is used if the options name none; Scanpy writes its principal components there."""

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|\d+(?:\.\d+)?")
"""A number within a label. A minus after a letter, as in day-3, is a hyphen."""

BLOCK_BYTES = 1 << 26
"""Bytes of rows of X that are made dense or read at once."""


@dataclass
class AnnotatedCells:
    """Cells that were read from an AnnData file.

    Attributes:
        times: float64 (N,).
        features: coordinates, float64 (N, D).
        masses: float64 (N,).
        names: names of the columns for messages: of the times, of each feature, of the masses.
        rows: number of each cell in the file.
        loadings: of the principal components, if they are the coordinates.
    """

    times: np.ndarray
    features: np.ndarray
    masses: np.ndarray
    names: tuple[str, Sequence[str], str]
    rows: Sequence[int]
    loadings: Loadings | None


def read_annotated(
    file: Path, options: SnapshotsConfig, say: Callable[[str], None] | None = None, loadings: Loadings | None = None
) -> AnnotatedCells:
    """Read the cells of an AnnData file.

    Args:
        file: an .h5ad, or a folder that AnnData wrote as zarr.
        options: which columns and coordinates to read, and the most cells.
        say: takes a line if X looks like raw counts.
        loadings: for `data.embedding=pca` those of a run; computed from the cells of the times to train on otherwise.

    Raises:
        UserError: if the file cannot be read or lacks what the options name, or anndata is not installed.
    """
    name = printable(options.path)
    with open_annotated(file, name) as group:
        times = numbers(column(group, options.time_key, "data.time_key", name), options.time_key, name)
        places = range(len(times))
        check_numbers(name, f"obs[{options.time_key!r}]", times, places)
        masses = np.ones(len(times))
        if options.mass_key is not None:
            masses = numbers(column(group, options.mass_key, "data.mass_key", name), options.mass_key, name, labels=False)
            check_numbers(name, f"obs[{options.mass_key!r}]", masses, places)
            check_masses(name, f"obs[{options.mass_key!r}]", masses, places)
        rows, masses = chosen_rows(times, masses, options)
        features, columns, loadings = _coordinates(group, rows, trained_on(times[rows], options), options, name, say, loadings)
    names = (f"obs[{options.time_key!r}]", columns, f"obs[{options.mass_key!r}]")
    return AnnotatedCells(times[rows], features, masses, names, rows.tolist(), loadings)


@contextmanager
def open_annotated(file: Path, name: str) -> Iterator[Any]:
    """Yield the root group of an AnnData file; every error of a damaged file inside becomes a `UserError` of one line.

    Args:
        file: an .h5ad, or a folder that AnnData wrote as zarr.
        name: its name in messages.

    Raises:
        UserError: if it cannot be read, or anndata is not installed.
    """
    folder = file.is_dir()
    require("zarr" if folder else "anndata", name)
    with warnings.catch_warnings():
        # Importing AnnData and reading old files give warnings for developers; they say nothing about the cells.
        warnings.filterwarnings("ignore", module=r"(anndata|zarr|legacy_api_wrap|pandas|h5py|numcodecs)(\.|$)")
        try:
            import anndata  # noqa: F401  (its readers must be registered)

            if folder:
                import zarr

                yield _checked(zarr.open_group(str(file), mode="r"), name)
            else:
                import h5py

                with h5py.File(file, "r") as opened:
                    yield _checked(opened, name)
        except (UserError, MemoryError):
            raise
        # For damaged files h5py, zarr and AnnData raise many classes of errors, such as OSError, KeyError and AnnDataReadError.
        except Exception as error:
            reason = getattr(error, "strerror", None) or shortened(" ".join(str(error).split()), 120) or type(error).__name__
            raise UserError(f"cannot read {name}: {reason}: expected an .h5ad or .zarr as AnnData writes it") from None


def require(package: str, name: str) -> None:
    """Refuse to open an AnnData file if a package is missing, with the extra that installs it."""
    if find_spec("anndata") is None or find_spec("h5py") is None:
        raise UserError(f"{name} is an AnnData file, which needs anndata: {INSTALL}")
    if find_spec(package) is None:
        raise UserError(f"{name} is an AnnData folder, which needs zarr: pip install zarr, or save it with adata.write_h5ad")


def _checked(group: Any, name: str) -> Any:
    """Return the root group if it has the layout of AnnData 0.7 and later."""
    if "obs" not in group or "var" not in group:
        raise UserError(f"{name} holds {first_few(group.keys()) or 'nothing'}: expected obs, var and X, as AnnData writes them")
    if not hasattr(group["obs"], "keys"):
        raise UserError(f"{name} was written by AnnData before 0.7: save it again with anndata.read_h5ad(...).write_h5ad(...)")
    return group


def column(group: Any, key: str, option: str, name: str) -> Any:
    """Return a column of obs, as AnnData reads it.

    Args:
        group: root of the file.
        key: name of the column.
        option: the option that names it, for the error.
        name: name of the file, for the error.

    Raises:
        UserError: naming the columns there are, if there is none of that name.
    """
    from anndata.io import read_elem

    columns = [str(known) for known in group["obs"].attrs.get("column-order", [])]
    if key not in columns:
        known = f"it has {first_few(columns)}" if columns else "obs has no columns"
        raise UserError(f"{option}={key!r}: the obs of {name} has no such column{nearest(key, columns)}: {known}")
    return read_elem(group["obs"][key])


def index_of(group: Any, axis: str) -> list[str]:
    """Return the names of the cells (`obs`) or of the genes (`var`)."""
    from anndata.io import read_elem

    return [str(value) for value in read_elem(group[axis][group[axis].attrs.get("_index", "_index")])]


def numbers(values: Any, key: str, name: str, labels: bool = True) -> np.ndarray:
    """Return the numbers in a column of obs, float64 (N,): numbers, or labels with one number each; NaN for missing values.

    Args:
        values: the column, as AnnData reads it.
        key: its name, for errors.
        name: name of the file, for errors.
        labels: whether labels may hold other text beside the number, which then must be the same in all of them.

    Raises:
        UserError: if a label holds no number or several, or the text beside the number differs between labels.

    Example:
        >>> import numpy as np
        >>> from amgen.data.annotated import numbers
        >>> numbers(np.array(["E8.5", "E10"], dtype=object), "stage", "cells.h5ad").tolist()
        [8.5, 10.0]
    """
    import pandas as pd

    series = pd.Series(values)
    where = f"{name}, obs[{key!r}]"
    if isinstance(series.dtype, pd.CategoricalDtype):
        codes, known = series.cat.codes.to_numpy(), series.cat.categories
    elif pd.api.types.is_bool_dtype(series.dtype) or pd.api.types.is_datetime64_any_dtype(series.dtype):
        raise UserError(f"{where} is of type {series.dtype}: expected numbers{', or labels with one number each' if labels else ''}")
    elif pd.api.types.is_numeric_dtype(series.dtype):
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        codes, known = pd.factorize(series)
    found, texts = np.full(len(known) + 1, np.nan), dict[str, str]()  # the last entry is that of missing values, whose code is -1
    for code in np.unique(codes[codes >= 0]):
        label = str(known[code])
        try:
            found[code], rest = float(label), ""
        except ValueError:
            matches = list(NUMBER.finditer(label)) if labels else []
            if len(matches) != 1:
                held = "is not a number" if not labels else "holds no number" if not matches else "holds several numbers"
                wanted = "numbers, or labels with one number each, such as 'day 10.5'" if labels else "numbers"
                raise UserError(f"{where}: {shortened(label)!r} {held}: expected {wanted}") from None
            found[code], rest = float(matches[0][0]), NUMBER.sub("#", label)
        texts.setdefault(" ".join(rest.replace("_", " ").casefold().split()), label)
    if len(texts) > 1:
        raise UserError(
            f"{where}: {first_few([repr(label) for label in texts.values()], 3)} differ in more than the number, so that their times may "
            "be of different units: expected numbers, or the same text beside each"
        )
    return found[codes]


def _coordinates(
    group: Any,
    rows: np.ndarray,
    training: np.ndarray,
    options: SnapshotsConfig,
    name: str,
    say: Callable[[str], None] | None,
    loadings: Loadings | None,
) -> tuple[np.ndarray, Sequence[str], Loadings | None]:
    """Return the coordinates of the chosen rows, float64 (N, D), the names of the columns, and the loadings of principal components."""
    embedding = options.embedding or DEFAULT_EMBEDDING
    if embedding not in ("X", "pca"):
        return *_embedded(group, rows, embedding, options, name), None
    genes = index_of(group, "var")
    pca = embedding == "pca"
    places = loadings.columns(genes, name) if pca and loadings is not None else None
    width = len(genes) if pca else min(options.dimension, len(genes))
    expression = read_expression(group, rows, width, genes, name, dense=not pca)
    if say is not None and _looks_like_counts(expression):
        say(
            f"{name}: X looks like raw counts (whole numbers up to {float(expression.max()):g}) and is used as it is: normalise it first, "
            "as by scanpy.pp.normalize_total and scanpy.pp.log1p"
        )
    if not pca:
        return expression.astype(np.float64), genes[:width], None
    if places is not None:
        expression = expression[:, places]
    if loadings is None:
        # Only cells of the times to train on: a time that is held out has no influence on the components.
        loadings = Loadings.fit(expression[np.flatnonzero(training)], options.dimension, genes)
    return loadings.project(expression), [f"component {place + 1}" for place in range(loadings.dimension)], loadings


def _embedded(group: Any, rows: np.ndarray, key: str, options: SnapshotsConfig, name: str) -> tuple[np.ndarray, Sequence[str]]:
    """Return the first columns of an array of obsm."""
    from anndata.io import read_elem

    known = list(group["obsm"].keys()) if "obsm" in group else []
    if key not in known:
        advice = f"it has {first_few(known)}" if known else "its obsm is empty"
        raise UserError(
            f"data.embedding={key!r}: the obsm of {name} has no such key{nearest(key, [*known, 'X', 'pca'])}: {advice}; "
            "data.embedding=pca computes principal components of X"
        )
    values = read_elem(group["obsm"][key])
    values = np.asarray(values.toarray() if sparse.issparse(values) else values)
    if values.ndim != 2 or values.dtype.kind not in "iufb":
        raise UserError(f"{name}: obsm[{key!r}] has shape {values.shape} and type {values.dtype}: expected numbers (N, D)")
    values = values[rows, : options.dimension].astype(np.float64)
    return values, [f"obsm[{key!r}][:, {place}]" for place in range(values.shape[1])]


def read_expression(group: Any, rows: np.ndarray, width: int, genes: Sequence[str], name: str, dense: bool) -> Any:
    """Return rows of the first genes of X, float32 (N, width): an array, or a CSR matrix if X is sparse and `dense` is false.

    Raises:
        UserError: if there is no X, it does not fit into memory, or it holds numbers that are not finite.
    """
    from anndata.io import sparse_dataset

    encoding = str(dict(group["X"].attrs).get("encoding-type", "null")) if "X" in group else "null"
    if encoding == "null":
        raise UserError(f"{name} has no X: give a key of obsm as data.embedding, or a file with X")
    compressed = encoding in ("csr_matrix", "csc_matrix")
    matrix = sparse_dataset(group["X"]) if compressed else group["X"]
    count, columns = matrix.shape
    if columns != len(genes):
        raise UserError(f"{name}: X has {columns:,} columns, and var has {len(genes):,} genes: save the file again")
    share = len(rows) / max(count, 1)
    size = 4 * len(rows) * width if dense or not compressed else int(group["X"]["data"].shape[0] * 8 * share)
    # Columns that are compressed are read as a whole, since rows cannot be read alone.
    size += group["X"]["data"].shape[0] * 16 if encoding == "csc_matrix" else 0
    if 2 * size > free_bytes(torch.device("cpu")):
        raise UserError(f"{name}: X for {len(rows):,} cells does not fit into memory: set a smaller data.max_cells")
    if encoding == "csc_matrix":
        matrix = matrix.to_memory().tocsr()
    step = max(1, BLOCK_BYTES // (4 * columns + 1))
    blocks = []
    for start in range(0, count, step):
        inside = rows[(rows >= start) & (rows < start + step)] - start
        if not len(inside):
            continue
        block = matrix[start : min(start + step, count)][inside][:, :width].astype(np.float32)
        values = block.data if compressed else block
        if not np.isfinite(values).all():
            table = np.isfinite(block.toarray() if compressed else block)
            row, place = np.argwhere(~table)[0]
            raise UserError(
                f"{name}, row {start + inside[row]}, gene {shortened(genes[place])}: X is not a finite number ({(~table).sum():,} in these "
                f"{len(inside):,} cells are not): remove those genes or cells"
            )
        blocks.append(block.toarray() if dense and compressed else block)
    if dense or not compressed:
        return np.concatenate([np.zeros((0, width), dtype=np.float32), *blocks])
    return sparse.vstack([sparse.csr_matrix((0, width), dtype=np.float32), *blocks], format="csr")


def _looks_like_counts(expression: Any) -> bool:
    """Return whether the expression of the first cells is whole numbers of which one is above 1."""
    values = expression[:1000]
    values = values.data if sparse.issparse(values) else values
    return bool(values.size) and bool((values == np.rint(values)).all() and values.min() >= 0 and values.max() > 1)
