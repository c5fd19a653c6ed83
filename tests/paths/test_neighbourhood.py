"""The neighbourhood of the training data: points like it are inside, points far from it are outside, in any dimension and unit."""

import pytest
import torch
from torch import Tensor

from amgen.paths import Neighbourhood, OptimalTransportCoupling, SnapshotPath
from amgen.paths.neighbourhood import MOST_NUMBERS, describe_outside, reference_size


def tuples(points: Tensor) -> Tensor:
    """Tuples (N, K + 1, D + 1) of points (N, K + 1, D), with mass 1, in order of time coupled by optimal transport."""
    whole = torch.cat([points, torch.ones(*points.shape[:2], 1)], dim=2)
    return OptimalTransportCoupling(len(points)).link(whole)


def population(count: int, dimension: int, scale: float = 1.0) -> Tensor:
    """Points of a bent population that moves and splits, (count, 3, dimension), at the times 0, 1 and 2."""
    x = torch.randn(count, 3, dimension)
    x[..., 0] += torch.tensor([0.0, 2.0, 4.0])
    x[:, 2, -1] += torch.where(torch.arange(count) % 2 == 0, 3.0, -3.0)
    return scale * x


def near(points: Tensor, noise: float = 0.0) -> Neighbourhood:
    return Neighbourhood(SnapshotPath([0, 1, 2], noise), torch.randn(len(points), points.shape[2]), tuples(points))


@pytest.mark.parametrize("dimension", [2, 10, 100, 1000])
def test_points_like_the_training_data_are_inside(dimension: int) -> None:
    """Other points of the same population, and points between them, at 7 times: at most 2 % are outside. Far away all are."""
    found, other = near(population(300, dimension)), tuples(population(300, dimension))
    path = SnapshotPath([0, 1, 2])
    for t in (0.0, 0.1, 0.25, 0.5, 0.6, 0.75, 1.0):
        x = path.sample(torch.full((300,), t), torch.zeros(300, dimension), other).x
        assert found.share_outside(x, t) <= 0.02
        assert found.share_outside(x.mean(dim=0) + 20 * (x - x.mean(dim=0)), t) > 0.9
        assert found.share_outside(x + 100, t) == 1


def test_it_is_that_of_the_time() -> None:
    """Points of the last time are outside at the first, where the population is not yet."""
    points = population(400, 2)
    points[:, 2, 0] += 20
    found = near(points)
    assert found.share_outside(points[:, 2], 1.0) < 0.02
    assert found.share_outside(points[:, 2], 0.0) == 1
    assert found.share_outside(points[:, 0], 0.0) == 0  # they are the reference


@pytest.mark.parametrize("scale", [1e-6, 1e5])
def test_units_do_not_matter(scale: float) -> None:
    """Scaled reference and points: the same ones are outside."""
    points, x = population(200, 3), 3 * population(200, 3)[:, 1]
    plain, scaled = near(points), near(scale * points)
    expected = plain.outside(x, 0.5)
    assert 0.1 < float(expected.double().mean()) < 0.9
    assert torch.equal(scaled.outside(scale * x, 0.5), expected)
    assert scaled.radius(0.3) == pytest.approx(scale * plain.radius(0.3), rel=1e-5)


def test_few_cells_and_copies_have_a_neighbourhood() -> None:
    """5 cells, each 20 times, at a first time with one cell alone: points among them are inside, others are not."""
    five = torch.randn(5, 2)
    points = five.repeat(20, 1)[:, None].repeat(1, 3, 1)
    points[:, 0] = 0
    found = near(points)
    assert found.share_outside(five, 1.0) == 0
    assert found.share_outside(five.mean(dim=0)[None], 1.0) == 0
    assert found.share_outside(five + 50, 1.0) == 1
    assert found.share_outside(torch.zeros(1, 2), 0.0) == 0
    assert found.share_outside(torch.full((1, 2), 50.0), 0.0) == 1
    alone = near(torch.zeros(3, 3, 2))
    assert (alone.radius(0.5), alone.share_outside(torch.zeros(1, 2), 0.5), alone.share_outside(torch.ones(1, 2), 0.5)) == (0, 0, 1)


def test_smoothing_widens_it() -> None:
    """On a line with noise 0.5 the points of the path are inside, and many would be outside without noise."""
    points = torch.randn(300, 3, 2) * torch.tensor([1.0, 0.0])
    smooth, thin = near(points, noise=0.5), near(points)
    x = points[:, 1] + 0.5 * torch.randn(300, 2)
    assert smooth.share_outside(x, 0.5) < 0.02
    assert thin.share_outside(x, 0.5) > 0.3


def test_a_torus_has_no_edge() -> None:
    """With period 4, points on both sides of the seam are neighbours."""
    points = torch.full((200, 2, 1), 2.0) + 0.05 * torch.randn(200, 2, 1)
    data = torch.cat([(points + 2) % 4 - 2, torch.ones(200, 2, 1)], dim=2)
    found = Neighbourhood(SnapshotPath([0, 1], period=4.0), torch.zeros(200, 1), data)
    assert found.share_outside(torch.tensor([[-1.99], [1.99], [-2.0]]), 0.5) == 0
    assert found.share_outside(torch.tensor([[0.0], [1.0]]), 0.5) == 1


def test_points_that_are_not_finite_are_outside() -> None:
    found = near(population(50, 2))
    assert found.outside(torch.tensor([[torch.nan, 0.0], [torch.inf, 0.0], [1e30, 0.0], [0.0, 0.0]]), 0.0).tolist() == [
        True,
        True,
        True,
        False,
    ]
    assert found.share_outside(torch.zeros(0, 2), 0.0) == 0


def test_it_is_the_same_from_its_tensors() -> None:
    found = near(population(50, 2), noise=0.1)
    again = Neighbourhood(found.path, **found.tensors)
    assert again.radius(0.4) == pytest.approx(found.radius(0.4), rel=1e-6)


def test_references_are_bounded() -> None:
    assert reference_size([100, 300], 10) == 300
    assert reference_size([100_000], 10) == 2_000
    assert reference_size([100_000], 5_000) == MOST_NUMBERS // 5_000
    assert reference_size([1], 10) == 2


def test_a_line_says_which_time_is_worst() -> None:
    line = describe_outside([0, 1.5, 2], [0.0, 0.4, 0.12])
    assert line is not None
    assert line.startswith("40 % of the points left the neighbourhood of the training data by t = 1.5: the action is extrapolated there.")
    assert describe_outside([0, 1], [0.05, 0.01]) is None
    assert describe_outside([], []) is None
