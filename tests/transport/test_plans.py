"""Plans of unbalanced transport against closed forms, other solvers, and both bounds."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, minimize
from torch import Tensor

from amgen.core.errors import UserError
from amgen.transport import Plan, cost_matrix, dual_value, primal_value, wfr_cost, wfr_distance, wfr_plan
from amgen.transport.dense import FEW_PAIRS

Problem = tuple[Tensor, Tensor, Tensor, Tensor]


def problem(n: int, m: int, dimension: int, seed: int = 0, spread: float = 0.5, shift: float = 0.7) -> Problem:
    """Two clusters of points with unequal masses, 3 times as much at the end."""
    random = torch.Generator().manual_seed(seed)

    def side(count: int, mean: float) -> Tensor:
        centres = torch.tensor([0.0, 2.0], dtype=torch.float64)[torch.randint(2, (count, 1), generator=random)]
        return centres + mean + spread * torch.randn(count, dimension, generator=random, dtype=torch.float64)

    def masses(count: int) -> Tensor:
        return torch.rand(count, generator=random, dtype=torch.float64) + 0.1

    return side(n, 0.0), side(m, shift), masses(n), 3 * masses(m)


def totals(plan: Plan, n: int, m: int) -> tuple[Tensor, Tensor]:
    """The start masses of each row, the end masses of each column."""
    start, end = torch.zeros(n, dtype=torch.float64), torch.zeros(m, dtype=torch.float64)
    start.index_add_(0, plan.rows[plan.rows >= 0], plan.start_mass[plan.rows >= 0])
    end.index_add_(0, plan.columns[plan.columns >= 0], plan.end_mass[plan.columns >= 0])
    return start, end


def assert_exact_masses(plan: Plan, a: Tensor, b: Tensor) -> None:
    start, end = totals(plan, len(a), len(b))
    torch.testing.assert_close(start, a, rtol=1e-12, atol=0)
    torch.testing.assert_close(end, b, rtol=1e-12, atol=0)
    assert not plan.start_mass[plan.rows < 0].any()
    assert not plan.end_mass[plan.columns < 0].any()
    assert min(plan.start_mass.min(), plan.end_mass.min()) >= 0


@pytest.mark.parametrize("distance", [0.0, 1e-9, 0.3, 2.0, 3.0, math.pi * (1 - 1e-7)])
@pytest.mark.parametrize(("first", "second"), [(1.0, 1.0), (3.0, 0.2), (1e-9, 5.0)])
@pytest.mark.parametrize("delta", [1.0, 1e-3, 40.0])
def test_two_points(distance: float, first: float, second: float, delta: float) -> None:
    """One pair: a + b - 2 sqrt(a b) cos(d / (2 delta)), from P = sqrt(a b) cos(d / (2 delta))."""
    x, y = torch.zeros(1, 2), torch.tensor([[0.0, distance * delta]], dtype=torch.float64)
    plan = wfr_plan(x, y, torch.tensor([first], dtype=torch.float64), torch.tensor([second], dtype=torch.float64), delta)
    expected = first + second - 2 * math.sqrt(first * second) * math.cos(distance / 2)
    assert plan.primal == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert plan.dual == pytest.approx(expected, rel=1e-4, abs=1e-12)
    assert (plan.rows.tolist(), plan.columns.tolist()) == ([0], [0])
    assert (plan.start_mass.item(), plan.end_mass.item()) == pytest.approx((first, second), rel=1e-14)


def test_growth_alone_where_points_stay() -> None:
    """Far clusters that stay in place: the sum of (sqrt a - sqrt b)^2."""
    x = 100 * torch.arange(7, dtype=torch.float64)[:, None].expand(-1, 3)
    a, b = torch.linspace(0.1, 4, 7, dtype=torch.float64), torch.linspace(9, 0.2, 7, dtype=torch.float64)
    plan = wfr_plan(x, x.clone(), a, b, delta=1.0, tolerance=1e-9)
    assert plan.primal == pytest.approx(float((a.sqrt() - b.sqrt()).square().sum()), rel=1e-9)
    assert plan.rows.equal(plan.columns)
    torch.testing.assert_close(plan.start_mass, a, rtol=1e-14, atol=0)


def test_nothing_is_reached() -> None:
    x, y, a, b = problem(30, 40, 3)
    plan = wfr_plan(x, y, a, b, delta=1e-6)
    assert plan.primal == plan.dual == pytest.approx(float(a.sum() + b.sum()), rel=1e-14)
    assert not plan.transported.any()
    assert int((plan.columns < 0).sum()) == 30
    assert int((plan.rows < 0).sum()) == 40
    assert_exact_masses(plan, a, b)


def test_what_lies_beyond_dies_and_is_born() -> None:
    x, y = torch.tensor([[0.0], [50.0]]), torch.tensor([[0.5], [-70.0]])
    plan = wfr_plan(x, y, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]), delta=1.0)
    assert list(zip(plan.rows.tolist(), plan.columns.tolist(), strict=True)) == [(-1, 1), (0, 0), (1, -1)]
    assert plan.start_mass.tolist() == [0, 1, 2]
    assert plan.end_mass.tolist() == [3, 1, 0]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("delta", [0.4, 1.0, 5.0])
def test_against_a_general_solver(seed: int, delta: float) -> None:
    """The dual of a tiny problem by sequential quadratic programming (SciPy)."""
    x, y, a, b = problem(3, 4, 2, seed)
    cost = cost_matrix(x, y, delta).numpy()
    masses = np.r_[a.numpy(), b.numpy()]
    reached = [(i, j) for i, j in product(range(3), range(4)) if np.isfinite(cost[i, j])]
    pairs = np.array([np.r_[np.eye(3)[i], np.eye(4)[j]] for i, j in reached])
    costs = np.array([cost[pair] for pair in reached])
    found = minimize(
        lambda p: -masses @ -np.expm1(-p),
        np.zeros(7),
        jac=lambda p: -masses * np.exp(-p),
        constraints={"type": "ineq", "fun": lambda p: costs - pairs @ p, "jac": lambda p: -pairs},
        bounds=[(-30, 30)] * 7,
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-13},
    )
    assert found.success
    plan = wfr_plan(x, y, a, b, delta, tolerance=1e-6)
    assert -1e-8 <= plan.primal + found.fun <= 1.1e-6 * plan.primal + 1e-8
    assert -1e-8 <= -found.fun - plan.dual <= 1.1e-6 * plan.primal + 1e-8


@pytest.mark.parametrize("delta", [0.7, 2.0])
def test_against_pot(delta: float) -> None:
    """POT's majorisation-minimisation approaches the optimum from above."""
    ot = pytest.importorskip("ot")
    x, y, a, b = problem(40, 60, 3)
    cost = cost_matrix(x, y, delta).clamp(max=1e3)
    mass = torch.as_tensor(ot.unbalanced.mm_unbalanced(a.numpy(), b.numpy(), cost.numpy(), 1.0, div="kl", numItermax=30_000, stopThr=0))
    rows, columns = (index.flatten() for index in torch.meshgrid(torch.arange(40), torch.arange(60), indexing="ij"))
    other = primal_value(mass.flatten(), cost.flatten(), rows, columns, a, b)
    plan = wfr_plan(x, y, a, b, delta)
    assert plan.relative_gap <= 1e-4
    assert plan.dual <= other
    assert plan.primal <= other + plan.gap
    assert other - plan.primal < 1e-3 * plan.primal


@pytest.mark.parametrize(("n", "m", "dimension"), [(1, 30, 2), (30, 1, 2), (25, 40, 300), (700, 900, 2), (900, 700, 20)])
@pytest.mark.parametrize("delta", [0.3, 2.0, 100.0, math.inf])
def test_bounds_and_masses(n: int, m: int, dimension: int, delta: float) -> None:
    """The gap is small, feasible duals stay below, and the semi-couplings have the masses."""
    x, y, a, b = problem(n, m, dimension)
    plan = wfr_plan(x, y, a, b, delta)
    assert 0 <= plan.relative_gap <= 1e-4
    assert_exact_masses(plan, a, b)
    cost = cost_matrix(x, y, delta)
    random = torch.Generator().manual_seed(1)
    for _ in range(3):
        g = torch.rand(m, generator=random, dtype=torch.float64) * min(1.0, float(cost[cost.isfinite()].mean()))
        f = (cost - g).amin(dim=1)
        if math.isinf(delta):
            unit = (a.sum() * b.sum()).sqrt()
            below = float(unit * (a @ f / a.sum() + b @ g / b.sum()))
        else:
            below = dual_value(f, g, a, b)
        assert below <= plan.primal * (1 + 1e-12)


def test_sizes_cover_both_stages() -> None:
    assert 25 * 40 < FEW_PAIRS < 700 * 900


@pytest.mark.parametrize("delta", [0.7, 2.0])
def test_action_of_the_semi_couplings(delta: float) -> None:
    """m_0 + m_1 - 2 sqrt(m_0 m_1) cos(d / (2 delta)) sums to the value."""
    x, y, a, b = problem(200, 300, 3)
    plan = wfr_plan(x, y, a, b, delta)
    pairs = plan.transported
    distance = (x[plan.rows[pairs]] - y[plan.columns[pairs]]).norm(dim=1)
    assert (distance < math.pi * delta).all()
    kappa = (plan.start_mass * plan.end_mass).sqrt()[pairs] * (distance / (2 * delta)).cos()
    value = float(plan.start_mass.sum() + plan.end_mass.sum() - 2 * kappa.sum())
    assert plan.dual <= value <= plan.primal + 3 * plan.gap
    assert plan.action == 2 * delta**2 * plan.primal


@pytest.mark.parametrize("delta", [0.5, 2.0, math.inf])
def test_symmetry(delta: float) -> None:
    x, y, a, b = problem(150, 220, 4)
    there, back = wfr_plan(x, y, a, b, delta), wfr_plan(y, x, b, a, delta)
    assert max(there.dual, back.dual) <= min(there.primal, back.primal) * (1 + 1e-12)


@pytest.mark.parametrize("delta", [1.0, math.inf])
def test_units_of_mass_and_length(delta: float) -> None:
    x, y, a, b = problem(120, 90, 3)
    plan, scaled = wfr_plan(x, y, a, b, delta), wfr_plan(1e3 * x, 1e3 * y, 1e-7 * a, 1e-7 * b, 1e3 * delta)
    factor = 1e-7 if math.isfinite(delta) else 1e-1
    assert scaled.primal == pytest.approx(factor * plan.primal, rel=2e-4)


def test_far_from_the_origin() -> None:
    x, y, a, b = problem(50, 60, 3)
    assert wfr_plan(x + 1e5, y + 1e5, a, b, 1.0).primal == pytest.approx(wfr_plan(x, y, a, b, 1.0).primal, rel=2e-4)


def test_balanced_is_the_assignment() -> None:
    """Equal masses: the linear assignment problem (SciPy)."""
    x, y, _, _ = problem(150, 150, 3)
    plan = wfr_plan(x, y, torch.ones(150), torch.ones(150), None, tolerance=1e-6)
    cost = cost_matrix(x, y, math.inf).numpy()
    expected = cost[linear_sum_assignment(cost)].sum()
    assert plan.dual <= expected * (1 + 1e-12)
    assert expected <= plan.primal <= expected * (1 + 2e-6)
    torch.testing.assert_close(plan.start_mass, plan.end_mass, rtol=0, atol=1e-9)


def test_balanced_with_masses() -> None:
    """Unequal masses: POT's network simplex. Totals that differ are rescaled to their geometric mean."""
    ot = pytest.importorskip("ot")
    x, y, a, b = problem(80, 130, 3)
    plan = wfr_plan(x, y, a, b, math.inf)
    expected = ot.emd2((a / a.sum()).numpy(), (b / b.sum()).numpy(), cost_matrix(x, y, math.inf).numpy())
    expected *= math.sqrt(float(a.sum() * b.sum()))
    assert plan.dual <= expected * (1 + 1e-12)
    assert expected * (1 - 1e-12) <= plan.primal <= expected * (1 + 1e-4)
    torch.testing.assert_close(plan.start_mass / a.sum(), plan.end_mass / b.sum(), rtol=0, atol=1e-9)


def test_growing_delta_tends_to_balanced_transport() -> None:
    x, y, a, _ = problem(100, 100, 3)
    b = a.flip(0)
    balanced = wfr_plan(x, y, a, b, None)
    for delta, error in ((30.0, 1e-2), (300.0, 3e-4)):
        plan = wfr_plan(x, y, a, b, delta)
        assert plan.action == pytest.approx(balanced.action, rel=error)
        assert wfr_distance(plan.primal, delta) == pytest.approx(wfr_distance(balanced.primal, math.inf), rel=error)


def test_masses_of_zero_and_of_all_sizes() -> None:
    x, y, a, b = problem(60, 70, 2)
    a[::3], b[1::4] = 0, 0
    plan = wfr_plan(x, y, a, b, 1.0)
    assert not torch.isin(plan.rows, torch.arange(0, 60, 3)).any()
    assert not torch.isin(plan.columns, torch.arange(1, 70, 4)).any()
    small = wfr_plan(x[a > 0], y[b > 0], a[a > 0], b[b > 0], 1.0)
    assert plan.primal == small.primal
    a = torch.logspace(-150, 3, 60, dtype=torch.float64)
    plan = wfr_plan(x, y, a, b, 1.0)
    assert_exact_masses(plan, a, b)
    assert plan.relative_gap <= 1e-4
    assert wfr_plan(x, y, torch.zeros(60), b, 1.0).primal == pytest.approx(float(b.sum()))


def test_duplicates() -> None:
    """Copies of a point share its mass: the value is that of the points without copies."""
    x, y, a, b = problem(40, 50, 2)
    copies = wfr_plan(x.repeat(4, 1), y.repeat(5, 1), a.repeat(4) / 4, b.repeat(5) / 5, 1.0)
    assert copies.primal == pytest.approx(wfr_plan(x, y, a, b, 1.0).primal, rel=2e-4)
    assert copies.relative_gap <= 1e-4
    same = wfr_plan(torch.zeros(900, 3), torch.zeros(800, 3), torch.ones(900), torch.ones(800), 1.0)
    assert same.primal == pytest.approx((30 - math.sqrt(800)) ** 2, rel=1e-4)


def test_the_same_arguments_give_the_same_plan() -> None:
    x, y, a, b = problem(700, 900, 3)
    first, second = wfr_plan(x, y, a, b, 1.0, group=400, seed=3), wfr_plan(x, y, a, b, 1.0, group=400, seed=3)
    for name in ("rows", "columns", "start_mass", "end_mass"):
        assert getattr(first, name).equal(getattr(second, name))
    other = wfr_plan(x, y, a, b, 1.0, group=400, seed=4)
    assert not (len(other.rows) == len(first.rows) and other.columns.equal(first.columns))


@pytest.mark.parametrize(("n", "m", "count"), [(500, 520, 3), (450, 80, 3), (90, 700, 4), (500, 250, 3)])
@pytest.mark.parametrize("delta", [1.0, math.inf])
def test_groups(n: int, m: int, count: int, delta: float) -> None:
    """Masses are exact, and the ratio of masses is that of the whole in every group."""
    x, y, a, b = problem(n, m, 3)
    whole, plan = wfr_plan(x, y, a, b, delta), wfr_plan(x, y, a, b, delta, group=200)
    assert (whole.groups, plan.groups) == (1, count)
    assert plan.relative_gap <= 1e-4
    assert_exact_masses(plan, a, b)
    # Fewer points to choose from cost more on average; samples of a few hundred points come close.
    assert whole.dual < plan.primal < (1.5 if math.isfinite(delta) else 2.0) * whole.primal


def test_groups_of_growth_alone() -> None:
    """At one place every group has the ratio of the whole, so the values of the groups sum to (sqrt A - sqrt B)^2."""
    random = torch.Generator().manual_seed(0)
    a, b = (torch.rand(count, generator=random, dtype=torch.float64) ** 4 for count in (300, 170))
    plan = wfr_plan(torch.zeros(300, 2), torch.zeros(170, 2), a, b, 1.0, group=50, tolerance=1e-6)
    assert plan.groups == 6
    assert plan.primal == pytest.approx(float((a.sum().sqrt() - b.sum().sqrt()) ** 2), rel=1e-5)


def test_costs() -> None:
    angles = torch.tensor([0.0, 1e-8, 0.1, 1.5, math.pi / 2 - 1e-6, math.pi / 2, 9.0], dtype=torch.float64)
    expected = [0, 1e-16, *(-2 * math.log(math.cos(angle)) for angle in (0.1, 1.5)), -2 * math.log(1e-6), math.inf, math.inf]
    torch.testing.assert_close(wfr_cost(2 * 3 * angles, 3.0), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)


ONE = torch.ones(1)
POINT = torch.zeros(1, 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"a": -ONE}, "the mass of point 0 at the start is -1: expected a mass >= 0"),
        ({"b": ONE * math.nan}, "a mass of point 0 at the end is not finite"),
        ({"y": torch.tensor([[0.0, math.inf]])}, "a coordinate of point 0 at the end is not finite"),
        ({"x": torch.zeros(1, 3)}, "points of 3 dimensions at the start and 2 at the end"),
        ({"x": torch.zeros(2)}, "expected \\(N, D\\) and \\(N,\\)"),
        ({"a": torch.ones(2)}, "expected \\(N, D\\) and \\(N,\\)"),
        ({"y": torch.zeros(0, 2), "b": torch.zeros(0)}, "expected \\(N, D\\) and \\(N,\\)"),
        ({"a": 0 * ONE, "b": 0 * ONE}, "all masses at the start and the end are 0"),
        ({"a": 0 * ONE, "delta": math.inf}, "all masses at the start are 0"),
        ({"delta": 0.0}, "delta is 0: expected a length > 0"),
        ({"delta": math.nan}, "delta is nan"),
        ({"group": 0}, "group is 0"),
        ({"tolerance": 0.0}, "tolerance is 0"),
    ],
)
def test_bad_input(changed: dict[str, Tensor | float], message: str) -> None:
    arguments = {"x": POINT, "y": POINT, "a": ONE, "b": ONE, "delta": 1.0} | changed
    with pytest.raises(UserError, match=message):
        wfr_plan(**arguments)  # type: ignore[arg-type]
