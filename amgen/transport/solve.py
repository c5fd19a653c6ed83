"""Plans of transport between two point sets, of large ones by groups."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from amgen.core.errors import UserError
from amgen.core.names import WFR_GROUP
from amgen.core.randomness import Purpose, permutation
from amgen.transport.costs import cost_matrix, pair_costs
from amgen.transport.dense import FEW_PAIRS, REACH, Problem, feasible_dual, nearly_tight, solve_dense
from amgen.transport.plan import Entries, Plan, assemble, drop_negligible, semi_couplings, totals
from amgen.transport.sparse import SparseProblem
from amgen.transport.values import primal_value

GROUP = WFR_GROUP
"""Most points of a side that are solved together."""

TOLERANCE = 1e-4
"""Relative duality gap at which the solver stops."""

FAILED = 0.05
"""Share of the mass that may be misplaced when eps falls."""

LEVELS = 60
"""Most rounds of the second stage; eps is halved from one to the next unless Newton's method has not converged."""


def wfr_plan(
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    delta: float | None,
    group: int = GROUP,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> Plan:
    """Return the plan of unbalanced optimal transport from the masses a at x to the masses b at y.

    The same arguments give the same plan. Sets of more than `group` points are cut into random parts; pairs of parts are solved apart.
    The masses of each pair of parts are rescaled so that they have the same ratio of totals as the whole; a side with fewer parts than the
    other lends each of its parts to several, with shares of its masses. Memory is that of one pair of parts.

    Args:
        x: points at the start, (N, D), N >= 1.
        y: points at the end, (M, D), M >= 1.
        a: masses at the start, (N,), >= 0; points of mass 0 are in no pair.
        b: masses at the end, (M,), >= 0.
        delta: length scale of growth, > 0, in the unit of the points; nothing is transported farther than pi delta. None or `math.inf`:
            balanced transport with the cost d^2 / 2. Masses with different totals are then rescaled to the geometric mean of the totals,
            and the masses at the two ends of a pair differ by the ratio of the totals.
        group: most points of a side that are solved together.
        seed: seed of the random parts.
        tolerance: relative duality gap to reach, > 0.

    Returns:
        The plan, whose `dual` says how far from the optimum it may be.

    Raises:
        UserError: if shapes do not agree, a number is not finite, or a mass, `delta`, `group` or `tolerance` is out of its range.

    Example:
        A point of mass 1 moves to one of mass 4. A point that is farther than pi delta from all others dies.

        >>> import torch
        >>> from amgen.transport import wfr_plan
        >>> x, y = torch.tensor([[0.0], [50.0]]), torch.tensor([[1.0]])
        >>> plan = wfr_plan(x, y, a=torch.tensor([1.0, 2.0]), b=torch.tensor([4.0]), delta=1.0)
        >>> plan.rows.tolist(), plan.columns.tolist(), plan.start_mass.tolist(), plan.end_mass.tolist()
        ([0, 1], [0, -1], [1.0, 2.0], [4.0, 0.0])
        >>> round(plan.primal, 6)  # (1 + 4 - 2 sqrt(1 * 4) cos(1 / 2)) + 2
        3.48967
    """
    x, y, a, b = (torch.as_tensor(values).detach().to("cpu", torch.float64) for values in (x, y, a, b))
    delta = math.inf if delta is None else float(delta)
    _check(x, y, a, b, delta, group, tolerance)
    rows, columns = a.nonzero().flatten(), b.nonzero().flatten()
    if not len(rows) or not len(columns):
        value = float(a.sum() + b.sum())
        return assemble([semi_couplings(_nothing(), a.numpy(), b.numpy())], value, value, delta, 1)
    parts, primal, dual = [], 0.0, 0.0
    for part in _parts(a, b, rows, columns, group, seed):
        solved = _solve(x[part.rows], y[part.columns], part.a, part.b * part.scale, delta, tolerance)
        primal, dual = primal + solved.primal, dual + solved.dual
        i, j, start, end = semi_couplings(solved.entries, part.a.numpy(), part.b.numpy())
        parts.append((_of(part.rows, i), _of(part.columns, j), start, end))
    return assemble(parts, primal, dual, delta, len(parts))


def _check(x: Tensor, y: Tensor, a: Tensor, b: Tensor, delta: float, group: int, tolerance: float) -> None:
    """Refuse what has no plan."""
    for name, points, masses in (("start", x, a), ("end", y, b)):
        if points.ndim != 2 or masses.shape != points.shape[:1] or not len(points) or not points.shape[1]:
            raise UserError(
                f"points of shape {tuple(points.shape)} with masses of shape {tuple(masses.shape)} at the {name}: "
                "expected (N, D) and (N,), N >= 1, D >= 1"
            )
        for what, values in (("coordinate", points), ("mass", masses)):
            if not values.isfinite().all():
                index = int((~values.isfinite()).nonzero()[0, 0])
                raise UserError(f"a {what} of point {index} at the {name} is not finite: remove the point or repair it")
        if (masses < 0).any():
            index = int((masses < 0).nonzero()[0])
            raise UserError(f"the mass of point {index} at the {name} is {float(masses[index]):g}: expected a mass >= 0")
    if x.shape[1] != y.shape[1]:
        raise UserError(f"points of {x.shape[1]} dimensions at the start and {y.shape[1]} at the end: expected the same number")
    if not delta > 0:
        raise UserError(f"delta is {delta:g}: expected a length > 0, or infinity for transport without growth")
    if group < 1:
        raise UserError(f"group is {group}: expected a number of points >= 1")
    if not tolerance > 0:
        raise UserError(f"tolerance is {tolerance:g}: expected a relative duality gap > 0, such as {TOLERANCE:g}")
    empty = [name for name, masses in (("start", a), ("end", b)) if not masses.any()]
    if len(empty) == 2 or (empty and math.isinf(delta)):
        raise UserError(f"all masses at the {' and the '.join(empty)} are 0: expected a positive one")


def _of(members: Tensor, index: np.ndarray) -> np.ndarray:
    """Return the members at the indices, -1 where the index is -1."""
    return np.where(index < 0, -1, members.numpy()[index])


def _nothing() -> Entries:
    """Return no entries."""
    return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)


@dataclass(frozen=True)
class _Part:
    """Points that are solved together: indices and masses of both sides, and the factor of b that restores the ratio of the totals."""

    rows: Tensor
    columns: Tensor
    a: Tensor
    b: Tensor
    scale: float


def _parts(a: Tensor, b: Tensor, rows: Tensor, columns: Tensor, group: int, seed: int) -> Iterator[_Part]:
    """Cut both sides into random parts of at most `group` points and yield pairs of parts that use up all masses."""
    row_parts, column_parts = _cut(rows, group, seed, 0), _cut(columns, group, seed, 1)
    ratio = float(a.sum() / b.sum())
    count = max(len(row_parts), len(column_parts))
    # Part t of one side meets part t (mod its number of parts) of the other, and gets a share of it in proportion to its own mass.
    # The masses of a point are divided last and the largest first, so that shares of one part are 1 exactly.
    first = [float(a[part].sum()) for part in row_parts]
    second = [float(b[part].sum()) for part in column_parts]
    for t in range(count):
        i, j = t % len(row_parts), t % len(column_parts)
        row_share = second[t] / sum(second[i :: len(row_parts)]) if len(row_parts) < count else 1.0
        column_share = first[t] / sum(first[j :: len(column_parts)]) if len(column_parts) < count else 1.0
        row_masses, column_masses = a[row_parts[i]] * row_share, b[column_parts[j]] * column_share
        scale = float(row_masses.sum() / column_masses.sum()) / ratio if count > 1 else 1.0
        yield _Part(row_parts[i], column_parts[j], row_masses, column_masses, scale)


def _cut(members: Tensor, group: int, seed: int, side: int) -> list[Tensor]:
    """Return the members in random parts of nearly equal size, each in ascending order."""
    count = -(-len(members) // group)
    if count == 1:
        return [members]
    order = members[permutation(seed, Purpose.TRANSPORT_GROUPS, side, len(members))]
    return [part.sort().values for part in order.tensor_split(count)]


@dataclass(frozen=True)
class _Solution:
    """Entries of a transport plan, its value, and a lower bound of the optimum."""

    entries: Entries
    primal: float
    dual: float


def _solve(x: Tensor, y: Tensor, a: Tensor, b: Tensor, delta: float, tolerance: float) -> _Solution:
    """Solve one problem with positive masses; for balanced transport each side is rescaled to the geometric mean of the totals."""
    growth = int(not math.isinf(delta))
    unit = math.sqrt(float(a.sum())) * math.sqrt(float(b.sum()))
    a, b = (a / unit, b / unit) if growth else (a / a.sum(), b / b.sum())
    cost = cost_matrix(x, y, delta)
    rows, columns = cost.amin(dim=1).isfinite(), cost.amin(dim=0).isfinite()
    lost = float(a[~rows].sum() + b[~columns].sum())
    if not rows.any():
        return _Solution(_nothing(), lost * unit, lost * unit)
    if not (rows.all() and columns.all()):
        cost = cost[rows][:, columns]
    i, j = rows.nonzero().flatten(), columns.nonzero().flatten()
    found = _solve_reachable(Problem(cost, a[i], b[j], growth), x[i], y[j], tolerance, lost)
    row, column, mass = i.numpy()[found.entries[0]], j.numpy()[found.entries[1]], found.entries[2] * unit
    # At the edge of what is reached, the costs of all pairs may be finite where the difference of the points says otherwise.
    reached = pair_costs(x, y, torch.from_numpy(row), torch.from_numpy(column), delta).isfinite().numpy()
    return _Solution((row[reached], column[reached], mass[reached]), (found.primal + lost) * unit, (found.dual + lost) * unit)


def _solve_reachable(problem: Problem, x: Tensor, y: Tensor, tolerance: float, lost: float) -> _Solution:
    """Solve a problem in which every point has one that it reaches; `lost` is the value of all others."""
    start = solve_dense(problem)
    f, g, epsilon = start.f, start.g, start.epsilon
    small = problem.cost.numel() <= FEW_PAIRS
    sparse = _on_pairs(problem, f, g, math.inf if small else epsilon)
    best = _Solution(_nothing(), math.inf, -math.inf)
    # An optimum of less than 1e-4 of the usual cost needs no smaller gap than one of that size; 1e-13 is the rounding of the values.
    least = max(1e-4 * start.scale, 1e-13 / tolerance)
    # A marginal that is off by e costs e^2 and more, which must be small beside the costs.
    exact = 1e-7 if not problem.growth else max(1e-7, 1e-3 * min(1.0, start.scale))
    potentials, tries, falls = g.numpy(), 0, 0
    for level in range(LEVELS):
        f_now, potentials, plan, error = sparse.solve(potentials, max(epsilon, 1e-300), exact)
        entries = _finished(problem, (sparse.rows, sparse.columns, plan.data), x, y)
        primal = _primal(problem, entries)
        if primal < best.primal:
            best = _Solution(entries, primal, best.dual)
        allowed = tolerance * max(best.primal + lost, least)
        if best.primal - sparse.dual_bound(potentials) <= allowed or level == LEVELS - 1 or epsilon == 0:
            dual, feasible = feasible_dual(problem, torch.from_numpy(f_now), torch.from_numpy(potentials))
            best = _Solution(best.entries, best.primal, max(best.dual, dual))
            if best.primal - best.dual <= allowed or epsilon == 0:
                break
            # Pairs that the second stage does not have matter. Feasible potentials have no slack below 0.
            epsilon, potentials = 2 * epsilon, feasible[1].numpy()
            sparse = _on_pairs(problem, *feasible, epsilon)
        elif error > 10 * exact and tries < 3:
            tries += 1
        elif error > FAILED and falls < 3:
            # eps fell too fast.
            epsilon, tries, falls = 8 * epsilon, 0, falls + 1
            sparse = _on_pairs(problem, torch.from_numpy(f_now), torch.from_numpy(potentials), math.inf if small else epsilon)
        else:
            epsilon, tries = epsilon / 2, 0
            sparse = sparse.narrowed(f_now, potentials, 1.5 * REACH * epsilon)
    return best


def _on_pairs(problem: Problem, f: Tensor, g: Tensor, epsilon: float) -> SparseProblem:
    """Return the problem on the pairs that are nearly tight."""
    rows, columns = nearly_tight(problem, f, g, epsilon)
    cost = problem.cost[torch.from_numpy(rows), torch.from_numpy(columns)].numpy()
    finite = np.isfinite(cost)
    return SparseProblem(rows[finite], columns[finite], cost[finite], problem.a.numpy(), problem.b.numpy(), problem.growth)


def _primal(problem: Problem, entries: Entries) -> float:
    """Return the value of a transport plan."""
    rows, columns, mass = (torch.from_numpy(values) for values in entries)
    cost = problem.cost[rows, columns]
    return primal_value(mass, cost, rows, columns, problem.a, problem.b) if problem.growth else float(mass @ cost)


def _finished(problem: Problem, entries: Entries, x: Tensor, y: Tensor) -> Entries:
    """Return the transport plan without negligible entries: scaled to the least value, or with its exact marginals if it is balanced."""
    rows, columns, mass = entries
    kept = drop_negligible(entries, len(problem.a), len(problem.b), *(() if problem.growth else (1e-8,))) & (mass > 0)
    rows, columns, mass = rows[kept], columns[kept], mass[kept]
    a, b = problem.a.numpy(), problem.b.numpy()
    if not problem.growth:
        return _rounded((rows, columns, mass), a, b, x, y)
    cost = problem.cost[torch.from_numpy(rows), torch.from_numpy(columns)].numpy()
    sent, received = totals(rows, mass, len(a)), totals(columns, mass, len(b))
    # The value of t P has the derivative sum P C + sum p log(t p / a) + sum q log(t q / b).
    slope = mass @ cost + sum(float(p[p > 0] @ np.log(p[p > 0] / q[p > 0])) for p, q in ((sent, a), (received, b)))
    return rows, columns, mass * math.exp(-slope / (2 * mass.sum())) if len(mass) else mass


def _rounded(entries: Entries, a: np.ndarray, b: np.ndarray, x: Tensor, y: Tensor) -> Entries:
    """Return a plan with the marginals a and b near the given one: rows and columns with too much are scaled down, what is left is paired.

    Altschuler, Weed and Rigollet (arXiv 1705.09634) pair the rest as a product, which has no zeros; here it is paired in the order of one
    coordinate.
    """
    rows, columns, mass = entries
    mass = mass * np.minimum(1.0, a / np.maximum(totals(rows, mass, len(a)), 1e-300))[rows]
    mass = mass * np.minimum(1.0, b / np.maximum(totals(columns, mass, len(b)), 1e-300))[columns]
    axis = int(x.var(dim=0, correction=0).argmax())
    order, other = x[:, axis].argsort(stable=True).numpy(), y[:, axis].argsort(stable=True).numpy()
    left = np.maximum(a - totals(rows, mass, len(a)), 0)[order].cumsum()
    right = np.maximum(b - totals(columns, mass, len(b)), 0)[other].cumsum()
    if left[-1] <= 0 or right[-1] <= 0:
        return rows, columns, mass
    right *= left[-1] / right[-1]
    ends = np.union1d(left, right)
    width = np.diff(ends, prepend=0.0)
    more_rows = order[np.minimum(np.searchsorted(left, ends), len(a) - 1)]
    more_columns = other[np.minimum(np.searchsorted(right, ends), len(b) - 1)]
    some = width > 0
    return np.r_[rows, more_rows[some]], np.r_[columns, more_columns[some]], np.r_[mass, width[some]]
