"""Pairs of a stream that samples plans of transport between whole snapshots."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from amgen.config import SnapshotsConfig
from amgen.core.errors import UserError
from amgen.data import PairStream, SnapshotDataset, Snapshots, growth_scale, neighbour_plans

DELTA = 1.0
COUNTS = (30, 50, 40)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amgen.data.pairs.FOLDER", str(tmp_path / "plans"))


def population(far: bool = False, scale: float = 1.0) -> SnapshotDataset:
    """Points at three times in two dimensions, with masses; with `far`, a fifth of the first die and a fifth of the second are born."""
    random = np.random.default_rng(0)
    points = [scale * (random.normal(size=(count, 2)) + np.array([0.5 * number, 0])) for number, count in enumerate(COUNTS)]
    if far:
        points[0][:6] += 100
        points[1][:10] -= 100
    masses = [random.uniform(0.5, 2, size=count) for count in COUNTS]
    options = SnapshotsConfig(path="none.csv", dimension=2, standardize="none", mass_key="mass")
    return SnapshotDataset(Snapshots([0.0, 1.0, 3.0], points, masses, "test"), options)


@pytest.mark.parametrize("far", [False, True])
def test_means_over_items_are_sums_over_the_snapshots(far: bool) -> None:
    """Weighted means of positions, and masses, at each end: within 4 standard errors over 60 epochs."""
    dataset = population(far)
    stream = PairStream(dataset, 3, neighbour_plans(dataset, DELTA, 4000))
    for interval, length in enumerate((50, 50)):
        epochs = [stream.__getitems__(range(number * length, (number + 1) * length)).images for number in range(60)]
        for side in (0, 1):
            table = dataset.tables[interval + side].double()
            weighted = torch.cat([torch.ones(len(table), 1), table[:, :-1]], dim=1) * table[:, -1:]
            ends = torch.stack([epoch[:, 2 * interval + side].double() for epoch in epochs])
            found = (torch.cat([torch.ones(*ends.shape[:2], 1), ends[..., :-1]], dim=2) * ends[..., -1:]).mean(dim=1)
            error = found.std(dim=0) / len(found) ** 0.5
            # A systematic sample that happens to be exact has no deviation: allow for rounding in float32.
            assert ((found.mean(dim=0) - weighted.mean(dim=0)).abs() <= 4 * error + 1e-4).all()


def test_deaths_and_births_are_sampled() -> None:
    dataset = population(far=True)
    stream = PairStream(dataset, 0, neighbour_plans(dataset, DELTA, 4000))
    first, last = stream.__getitems__(range(500)).images[:, :2].unbind(dim=1)
    dead, born = last[:, -1] == 0, first[:, -1] == 0
    assert dead.any()
    assert born.any()
    assert torch.equal(first[dead, :-1], last[dead, :-1])
    assert torch.equal(first[born, :-1], last[born, :-1])
    assert (first[dead, 0] > 50).any()
    assert (last[born, 0] < -50).any()


def test_an_item_is_a_function_of_the_seed_and_its_index() -> None:
    dataset = population()
    plans = neighbour_plans(dataset, DELTA, 4000)
    whole = PairStream(dataset, 3, plans).__getitems__(range(120))
    parts = [pickle.loads(pickle.dumps(PairStream(dataset, 3, plans))).__getitems__(range(start, start + 8)) for start in range(0, 120, 8)]
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    assert torch.equal(torch.cat([part.noise for part in parts]), whole.noise)
    assert not torch.equal(PairStream(dataset, 4, plans).__getitems__(range(120)).images, whole.images)
    assert whole.images.shape == (120, 4, 3)
    # Within an epoch of 50 items each pair occurs its share of times, rounded up or down.
    plan, pairs = plans[0], PairStream(dataset, 3, plans).__getitems__(range(50)).images[:, :2]
    weight = plan.start_mass + plan.end_mass
    for number in range(len(weight)):
        start = dataset.tables[0][plan.rows[number], :-1]
        end = dataset.tables[1][plan.columns[number], :-1]
        times = int(((pairs[:, 0, :-1] == start).all(dim=1) & (pairs[:, 1, :-1] == end).all(dim=1)).sum())
        assert abs(times - 50 * float(weight[number] / weight.sum())) < 1 + 1e-9


def test_plans_are_kept_and_a_damaged_file_is_solved_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dataset = population()
    first = neighbour_plans(dataset, DELTA, 4000)
    files = sorted((tmp_path / "plans").glob("*.npz"))
    assert len(files) == 2
    files[0].write_bytes(b"damaged")
    again = neighbour_plans(dataset, DELTA, 4000)
    assert files[0].stat().st_size > 100

    def solve(*arguments: object) -> None:
        raise AssertionError("all plans are in the folder")

    monkeypatch.setattr("amgen.data.pairs.wfr_plan", solve)
    read = neighbour_plans(dataset, DELTA, 4000)
    for plans in (again, read):
        assert all(torch.equal(one.start_mass, other.start_mass) for one, other in zip(first, plans, strict=True))
    monkeypatch.undo()
    monkeypatch.setattr("amgen.data.pairs.FOLDER", "/proc/none")  # where nothing can be written
    assert torch.equal(neighbour_plans(dataset, DELTA, 4000)[0].rows, first[0].rows)


def test_the_scale_of_growth_follows_the_unit_of_the_points() -> None:
    """In units 8 times as small it is 8 times as large, to its 3 digits; it lies between the median and the largest distance."""
    scale = growth_scale(population())
    assert growth_scale(population(scale=8)) == pytest.approx(8 * scale, rel=0.01)
    (first, second, _) = population().tables
    largest = float(torch.cdist(first[:, :-1], second[:, :-1]).max())
    assert 0.5 < scale < largest


def test_a_scale_at_which_nothing_moves_is_refused() -> None:
    with pytest.raises(UserError, match=r"dynamics.delta=1e-06: 0.0% of the mass at time 0 has points within pi delta"):
        neighbour_plans(population(), 1e-6, 4000)


def test_points_that_never_move_have_no_scale() -> None:
    points = np.zeros((5, 2))
    options = SnapshotsConfig(path="none.csv", dimension=2, standardize="none")
    same = SnapshotDataset(Snapshots([0.0, 1.0], [points, points], [np.ones(5), np.ones(5)], "test"), options)
    with pytest.raises(UserError, match="the points of all times are the same"):
        growth_scale(same)


def test_large_snapshots_are_solved_by_groups_with_all_masses() -> None:
    dataset = population()
    plan = neighbour_plans(dataset, math.inf, 100)[0]
    assert plan.groups == 1
    whole = population()
    grouped = neighbour_plans(whole, DELTA, 20)[0]
    assert grouped.groups == 3
    masses = whole.tables[0][:, -1].double() / 30
    found = torch.zeros(30, dtype=torch.float64).index_add_(0, grouped.rows[grouped.rows >= 0], grouped.start_mass[grouped.rows >= 0])
    torch.testing.assert_close(found, masses, rtol=1e-9, atol=0)
