"""The path between snapshots: its points, velocities, masses and couplings; and both forms of the loss on it against each other."""

import itertools

import numpy as np
import pytest
import torch
from helpers import small_action
from torch import Tensor

from amgen.dynamics import Balanced, DynamicsType, Entropic, Unbalanced
from amgen.losses import ConditionalLoss, MarginalLoss
from amgen.paths import Conditioning, IndependentCoupling, OptimalTransportCoupling, SnapshotPath

TIMES = (2.0, 3.0, 7.0)
PLACES = (0.0, 0.2, 1.0)


def chains(count: int, dimension: int = 2) -> Tensor:
    """Random chains over `TIMES` with masses, float64."""
    points = torch.randn(count, len(TIMES), dimension, dtype=torch.float64)
    return torch.cat([points, torch.rand(count, len(TIMES), 1, dtype=torch.float64) + 0.5], dim=2)


def at(path: SnapshotPath, time: float, data: Tensor) -> tuple[Tensor, Tensor]:
    noise = torch.zeros(len(data), data.shape[2] - 1, dtype=data.dtype)
    return path.interpolate(torch.full((len(data),), time, dtype=data.dtype), noise, data, Conditioning())


def test_the_path_passes_through_the_snapshots() -> None:
    data, path = chains(5), SnapshotPath(TIMES)
    assert path.times.tolist() == pytest.approx(PLACES)
    for place, time in enumerate(PLACES):
        torch.testing.assert_close(at(path, time, data)[0], data[:, place, :-1], rtol=0, atol=1e-12)
    following = (data[:, 2, :-1] - data[:, 1, :-1]) / 0.8
    torch.testing.assert_close(at(path, float(path.times[1]), data)[1], following)  # at a snapshot it leaves, from there to the next
    torch.testing.assert_close(at(path, 0.6, data)[0], 0.5 * (data[:, 1, :-1] + data[:, 2, :-1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("time", [0.05, 0.15, 0.3, 0.9])
def test_velocity_and_growth_are_derivatives(time: float) -> None:
    """Central differences; points and masses are linear in t, so that only rounding is left, and (1e-6) the logarithm's third order."""
    data, path, step = chains(5), SnapshotPath(TIMES, weighted=True), 1e-4
    x, velocity = at(path, time, data)
    ahead, behind = at(path, time + step, data)[0], at(path, time - step, data)[0]
    torch.testing.assert_close((ahead - behind) / (2 * step), velocity, rtol=0, atol=1e-9)
    torch.testing.assert_close((ahead + behind) / 2, x, rtol=0, atol=1e-12)

    def log_mass(t: float) -> Tensor:
        return path.masses(torch.full((5,), t, dtype=torch.float64), data)[0].log()

    growth = path.masses(torch.full((5,), time, dtype=torch.float64), data)[1]
    torch.testing.assert_close((log_mass(time + step) - log_mass(time - step)) / (2 * step), growth, rtol=0, atol=1e-6)


def test_samples_carry_masses_and_both_ends() -> None:
    data, t, noise = chains(4), torch.tensor([0.0, 0.1, 0.2, 1.0], dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    sample = SnapshotPath(TIMES, noise=0.1, weighted=True).sample(t, noise, data, boundary=True, score=True)
    assert sample.mass is not None
    assert sample.score is not None
    torch.testing.assert_close(sample.mass[[0, 2, 3]], data[[0, 2, 3], [0, 1, 2], -1])
    torch.testing.assert_close(sample.x[0], data[0, 0, :-1] + 0.1 * noise[0])
    torch.testing.assert_close(sample.score, -noise / 0.1)
    torch.testing.assert_close(sample.boundary.start, data[:, 0, :-1] + 0.1 * noise)
    torch.testing.assert_close(sample.boundary.end, data[:, -1, :-1] + 0.1 * noise)
    torch.testing.assert_close(sample.boundary.start_mass, data[:, 0, -1])
    torch.testing.assert_close(sample.boundary.end_mass, data[:, -1, -1])
    plain = SnapshotPath(TIMES).sample(t, noise, data, boundary=True, score=True)
    assert plain.mass is plain.growth is plain.score is plain.boundary.start_mass is None
    torch.testing.assert_close(SnapshotPath(TIMES, 0.1).prior(noise, data), data[:, 0, :-1] + 0.1 * noise)


def test_generation_starts_from_the_first_time() -> None:
    """From its points and, where masses count, with its masses; the chains have to be given."""
    data, path = chains(4), SnapshotPath(TIMES, weighted=True)
    assert path.conditional
    assert torch.equal(path.shown(data, Conditioning()), data[:, 0, :2])
    start = path.start_mass(data)
    assert start is not None
    assert torch.equal(start, data[:, 0, 2])
    assert path.start_mass(None) is None
    assert SnapshotPath(TIMES).start_mass(data) is None


def test_on_a_torus_lines_go_the_shorter_way() -> None:
    """From 1.9 to -1.9 with period 4 it is 0.2 forward, through the seam."""
    data = torch.tensor([[[1.9, 1.0], [-1.9, 1.0]]], dtype=torch.float64)
    path = SnapshotPath((0, 1), period=4.0)
    x, velocity = at(path, 0.25, data)
    torch.testing.assert_close(velocity, torch.full_like(velocity, 0.2))
    torch.testing.assert_close(x, torch.full_like(x, 1.95))
    torch.testing.assert_close(at(path, 0.75, data)[0], torch.full_like(x, -1.95))


@pytest.mark.parametrize("period", [None, 3.0])
def test_links_are_optimal(period: float | None) -> None:
    """In each group of 5 no other assignment of neighbours has less squared distance; points stay at their times, masses with them."""
    data = chains(10)
    linked = OptimalTransportCoupling(5, period).link(data)

    def cost(first: Tensor, second: Tensor) -> float:
        step = (first - second)[..., :-1]
        if period is not None:
            step = (step + period / 2).remainder(period) - period / 2
        return float(step.square().sum())

    for group in range(0, 10, 5):
        rows = linked[group : group + 5]
        for time in range(len(TIMES)):
            assert sorted(map(tuple, rows[:, time].tolist())) == sorted(map(tuple, data[group : group + 5, time].tolist()))
        for time in range(1, len(TIMES)):
            best = min(cost(rows[:, time - 1], rows[list(order), time]) for order in itertools.permutations(range(5)))
            assert cost(rows[:, time - 1], rows[:, time]) == pytest.approx(best, rel=1e-9)
    assert torch.equal(linked[:, 0], data[:, 0])
    assert torch.equal(IndependentCoupling().link(data), data)


KINDS: dict[str, DynamicsType] = {"balanced": Balanced(), "entropic": Entropic(lambda t: 0.5 + t), "unbalanced": Unbalanced(0.7)}


@pytest.mark.parametrize("name", KINDS)
def test_both_forms_have_the_same_gradient(name: str, dtype: torch.dtype) -> None:
    """Mean over 80 batches of the difference, in the directions of 12 random parameters, within 4.5 standard errors of zero.

    On chains over three times with noise; for unbalanced dynamics with masses. The conditional gradient itself is far from zero.
    """
    kind, weighted = KINDS[name], name == "unbalanced"
    path = SnapshotPath(TIMES, noise=0.5, weighted=weighted)
    action = small_action(2, dtype)
    losses = [form(action, path, kind) for form in (ConditionalLoss, MarginalLoss)]
    parameters = list(action.parameters())
    directions = [[torch.randn_like(parameter) for parameter in parameters] for _ in range(12)]
    differences, conditional = [], []
    for _ in range(80):
        data = chains(256).to(dtype)
        data[:, 1:, :-1] += 0.5 * data[:, :-1, :-1]
        t = ((torch.arange(256) + torch.rand(256)) / 256).to(dtype)
        sample = path.sample(t, torch.randn(256, 2, dtype=dtype), data, boundary=True, score=True)
        gradients = [torch.autograd.grad(loss(sample).loss.mean(), parameters, allow_unused=True) for loss in losses]
        along = [
            torch.stack(
                [
                    sum((g * d).sum() for g, d in zip(gradient, direction, strict=True) if g is not None)  # type: ignore[misc]
                    for direction in directions
                ]
            )
            for gradient in gradients
        ]
        differences.append(along[1] - along[0])
        conditional.append(along[0])
    difference, own = torch.stack(differences), torch.stack(conditional)
    score = difference.mean(dim=0) / (difference.std(dim=0) / np.sqrt(80))
    assert float(score.abs().max()) < 4.5
    assert float((own.mean(dim=0) / (own.std(dim=0) / np.sqrt(80))).abs().max()) > 6
