"""Grids of the steps between t = 0 and t = 1."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

from amgen.core.errors import UserError, unknown
from amgen.core.names import STEP_GRID, STEP_GRID_RHO, StepGridName

GRIDS: tuple[StepGridName, ...] = tuple(sorted(get_args(StepGridName)))
"""Names of the grids."""


@dataclass(frozen=True)
class StepGrid:
    """Times from 0 to 1: t_n = T(n / steps).

        uniform:     T(s) = s                        equal steps
        cosine:      T(s) = (1 - cos(pi s)) / 2      short steps at both ends
        polynomial:  T(s) = 1 - (1 - s)^rho          short steps near the data for rho > 1, near the noise for rho < 1

    Choose the uniform grid first. The polynomial grid with rho = 2 suits SDEs whose noise is G sqrt(a_t).

    Attributes:
        steps: number of steps.
        kind: uniform, cosine or polynomial.
        rho: exponent of the polynomial grid.

    Raises:
        UserError: for fewer than one step, an unknown kind or an exponent that is not positive.

    Example:
        >>> from amgen.solvers import StepGrid
        >>> StepGrid(4).times()
        [0.0, 0.25, 0.5, 0.75, 1.0]
        >>> StepGrid(4, "polynomial", rho=2).times()
        [0.0, 0.4375, 0.75, 0.9375, 1.0]
    """

    steps: int
    kind: StepGridName = STEP_GRID
    rho: float = STEP_GRID_RHO

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"steps={self.steps}: expected at least 1")
        if self.kind not in GRIDS:
            raise unknown("step grid", self.kind, GRIDS)
        if not self.rho > 0:
            raise UserError(f"rho={self.rho}: expected a positive number")

    def times(self) -> list[float]:
        """Return the steps + 1 times, increasing, the first exactly 0 and the last exactly 1.

        Raises:
            UserError: if a step is so short that its two times are the same number.
        """
        times = [0.0, *(self._warp(number / self.steps) for number in range(1, self.steps)), 1.0]
        if any(first >= second for first, second in pairwise(times)):
            raise UserError(
                f"rho={self.rho:g} with steps={self.steps}: some steps are shorter than double precision resolves: choose a rho nearer "
                "to 1, or fewer steps"
            )
        return times

    def _warp(self, s: float) -> float:
        if self.kind == "cosine":
            return 0.5 * (1 - math.cos(math.pi * s))
        if self.kind == "polynomial":
            return 1 - (1 - s) ** self.rho
        return s
