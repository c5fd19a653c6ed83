"""The straight-line path, the paper's choice for generation."""

from torch import Tensor

from amgen.paths.base import Path, expand


class LinearPath(Path):
    """x_t = (1 - t) x_0 + t x_1 with u_t = x_1 - x_0 (arXiv 2210.06662, section 4.2)."""

    def interpolate(self, t: Tensor, x_0: Tensor, x_1: Tensor) -> tuple[Tensor, Tensor]:
        """Return x_t and u_t at times `t` (B,)."""
        time = expand(t, x_0)
        return (1 - time) * x_0 + time * x_1, x_1 - x_0
