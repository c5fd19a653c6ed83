"""Wasserstein-Fisher-Rao geodesics: ends, speed, action, derivatives, limits and single precision."""

import math

import pytest
import torch
from helpers import small_action
from torch import Tensor

from amgen.dynamics import Unbalanced
from amgen.losses import ConditionalLoss, MarginalLoss
from amgen.paths import SnapshotPath, WFRPath
from amgen.paths.wfr import geodesic

DELTA = 0.8


def ends(count: int = 200, seed: int = 0, delta: float = DELTA, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Random pairs in three dimensions: at distances of 0 to pi delta, with masses of 0.05 to 5."""
    random = torch.Generator().manual_seed(seed)
    start = torch.randn(count, 3, generator=random, dtype=torch.float64)
    way = torch.nn.functional.normalize(torch.randn(count, 3, generator=random, dtype=torch.float64), dim=1)
    length = math.pi * delta * torch.rand(count, 1, generator=random, dtype=torch.float64)
    masses = 0.05 + 5 * torch.rand(2, count, 1, generator=random, dtype=torch.float64)
    return torch.cat([start, masses[0]], dim=1).to(dtype), torch.cat([start + length * way, masses[1]], dim=1).to(dtype)


def at(share: float, start: Tensor, end: Tensor, delta: float = DELTA) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return geodesic(torch.full((len(start),), share, dtype=start.dtype), start, end, delta)


def theory(start: Tensor, end: Tensor, delta: float) -> Tensor:
    """Return 2 delta^2 (m_0 + m_1 - 2 kappa), (B,)."""
    distance = (end - start)[:, :-1].norm(dim=1)
    first, last = start[:, -1], end[:, -1]
    return 2 * delta**2 * (first + last - 2 * (first * last).sqrt() * (distance / (2 * delta)).cos())


def test_it_joins_the_ends() -> None:
    start, end = ends()
    for share, expected in ((0.0, start), (1.0, end)):
        x, _, mass, _ = at(share, start, end)
        torch.testing.assert_close(torch.cat([x, mass[:, None]], dim=1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.4, 0.99, 1.0])
def test_its_speed_is_constant_and_its_action_known(share: float) -> None:
    """m (1/2 |u|^2 + delta^2/2 r^2) is the same at every s, so it is the action itself; to rounding."""
    start, end = ends()
    _, velocity, mass, growth = at(share, start, end)
    energy = mass * (0.5 * velocity.square().sum(dim=1) + 0.5 * DELTA**2 * growth.square())
    torch.testing.assert_close(energy, theory(start, end, DELTA), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_velocity_and_growth_are_derivatives(share: float) -> None:
    """Central differences of step 1e-5. Near pi delta a geodesic turns quickly: pairs at less than 0.9 of it are tested."""
    start, end = ends()
    near = (end - start)[:, :-1].norm(dim=1) < 0.9 * math.pi * DELTA
    start, end, step = start[near], end[near], 1e-5
    _, velocity, _, growth = at(share, start, end)
    (ahead, _, more, _), (behind, _, less, _) = at(share + step, start, end), at(share - step, start, end)
    torch.testing.assert_close((ahead - behind) / (2 * step), velocity, rtol=0, atol=1e-6)
    torch.testing.assert_close((more.log() - less.log()) / (2 * step), growth, rtol=0, atol=1e-6)


def test_it_is_the_geodesic_in_its_other_form() -> None:
    """m = A s^2 - 2 B s + m_0 and the arc tangents of the literature, which are singular at both d = 0 and d = pi delta."""
    start, end = ends()
    way = (end - start)[:, :-1]
    distance = way.norm(dim=1)
    first, last = start[:, -1], end[:, -1]
    kappa = (first * last).sqrt() * (distance / (2 * DELTA)).cos()
    a, b, omega = first + last - 2 * kappa, first - kappa, 2 * DELTA * kappa * (distance / (2 * DELTA)).tan()
    share = 0.37
    x, velocity, mass, growth = at(share, start, end)
    expected = a * share**2 - 2 * b * share + first
    torch.testing.assert_close(mass, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(growth, (2 * a * share - 2 * b) / expected, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(velocity.norm(dim=1), omega / expected, rtol=1e-8, atol=0)
    moved = 2 * DELTA * (((a * share - b) * 2 * DELTA / omega).atan() + (2 * DELTA * b / omega).atan())
    torch.testing.assert_close((x - start[:, :-1]).norm(dim=1), moved, rtol=1e-7, atol=1e-9)


def test_without_a_distance_only_mass_changes() -> None:
    """d = 0 is the Fisher-Rao metric: sqrt(m) is linear in s."""
    start, end = ends()
    end = torch.cat([start[:, :-1], end[:, -1:]], dim=1)
    x, velocity, mass, _ = at(0.3, start, end)
    assert torch.equal(x, start[:, :-1])
    assert not velocity.any()
    torch.testing.assert_close(mass.sqrt(), 0.7 * start[:, -1].sqrt() + 0.3 * end[:, -1].sqrt(), rtol=1e-12, atol=0)


def test_with_costly_growth_it_is_a_straight_line() -> None:
    """delta = 1e6 differs from infinity by (d / delta)^2; with equal masses both are displacement interpolation."""
    start, end = ends()
    end[:, -1] = start[:, -1]
    for delta in (1e6, math.inf):
        x, velocity, mass, growth = at(0.3, start, end, delta)
        torch.testing.assert_close(x, 0.7 * start[:, :-1] + 0.3 * end[:, :-1], rtol=0, atol=1e-9)
        torch.testing.assert_close(velocity, end[:, :-1] - start[:, :-1], rtol=0, atol=1e-9)
        torch.testing.assert_close(mass, start[:, -1], rtol=1e-9, atol=0)
        assert growth.abs().max() < 1e-9
    torch.testing.assert_close(at(0.3, *ends(), 1e6)[0], at(0.3, *ends(), math.inf)[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("share", [0.0, 1e-12, 0.5, 1 - 6e-8])
def test_deaths_and_births_do_not_move(share: float) -> None:
    """m = (1 - s)^2 or s^2; growth rates are infinite at an end, but m r and m r^2 are not: |m r^2| <= 4, to float32's rounding."""
    point, one, zero = torch.randn(3, 2), torch.ones(3, 1), torch.zeros(3, 1)
    for start, end, root in ((one, zero, 1 - share), (zero, one, share)):
        x, velocity, mass, growth = at(share, torch.cat([point, start], dim=1), torch.cat([point, end], dim=1))
        assert torch.equal(x, point)
        assert not velocity.any()
        torch.testing.assert_close(mass, torch.full((3,), root**2), rtol=1e-4, atol=1e-14)
        assert growth.isfinite().all()
        assert (mass * growth.square()).max() < 4.001


@pytest.mark.parametrize("reach", [1e-30, 1e-7, 0.5, 1 - 1e-6, 1.0])
@pytest.mark.parametrize("masses", [(1.0, 1.0), (1e-12, 1.0), (1.0, 1e-12), (0.0, 1.0), (3e4, 1e-4)])
def test_single_precision_agrees_with_double(reach: float, masses: tuple[float, float]) -> None:
    """Positions within 1e-3 of the way, and all numbers finite, at all distances up to pi delta and for extreme masses."""
    start = torch.tensor([[0.0, masses[0]]], dtype=torch.float64)
    end = torch.tensor([[reach * math.pi * DELTA, masses[1]]], dtype=torch.float64)
    for share in (0.0, 1e-6, 0.3, 0.9, 1 - 6e-8):
        exact, single = at(share, start, end), at(share, start.float(), end.float())
        assert all(values.isfinite().all() for values in single)
        torch.testing.assert_close(single[2].double(), exact[2], rtol=1e-3, atol=1e-12)
        if 0 < share < 0.95:  # elsewhere the position of a vanishing mass turns within the rounding of s
            torch.testing.assert_close(single[0].double(), exact[0], rtol=0, atol=3e-3 * reach * math.pi * DELTA + 1e-37)


def pairs(count: int, times: int) -> Tensor:
    """Pairs for each of `times` - 1 intervals, float64; the second interval of a pair starts where the first ends, with the same mass."""
    parts = [ends(count, seed) for seed in range(times - 1)]
    for number in range(1, times - 1):
        parts[number] = (parts[number - 1][1], parts[number][1] - parts[number][0] + parts[number - 1][1])
        parts[number][1][:, -1] = ends(count, 10 + number)[1][:, -1]
    return torch.stack([point for part in parts for point in part], dim=1)


def test_the_path_covers_the_times() -> None:
    """t runs over all intervals; velocities and growth rates are in that unit, and samples have masses at both ends."""
    data, path = pairs(6, 3), WFRPath([2.0, 3.0, 7.0], DELTA)
    t = torch.full((6,), 0.2 + 0.8 * 0.25, dtype=torch.float64)
    sample = path.sample(t, torch.zeros(6, 3, dtype=torch.float64), data, boundary=True)
    x, velocity, mass, growth = at(0.25, data[:, 2], data[:, 3])
    torch.testing.assert_close(sample.x, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(sample.velocity, velocity / 0.8, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sample.mass, mass, rtol=1e-9, atol=0)
    torch.testing.assert_close(sample.growth, growth / 0.8, rtol=1e-9, atol=1e-9)
    assert sample.boundary is not None
    assert sample.boundary.start_mass is not None
    assert torch.equal(sample.boundary.start_mass, data[:, 0, -1])
    torch.testing.assert_close(sample.boundary.end, data[:, -1, :-1], rtol=0, atol=1e-12)


def test_at_an_infinite_scale_it_is_the_path_of_straight_lines() -> None:
    data = pairs(6, 3)
    data[..., -1] = 1
    tuples = torch.stack([data[:, 0], data[:, 1], data[:, 3]], dim=1)
    t, noise = torch.linspace(0.05, 0.95, 6, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    one = WFRPath([0, 1, 2], noise=0.1, weighted=False).sample(t, noise, data, score=True)
    other = SnapshotPath([0, 1, 2], noise=0.1).sample(t, noise, tuples, score=True)
    for name in ("x", "velocity", "score"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=1e-9)


def test_both_forms_have_the_same_gradient() -> None:
    """uAM along geodesics, with noise around them: mean gradients agree within 4 standard errors over 400 batches."""
    torch.manual_seed(0)
    action, path = small_action(3, torch.float64, width=8), WFRPath([0, 1, 2], DELTA, noise=0.2)
    data, dynamics = pairs(200, 3), Unbalanced(rate=DELTA**-2)
    losses = [form(action, path, dynamics) for form in (ConditionalLoss, MarginalLoss)]
    parameters = [p for p in action.parameters() if p.requires_grad]
    gradients: list[list[Tensor]] = [[], []]
    for _ in range(400):
        rows = torch.randint(len(data), (64,))
        t, noise = torch.rand(64, dtype=torch.float64), torch.randn(64, 3, dtype=torch.float64)
        for found, loss in zip(gradients, losses, strict=True):
            value = loss(path.sample(t, noise, data[rows], boundary=True)).loss.mean()
            parts = torch.autograd.grad(value, parameters, allow_unused=True)
            found.append(
                torch.cat([torch.zeros(p.numel()).double() if g is None else g.flatten() for p, g in zip(parameters, parts, strict=True)])
            )
    difference = torch.stack(gradients[0]) - torch.stack(gradients[1])
    error = difference.std(dim=0) / len(difference) ** 0.5
    assert (difference.mean(dim=0).abs() <= 4 * error + 1e-12).all()
    assert torch.stack(gradients[0]).mean(dim=0).norm() > 10 * error.norm()  # the gradient is no zero that anything agrees with
