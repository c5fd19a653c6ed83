"""Second stage of the solver: Newton's method for the entropic problem on few pairs, with eps falling to where it no longer matters.

For given g the best f is known in closed form, so the dual objective H(g) = max_f F(f, g) is maximised over g alone. With p = P 1 and
q = P^T 1:

    gradient   b e^-g - q,
    -Hessian   (diag(q + eps b e^-g) - P^T diag(p + eps a e^-f)^-1 P) / eps,

and Newton's equations are solved by conjugate gradients, whose steps are products of P and P^T with vectors. Unlike Sinkhorn's iteration it
does not slow down as eps falls, nor between clusters that exchange little mass.
"""

import math

import numpy as np
import scipy.sparse as sp

NEWTON_STEPS = 8
GRADIENT_STEPS = 150
"""Most Newton steps of a level, and most steps of conjugate gradients for each."""

FARTHEST = 30.0
"""Largest change of a potential in one step, in units of eps."""


class SparseProblem:
    """The entropic problem on a set of pairs that holds every row and every column.

    Args:
        rows: rows of the pairs, ascending, (E,).
        columns: columns of the pairs, (E,).
        cost: their costs, float64 (E,).
        a: masses of the rows, (N,).
        b: masses of the columns, (M,).
        growth: 1 for the unbalanced problem, 0 for the balanced one.
    """

    def __init__(self, rows: np.ndarray, columns: np.ndarray, cost: np.ndarray, a: np.ndarray, b: np.ndarray, growth: int):
        self.rows, self.columns, self.cost, self.a, self.b, self.growth = rows, columns, cost, a, b, growth
        self._begin = np.zeros(len(a) + 1, dtype=np.int32)
        np.cumsum(np.bincount(rows, minlength=len(a)), out=self._begin[1:])
        self._indices = columns.astype(np.int32)
        self._reference = np.log(b)[columns] - 0.5 * (math.log(a.sum()) + math.log(b.sum()))

    def narrowed(self, f: np.ndarray, g: np.ndarray, reach: float) -> "SparseProblem":
        """Return the problem on the pairs with C - f - g < reach; a row or column without any keeps its tightest pair."""
        slack = self.slack(f, g)
        chosen = slack < reach
        for index in (self.rows, self.columns):
            served = np.zeros(int(index.max()) + 1, dtype=bool)
            served[index[chosen]] = True
            left = np.flatnonzero(~served[index])
            if len(left):
                left = left[np.lexsort((slack[left], index[left]))]
                chosen[left[np.r_[True, np.diff(index[left]) > 0]]] = True
        return SparseProblem(self.rows[chosen], self.columns[chosen], self.cost[chosen], self.a, self.b, self.growth)

    def slack(self, f: np.ndarray, g: np.ndarray) -> np.ndarray:
        """Return C - f - g of the pairs, (E,)."""
        return self.cost - f[self.rows] - g[self.columns]

    def dual_bound(self, g: np.ndarray) -> float:
        """Return the dual value of g and its c-transform: a lower bound of the optimum of the problem on these pairs only."""
        f = np.minimum.reduceat(self.cost - g[self.columns], self._begin[:-1])
        return self._value(f, g)

    def best_f(self, g: np.ndarray, epsilon: float) -> tuple[np.ndarray, sp.csr_array, float]:
        """Return the f that maximises F(f, g), the transport plan of both and H(g)."""
        entries = (g[self.columns] - self.cost) / epsilon + self._reference
        largest = np.maximum.reduceat(entries, self._begin[:-1])
        entries -= largest[self.rows]
        np.exp(entries, out=entries)
        sums = np.add.reduceat(entries, self._begin[:-1])
        f = -epsilon * (largest + np.log(sums)) / (1 + self.growth * epsilon)
        sent = self.a * np.exp(-self.growth * f)
        entries *= (sent / sums)[self.rows]
        plan = sp.csr_array((entries, self._indices, self._begin), shape=(len(self.a), len(self.b)))
        return f, plan, self._value(f, g) - epsilon * sent.sum()

    def _value(self, f: np.ndarray, g: np.ndarray) -> float:
        with np.errstate(over="ignore"):
            if self.growth:
                return float(-(self.a @ np.expm1(-f)) - self.b @ np.expm1(-g))
            return float(self.a @ f + self.b @ g)

    def solve(
        self, g: np.ndarray, epsilon: float, tolerance: float = 1e-3, steps: int = NEWTON_STEPS
    ) -> tuple[np.ndarray, np.ndarray, sp.csr_array, float]:
        """Return f, g, the transport plan of the entropic problem, and its error: the sum of |b e^-g - q| as a share of the mass.

        Args:
            g: potentials to start from.
            epsilon: weight of the entropy.
            tolerance: error at which the iteration ends.
            steps: most Newton steps.
        """
        f, plan, value = self.best_f(g, epsilon)
        for left in range(steps, -1, -1):
            received, wanted = plan.sum(axis=0), self._wanted(g)
            gradient = wanted - received
            error = float(np.abs(gradient).sum() / wanted.sum())
            if error < tolerance or not left:
                break
            direction = self._newton(plan, received, wanted, gradient, f, epsilon)
            slope, length = float(gradient @ direction), 1.0
            while slope > 0:
                tried = g + length * direction
                found = self.best_f(tried, epsilon)
                if found[2] >= value + 1e-4 * length * slope - 1e-15 * abs(value):
                    g, (f, plan, value) = tried, found
                    break
                length /= 2
                if length < 1e-3:
                    break
            if slope <= 0 or length < 0.2:  # far from the quadratic regime
                g, f, plan, value = self._sinkhorn(g, plan, epsilon)
        return f, g, plan, error

    def _wanted(self, g: np.ndarray) -> np.ndarray:
        """Return b e^-g, or b for balanced transport."""
        return self.b * np.exp(-g) if self.growth else self.b

    def _newton(
        self, plan: sp.csr_array, received: np.ndarray, wanted: np.ndarray, gradient: np.ndarray, f: np.ndarray, epsilon: float
    ) -> np.ndarray:
        """Return the solution of Newton's equations by conjugate gradients with the diagonal as preconditioner."""
        diagonal = received + self.growth * epsilon * wanted + 1e-300
        sent = np.maximum(self.a * np.exp(-self.growth * f), 1e-300) * (1 + self.growth * epsilon)
        transposed = plan.T
        solution, residual = np.zeros_like(gradient), epsilon * gradient
        step = residual / diagonal
        first = current = float(residual @ step)
        for _ in range(GRADIENT_STEPS):
            product = diagonal * step - transposed @ ((plan @ step) / sent)
            curvature = float(step @ product)
            if curvature <= 0:
                break
            solution += current / curvature * step
            residual -= current / curvature * product
            scaled = residual / diagonal
            previous, current = current, float(residual @ scaled)
            if current < 1e-2 * first:
                break
            step = scaled + current / previous * step
        # The second order of exp(g / eps) holds no farther.
        return np.clip(np.nan_to_num(solution), -FARTHEST * epsilon, FARTHEST * epsilon)

    def _sinkhorn(
        self, g: np.ndarray, plan: sp.csr_array, epsilon: float, steps: int = 5
    ) -> tuple[np.ndarray, np.ndarray, sp.csr_array, float]:
        """Return g, f, the transport plan and H(g) after some of Sinkhorn's iterations."""
        for _ in range(steps):
            received = np.maximum(plan.sum(axis=0), 1e-300)
            g = (g - epsilon * np.log(received / self.b)) / (1 + self.growth * epsilon)
            f, plan, value = self.best_f(g, epsilon)
        return g, f, plan, value
