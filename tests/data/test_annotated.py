"""Cells of AnnData files: which times, masses and coordinates are read, what is left unread, and one clear line for what is wrong."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from amgen import config
from amgen.config import SnapshotsConfig
from amgen.core.errors import UserError
from amgen.data import annotated, open_dataset
from amgen.data.annotated import numbers
from amgen.data.loadings import EXACT, Loadings
from amgen.data.tables import read_cells, read_table

anndata = pytest.importorskip("anndata")

RNG = np.random.default_rng(0)
TIMES = np.repeat([10.0, 10.5, 11.0], [12, 8, 10])
EXPRESSION = np.where(RNG.uniform(size=(30, 6)) < 0.6, RNG.gamma(2.0, size=(30, 6)), 0).astype(np.float32)
PCS = RNG.normal(size=(30, 4))
MASSES = RNG.uniform(1, 2, 30)


def cells(**changes: Any) -> Any:
    """Return the cells as AnnData: sparse X, X_pca in obsm, and days as categories."""
    obs = {"day": pd.Categorical([f"day {time:g}" for time in TIMES]), "hours": TIMES * 24, "weight": MASSES, "kind": ["a", "b", "c"] * 10}
    table = pd.DataFrame({**obs, **changes.pop("obs", {})}, index=[f"cell{place}" for place in range(30)])
    genes = pd.DataFrame(index=[f"g{place}" for place in range(6)])
    given = {"X": sparse.csr_matrix(EXPRESSION), "obsm": {"X_pca": PCS}, **changes}
    return anndata.AnnData(obs=table, var=genes, **given)


def write(folder: Path, name: str = "cells.h5ad", **changes: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of AnnData and zarr while they write
        made = cells(**changes)
        made.write_zarr(folder / name) if name.endswith("zarr") else made.write_h5ad(folder / name)
    return folder / name


def options(path: Path, **changes: object) -> SnapshotsConfig:
    return SnapshotsConfig.model_validate({"path": str(path), "dimension": 3, "time_key": "day", **changes})


def principal(rows: np.ndarray, dimension: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and components by NumPy's singular value decomposition, the largest entry of each positive."""
    chosen = EXPRESSION[rows].astype(np.float64)
    vectors = np.linalg.svd(chosen - chosen.mean(axis=0))[2][:dimension]
    signs = np.sign(vectors[np.arange(dimension), np.abs(vectors).argmax(axis=1)])
    return chosen.mean(axis=0), vectors * signs[:, None]


# What is read


@pytest.mark.parametrize("name", ["cells.h5ad", "cells.zarr"])
@pytest.mark.parametrize("layout", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
@pytest.mark.parametrize("embedding", [None, "X_pca", "X", "pca"])
def test_coordinates(name: str, layout: Callable[[np.ndarray], Any], embedding: str | None, tmp_path: Path) -> None:
    if name.endswith("zarr"):
        pytest.importorskip("zarr")
    found = read_table(options(write(tmp_path, name, X=layout(EXPRESSION)), embedding=embedding))
    assert found.times == [10.0, 10.5, 11.0]
    mean, components = principal(np.arange(30))
    expected = {"X": EXPRESSION[:, :3], "pca": (EXPRESSION - mean) @ components.T}.get(str(embedding), PCS[:, :3])
    np.testing.assert_allclose(np.concatenate(found.points), expected, atol=2e-6)
    assert (found.loadings is not None) == (embedding == "pca")


def test_a_view_is_written_as_its_cells(tmp_path: Path) -> None:
    chosen = np.arange(0, 30, 2)
    cells()[chosen].copy().write_h5ad(tmp_path / "view.h5ad")
    found = read_table(options(tmp_path / "view.h5ad", embedding="X"))
    np.testing.assert_array_equal(np.concatenate(found.points), EXPRESSION[chosen, :3])


def test_a_file_that_is_open_elsewhere_can_be_read(tmp_path: Path) -> None:
    file = write(tmp_path)
    backed = anndata.read_h5ad(file, backed="r")
    assert read_table(options(file)).times == [10.0, 10.5, 11.0]
    backed.file.close()


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["day 10.5", "day 11"], [10.5, 11.0]),
        (["E8.5", "E10"], [8.5, 10.0]),
        (["day-3", "Day-12"], [3.0, 12.0]),
        (["-1", "2e1"], [-1.0, 20.0]),
        (["-1 h", "2 h"], [-1.0, 2.0]),
        (["48h", "6h"], [48.0, 6.0]),
    ],
)
def test_labels_with_a_number(labels: list[str], expected: list[float]) -> None:
    for values in (np.array(labels, dtype=object), pd.Categorical(labels, categories=[*labels, "unused"])):
        assert numbers(values, "day", "x.h5ad").tolist() == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["early", "late"], "'early' holds no number: expected numbers, or labels with one number each"),
        (["day 10 rep 2", "day 11 rep 2"], "'day 10 rep 2' holds several numbers"),
        (["E18.5", "P0"], r"'E18.5', 'P0' differ in more than the number.*of different units"),
        (pd.to_datetime(["2024-01-01", "2024-01-02"]), "is of type datetime64.*: expected numbers"),
        ([True, False], "is of type bool: expected numbers"),
    ],
)
def test_labels_without_one(values: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        numbers(pd.Series(values), "day", "x.h5ad")


def test_numbers_that_may_be_missing() -> None:
    assert np.isnan(numbers(pd.array([1, None], dtype="Int64"), "day", "x.h5ad")).tolist() == [False, True]
    assert np.isnan(numbers(pd.Categorical(["d 1", None]), "day", "x.h5ad")).tolist() == [False, True]


def test_masses_are_a_column(tmp_path: Path) -> None:
    found = read_table(options(write(tmp_path), mass_key="weight"))
    means = [masses.mean() for masses in found.masses]
    np.testing.assert_allclose(means, [MASSES[time == TIMES].sum() / MASSES[TIMES == 10].sum() for time in found.times])


def test_old_names_of_the_columns_are_read() -> None:
    lines: list[str] = []
    data = config.load("cells", ["data.time_column=day", "data.mass_column=weight", "loss.form=marginal"], lines.append).data
    assert isinstance(data, SnapshotsConfig)
    assert (data.time_key, data.mass_key) == ("day", "weight")
    assert "data.time_column is now called data.time_key" in lines[0]


def test_x_is_not_read_for_coordinates_in_obsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path)
    monkeypatch.setattr(annotated, "read_expression", lambda *_, **__: pytest.fail("X was read"))
    read_table(options(file))


def test_x_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path)
    whole = read_table(options(file, embedding="pca"))
    monkeypatch.setattr(annotated, "BLOCK_BYTES", 7 * 4 * 6)
    blocks = read_table(options(file, embedding="pca"))
    assert whole.fingerprint() == blocks.fingerprint()


def test_x_that_does_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotated, "free_bytes", lambda device: 100)
    with pytest.raises(UserError, match=r"X for 30 cells does not fit into memory: set a smaller data.max_cells"):
        read_table(options(write(tmp_path), embedding="X"))


@pytest.mark.parametrize(("largest", "said"), [(5.0, 1), (0.5, 0)])
def test_raw_counts_are_named(largest: float, said: int, tmp_path: Path) -> None:
    lines: list[str] = []
    values = np.rint(EXPRESSION) + (np.arange(30) == 0)[:, None] * largest
    read_table(options(write(tmp_path, X=values), embedding="X"), lines.append)
    assert len(lines) == said
    assert all("X looks like raw counts" in line and "scanpy.pp.log1p" in line for line in lines)


# Principal components


def test_a_held_out_time_has_no_influence(tmp_path: Path) -> None:
    """Other expression, and another number, of the cells held out leave everything else bit for bit the same."""
    changed = EXPRESSION.copy()
    changed[TIMES == 10.5] = 7 * RNG.uniform(size=(8, 6))
    first = write(tmp_path, "first.h5ad")
    second = write(tmp_path, "second.h5ad", X=sparse.csr_matrix(changed))
    third = tmp_path / "third.h5ad"
    cells()[np.flatnonzero((TIMES != 10.5) | (np.arange(30) < 15))].copy().write_h5ad(third)
    for most in (None, 9):
        held = [open_dataset(options(file, embedding="pca", hold_out=10.5, max_cells=most)) for file in (first, second, third)]
        assert len({dataset.source.fingerprint() for dataset in held}) == 1
        assert len({dataset.whole.loadings.sha256 for dataset in held if dataset.whole.loadings}) == 1
        assert held[0].record() == held[1].record() == held[2].record()
    seen = [open_dataset(options(file, embedding="pca")) for file in (first, second)]
    assert seen[0].source.fingerprint() != seen[1].source.fingerprint()


def test_components_of_many_cells_and_genes() -> None:
    """Lanczos iterations find what the exact method finds: the subspace that a known low rank spans, on data that stays sparse."""
    size = EXACT + 10
    random = np.random.default_rng(1)
    chosen = random.permutation(size)[:60]
    dense = sparse.random(size, size, density=0.002, random_state=1, dtype=np.float32).tolil()
    directions = np.zeros((2, size), dtype=np.float32)
    directions[0, chosen[:30]], directions[1, chosen[30:]] = 1, 1
    weights = random.normal(size=(size, 2)).astype(np.float32) * [3, 2]
    matrix = (sparse.csr_matrix(dense) + sparse.csr_matrix((weights @ directions).astype(np.float32))).tocsr().astype(np.float32)
    found = Loadings.fit(matrix, 2, [str(place) for place in range(size)])
    expected = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    assert np.linalg.svd(found.components @ expected.T, compute_uv=False).min() > 0.999
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(2), atol=1e-5)
    variances = found.project(matrix).var(axis=0)
    assert variances[0] > variances[1]


def test_more_genes_than_cells_and_the_other_way() -> None:
    for shape in ((20, 50), (50, 20)):
        values = np.random.default_rng(2).normal(size=shape).astype(np.float32)
        found = Loadings.fit(values, 5, [str(place) for place in range(shape[1])])
        centred = values - values.mean(axis=0)
        expected = np.linalg.svd(centred.astype(np.float64), compute_uv=False)[:5]
        np.testing.assert_allclose(np.linalg.norm(found.project(values), axis=0), expected, rtol=1e-5)


def test_loadings_are_kept_and_used(tmp_path: Path) -> None:
    first = read_table(options(write(tmp_path), embedding="pca"))
    assert first.loadings is not None
    first.loadings.save(tmp_path / "loadings.safetensors")
    again = Loadings.load(tmp_path / "loadings.safetensors")
    assert again.sha256 == first.loadings.sha256
    order = np.array([3, 1, 5, 0, 2, 4])
    shuffled = cells()[:12, order].copy()
    shuffled.write_h5ad(tmp_path / "shuffled.h5ad")
    found = read_cells(options(tmp_path / "shuffled.h5ad", embedding="pca"), None, again)
    np.testing.assert_array_equal(found.features, first.points[0])
    cells()[:, :4].copy().write_h5ad(tmp_path / "fewer.h5ad")
    with pytest.raises(UserError, match=r"fewer.h5ad lacks 2 of the 6 genes .*: g4, g5"):
        read_cells(options(tmp_path / "fewer.h5ad", embedding="pca"), None, again)
    (tmp_path / "loadings.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match=r"cannot read .*loadings.safetensors, the loadings of the run's principal components"):
        Loadings.load(tmp_path / "loadings.safetensors")


def test_velocities_of_genes_are_those_of_the_components(tmp_path: Path) -> None:
    loadings = read_table(options(write(tmp_path), embedding="pca")).loadings
    assert loadings is not None
    step = 1e-2 * np.random.default_rng(3).normal(size=(30, 3))
    scores = loadings.project(EXPRESSION)
    moved = loadings.project((EXPRESSION + loadings.to_genes(step)).astype(np.float32))
    np.testing.assert_allclose(moved - scores, step, atol=2e-6)


# Fewer cells


def test_max_cells_keeps_shares_and_masses(tmp_path: Path) -> None:
    file = write(tmp_path)
    whole, fewer = (read_table(options(file, mass_key="weight", max_cells=most)) for most in (None, 15))
    assert [len(points) for points in fewer.points] == [6, 4, 5]
    for all_points, points in zip(whole.points, fewer.points, strict=True):
        assert {tuple(point) for point in points} < {tuple(point) for point in all_points}
    np.testing.assert_allclose([m.mean() for m in fewer.masses], [m.mean() for m in whole.masses])
    again = read_table(options(file, mass_key="weight", max_cells=15))
    assert again.fingerprint() == fewer.fingerprint()
    assert read_table(options(file, mass_key="weight", max_cells=30)).fingerprint() == whole.fingerprint()


def test_max_cells_of_counts_and_of_other_tables(tmp_path: Path) -> None:
    np.savez(tmp_path / "cells.npz", times=TIMES, points=PCS)
    found = [
        read_table(options(file, mass_from_counts=True, max_cells=15, embedding=embedding))
        for file, embedding in ((write(tmp_path), "X_pca"), (tmp_path / "cells.npz", None))
    ]
    assert found[0].fingerprint() == found[1].fingerprint()
    np.testing.assert_allclose([masses.mean() for masses in found[0].masses], [1, 8 / 12, 10 / 12])


def test_paired_rows_stay_paired(tmp_path: Path) -> None:
    points = np.random.default_rng(4).normal(size=(20, 2))
    np.savez(tmp_path / "cells.npz", times=np.repeat([0.0, 1.0], 20), points=np.concatenate([points, points + 1]))
    found = read_table(options(tmp_path / "cells.npz", dimension=2, paired=True, max_cells=10))
    assert [len(points) for points in found.points] == [5, 5]
    np.testing.assert_allclose(found.points[1], found.points[0] + 1)


# What is wrong


def truncated(folder: Path) -> Path:
    file = write(folder)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


def nonsense(folder: Path) -> Path:
    (folder / "cells.h5ad").write_bytes(b"nonsense")
    return folder / "cells.h5ad"


def other_hdf5(folder: Path) -> Path:
    import h5py

    with h5py.File(folder / "cells.h5ad", "w") as opened:
        opened["images"] = np.zeros(3)
    return folder / "cells.h5ad"


def nan_gene(folder: Path) -> Path:
    values = EXPRESSION.copy()
    values[7, 2] = np.nan
    return write(folder, X=values)


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (truncated, {}, r"cannot read .*cells.h5ad: .*truncated file.*: expected an .h5ad or .zarr as AnnData writes it"),
        (nonsense, {}, "cannot read .*cells.h5ad: .*signature not found"),
        (other_hdf5, {}, "cells.h5ad holds images: expected obs, var and X"),
        (
            write,
            {"time_key": "dya"},
            r"data.time_key='dya': the obs of .*cells.h5ad has no such column \(did you mean 'day'\?\): it has day",
        ),
        (write, {"time_key": "kind"}, r"obs\['kind'\]: 'a' holds no number"),
        (write, {"embedding": "X_pcas"}, r"the obsm of .* has no such key \(did you mean 'X_pca'\?\): it has X_pca; data.embedding=pca"),
        (lambda folder: write(folder, obsm={}), {}, r"data.embedding='X_pca': .*: its obsm is empty; data.embedding=pca computes"),
        (write, {"dimension": 5}, "data.dimension=5 but .*cells.h5ad has 4 columns of features"),
        (
            write,
            {"dimension": 7, "embedding": "pca"},
            "data.dimension=7, data.embedding=pca: 30 training cells with 6 genes have at most 6",
        ),
        (lambda folder: write(folder, X=None), {"embedding": "pca"}, "has no X: give a key of obsm as data.embedding"),
        (nan_gene, {"embedding": "pca"}, r"row 7, gene g2: X is not a finite number \(1 in these 30 cells"),
        (
            lambda folder: write(folder, obsm={"X_pca": np.where(np.arange(30)[:, None] == 4, np.nan, PCS)}),
            {},
            r"row 4, obsm\['X_pca'\]\[:, 0\]: nan: expected numbers that are finite",
        ),
        (
            lambda folder: write(folder, obs={"day": [np.nan, *TIMES[1:]]}),
            {},
            r"row 0, obs\['day'\]: nan: expected numbers that are finite",
        ),
        (lambda folder: write(folder, obs={"day": ["day 3"] * 30}), {}, "cells.h5ad holds one time: expected several"),
        (
            lambda folder: write(folder, obs={"weight": [*MASSES[:-1], 0.0]}),
            {"mass_key": "weight"},
            r"row 29, obs\['weight'\]: 0: expected masses that are positive \(1 are not\)",
        ),
        (write, {"mass_key": "kind"}, r"obs\['kind'\]: 'a' is not a number: expected numbers$"),
    ],
)
def test_mistakes_are_named(make: Callable[[Path], Path], changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        open_dataset(options(make(tmp_path), **changes))
    assert "\n" not in str(caught.value)


def test_duplicate_cells_are_fine(tmp_path: Path) -> None:
    twice = np.repeat(np.arange(15) * 2, 2)
    file = write(tmp_path, X=sparse.csr_matrix(EXPRESSION[twice]))
    assert len(np.unique(np.concatenate(read_table(options(file, embedding="pca")).points), axis=0)) == 15


def test_an_embedding_is_for_annotated_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "cells.npz", times=TIMES, points=PCS)
    with pytest.raises(UserError, match=r"data.embedding='pca' is for AnnData files, and .*cells.npz is none: leave it out"):
        read_table(options(tmp_path / "cells.npz", embedding="pca"))


def test_without_anndata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path)
    monkeypatch.setattr(annotated, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=r"cells.h5ad is an AnnData file, which needs anndata: pip install 'amgen\[cells\]'"):
        read_table(options(file))
