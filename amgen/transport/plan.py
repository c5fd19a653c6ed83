"""A plan of transport with births and deaths: the pairs and the masses at their two ends."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """Pairs of points of two populations, with their masses at both ends (semi-couplings).

    The start masses of the pairs of row i sum to a_i, the end masses of the pairs of column j to b_j. The pairs are sorted by row, then by
    column; deaths stand before the other pairs of their row, births before all.

    Attributes:
        rows: index of the start point, int64 (E,); -1 for mass that is born at its end point.
        columns: index of the end point, int64 (E,); -1 for mass that dies at its start point.
        start_mass: m_0 >= 0, float64 (E,); 0 for a birth.
        end_mass: m_1 >= 0, float64 (E,); 0 for a death.
        primal: value of the transport plan that the pairs come from, an upper bound of the optimum. See `amgen.transport` for the problem.
        dual: value of a feasible point of the dual problem, a lower bound of the optimum.
        delta: length scale of growth; infinite for balanced transport.
        groups: number of groups that were solved apart. `primal` and `dual` are then sums over the problems of the groups. Their
            difference says how exactly these were solved, not what the groups cost.
    """

    rows: Tensor
    columns: Tensor
    start_mass: Tensor
    end_mass: Tensor
    primal: float
    dual: float
    delta: float = math.inf
    groups: int = 1

    @property
    def gap(self) -> float:
        """Duality gap: no plan is better than this one by more."""
        return self.primal - self.dual

    @property
    def relative_gap(self) -> float:
        """Duality gap divided by the primal value; 0 where both are 0."""
        return self.gap / self.primal if self.primal > 0 else 0.0

    @property
    def transported(self) -> Tensor:
        """Whether each entry is a pair of two points, neither a birth nor a death, bool (E,)."""
        return (self.rows >= 0) & (self.columns >= 0)

    @property
    def action(self) -> float:
        """Action of the geodesic: 2 delta^2 times the primal value; the primal value itself for balanced transport."""
        return self.primal if math.isinf(self.delta) else 2 * self.delta**2 * self.primal

    def summary(self) -> str:
        """Return one line: pairs, shares of mass that die and are born, the gap."""
        died = float(self.start_mass[self.columns < 0].sum() / self.start_mass.sum().clamp(min=1e-300))
        born = float(self.end_mass[self.rows < 0].sum() / self.end_mass.sum().clamp(min=1e-300))
        grouped = f" in {self.groups} groups" if self.groups > 1 else ""
        return (
            f"{int(self.transported.sum()):,} pairs{grouped}, {died:.2%} of the mass dies, {born:.2%} is born, "
            f"value {self.primal:.6g}, duality gap {self.relative_gap:.1e} of it"
        )


Entries = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows, columns and masses of the entries of a sparse matrix, each (E,)."""

NEGLIGIBLE = 1e-5
"""Share of the mass of a row and of a column below which an entry of a transport plan is dropped."""


def drop_negligible(entries: Entries, count: int, columns_count: int, share: float = NEGLIGIBLE) -> np.ndarray:
    """Return which entries carry more than `share` of the mass of their row or of their column, bool (E,)."""
    rows, columns, mass = entries
    sent, received = totals(rows, mass, count), totals(columns, mass, columns_count)
    return (mass > share * sent[rows]) | (mass > share * received[columns])


def totals(index: np.ndarray, mass: np.ndarray, count: int) -> np.ndarray:
    """Return the sum of the masses of each index, float64 (count,)."""
    return np.bincount(index, weights=mass, minlength=count)


def semi_couplings(entries: Entries, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, columns, start masses and end masses of a transport plan, with its births and deaths, unsorted.

    m_0 = a_i P_ij / (P 1)_i and m_1 = b_j P_ij / (P^T 1)_j. A row without entries dies, a column without entries is born.
    """
    rows, columns, mass = entries
    # The totals of rows with the least masses may be subnormal: divide by the largest entry first.
    start = a[rows] * _shares(rows, mass, len(a))
    end = b[columns] * _shares(columns, mass, len(b))
    dead = np.flatnonzero((np.bincount(rows, minlength=len(a)) == 0) & (a > 0))
    born = np.flatnonzero((np.bincount(columns, minlength=len(b)) == 0) & (b > 0))
    none = np.full
    return (
        np.concatenate([none(len(born), -1), dead, rows]),
        np.concatenate([born, none(len(dead), -1), columns]),
        np.concatenate([np.zeros(len(born)), a[dead], start]),
        np.concatenate([b[born], np.zeros(len(dead)), end]),
    )


def _shares(index: np.ndarray, mass: np.ndarray, count: int) -> np.ndarray:
    """Return each entry's share of the total of its index, (E,)."""
    largest = np.zeros(count)
    np.maximum.at(largest, index, mass)
    scaled = mass / largest[index]
    return scaled / totals(index, scaled, count)[index]


def assemble(
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]], primal: float, dual: float, delta: float, groups: int
) -> Plan:
    """Return the plan of all parts, sorted; equal pairs of several parts become one."""
    rows, columns, start, end = (np.concatenate(values) for values in zip(*parts, strict=True))
    order = np.lexsort((columns, rows))
    rows, columns, start, end = rows[order], columns[order], start[order], end[order]
    first = np.ones(len(rows), dtype=bool)
    first[1:] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
    begin = np.flatnonzero(first)
    if len(begin) < len(rows):
        rows, columns, start, end = rows[begin], columns[begin], np.add.reduceat(start, begin), np.add.reduceat(end, begin)
    tensors = [torch.from_numpy(np.ascontiguousarray(values)) for values in (rows, columns)]
    masses = [torch.from_numpy(np.ascontiguousarray(values)) for values in (start, end)]
    return Plan(tensors[0].long(), tensors[1].long(), masses[0], masses[1], primal, min(dual, primal), delta, groups)
