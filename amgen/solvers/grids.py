"""Where the steps between t = 0 and t = 1 lie."""

import math
from dataclasses import dataclass
from itertools import pairwise

from amgen.core.errors import UserError, unknown

GRIDS = ("cosine", "polynomial", "uniform")


@dataclass(frozen=True)
class StepGrid:
    """Times from 0 to 1.

    uniform: equal steps. cosine: (1 - cos(pi s)) / 2, short steps at both ends. polynomial: 1 - (1 - s)^rho, short steps near the data for
        rho > 1
    and near the noise for rho < 1.

    Attributes:
        steps: number of steps.
        kind: uniform, cosine or polynomial.
        rho: exponent of the polynomial grid.

    Raises:
        UserError: for fewer steps than one, an unknown kind or an exponent that is not positive.
    """

    steps: int
    kind: str = "uniform"
    rho: float = 2.0

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
            UserError: if steps are so short that two times are the same number.
        """
        times = [0.0, *(self._warp(number / self.steps) for number in range(1, self.steps)), 1.0]
        if any(first >= second for first, second in pairwise(times)):
            raise UserError(
                f"rho={self.rho:g} with steps={self.steps}: some steps are shorter than double precision can tell: choose a rho "
                "nearer to 1, or fewer steps"
            )
        return times

    def _warp(self, s: float) -> float:
        if self.kind == "cosine":
            return 0.5 * (1 - math.cos(math.pi * s))
        if self.kind == "polynomial":
            return 1 - (1 - s) ** self.rho
        return s
