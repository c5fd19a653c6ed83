"""Snapshots as training sees them: standardized, in multi-marginal tuples that are a function of (seed, n)."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from amgen.config import SimulatedConfig, SnapshotsConfig
from amgen.data import SnapshotDataset, open_dataset, training_stream
from amgen.data.systems.mixture import Mixture
from amgen.data.systems.ornstein_uhlenbeck import OrnsteinUhlenbeck
from amgen.data.units import Units

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def unpaired(tmp_path_factory: pytest.TempPathFactory) -> SnapshotDataset:
    file = tmp_path_factory.mktemp("table") / "cells.npz"
    np.savez(file, times=np.repeat([0, 1, 2], [5, 8, 3]), points=RNG.normal(size=(16, 2)))
    return open_dataset(SnapshotsConfig(path=str(file), dimension=2))


def test_every_epoch_visits_every_point_once(unpaired: SnapshotDataset) -> None:
    """Each time in epochs of its own: 120 items are 24, 15 and 40 of them."""
    tuples = training_stream(unpaired, 0).__getitems__(range(120)).images
    for place, count in enumerate((5, 8, 3)):
        own = unpaired.floats(range(count))[:, place].unique(dim=0)
        for epoch in range(120 // count):
            assert torch.equal(tuples[epoch * count : (epoch + 1) * count, place].unique(dim=0), own)
    first, second = tuples[:8, 1], tuples[8:16, 1]
    assert not torch.equal(first, second)


def test_items_do_not_depend_on_how_they_are_batched(unpaired: SnapshotDataset) -> None:
    whole = training_stream(unpaired, 3).__getitems__(range(40))
    parts = [pickle.loads(pickle.dumps(training_stream(unpaired, 3))).__getitems__(range(start, start + 8)) for start in range(0, 40, 8)]
    assert torch.equal(whole.images, torch.cat([part.images for part in parts]))
    assert torch.equal(whole.noise, torch.cat([part.noise for part in parts]))
    assert not torch.equal(whole.images, training_stream(unpaired, 4).__getitems__(range(40)).images)


def test_paired_rows_stay_together() -> None:
    dataset = open_dataset(SimulatedConfig(system="ornstein-uhlenbeck", particles=7, snapshots=4))
    tuples = training_stream(dataset, 0).__getitems__(range(14)).images
    rows = dataset.floats(range(7))
    for row in tuples:
        assert any(torch.equal(row, other) for other in rows)
    assert torch.equal(dataset.floats([8, 3]), rows[[1, 3]])


@pytest.mark.parametrize("standardize", ["none", "global", "columns", "whiten"])
def test_standardized_coordinates(standardize: str) -> None:
    """Mean 0 and unit variance (of all columns, of each, or as a covariance) to the 6 digits of the record; and the inverse."""
    points = RNG.normal(size=(500, 3)) @ np.array([[3.0, 0, 0], [1, 1, 0], [0, 2, 0.1]]) + [5, 0, -1]
    units = Units.measure(points, standardize)
    standardized = units.transform(torch.as_tensor(points))
    torch.testing.assert_close(units.inverse_transform(standardized).double(), torch.as_tensor(points), rtol=0, atol=1e-5)
    covariance = np.cov(standardized.double().numpy(), rowvar=False, bias=True)
    if standardize == "none":
        torch.testing.assert_close(standardized, torch.as_tensor(points).float())
        return
    np.testing.assert_allclose(standardized.double().mean(dim=0), 0, atol=1e-4)
    assert np.trace(covariance) == pytest.approx(3, rel=1e-4)
    if standardize == "columns":
        np.testing.assert_allclose(np.diag(covariance), 1, rtol=1e-4)
    if standardize == "whiten":
        np.testing.assert_allclose(covariance, np.eye(3), atol=1e-3)
    if standardize == "global":  # distances keep their ratios
        ratio = torch.cdist(standardized[:5], standardized[5:10]).double() / torch.cdist(
            torch.as_tensor(points[:5]), torch.as_tensor(points[5:10])
        )
        assert float(ratio.std() / ratio.mean()) < 1e-5


def test_the_record_makes_the_same_data(unpaired: SnapshotDataset) -> None:
    again = open_dataset(unpaired.options.model_copy(update=unpaired.record()))
    assert torch.equal(again.floats(range(5)), unpaired.floats(range(5)))
    assert again.record() == unpaired.record()


def test_the_process_has_its_moments() -> None:
    """Means and variances of 20,000 trajectories within 4.5 standard errors of the closed form; covariances of two times."""
    process, count = OrnsteinUhlenbeck(), 20_000
    paths = process.trajectories(count, np.array([0.0, 0.3, 1.0]), np.random.default_rng(0))
    for t, points in zip((0.0, 0.3, 1.0), paths, strict=True):
        variance = process.variance(t)
        assert (np.abs(points.mean(axis=0) - process.mean(t)) < 4.5 * np.sqrt(variance / count)).all()
        assert (np.abs(points.var(axis=0) / variance - 1) < 4.5 * np.sqrt(2 / count)).all()
    covariance = np.cov(paths[1, :, 0], paths[2, :, 0])[0, 1]
    assert covariance == pytest.approx(process.variance(0.3)[0] * np.exp(-2.0 * 0.7), rel=0.05)


def test_mixture_moves_its_mass(tmp_path: Path) -> None:
    """Points do not move, and their masses add up to the weights of the components at every time."""
    dataset = open_dataset(SimulatedConfig(system="mixture", particles=5000, snapshots=3))
    mixture = Mixture()
    for t, points, masses in zip(dataset.source.times, dataset.source.points, dataset.source.masses, strict=True):
        assert np.array_equal(points, dataset.source.points[0])
        shares = np.bincount(mixture.nearest(points), masses, 3) / 5000
        np.testing.assert_allclose(shares, mixture.shares(t), atol=0.05)
    assert dataset.source.masses[0].tolist() == [1.0] * 5000
