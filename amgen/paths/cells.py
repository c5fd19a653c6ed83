"""Cells of [0, 1] for the boundary terms of the marginal form.

The marginal form holds on every interval of times. So its sum over the cells of a partition c_0 = 0 < ... < c_J = 1 is the loss on [0, 1]:
the boundary terms at c_1, ..., c_(J-1) cancel in expectation, since each appears once as an end and once as a start, with the same
marginal. For a sample with time t in a cell [a, b] of length h it becomes

    (w(a) m_a s_a(x_a) - w(b) m_b s_b(x_b)) / (h p(t)) + interior(t) / p(t),

with x_a and x_b on the same path as x_t. The boundary terms are then minus the mean of d/dt [m w s_t(x_t)] over the cell. The interior
contains it at t, so the sum of both is of the order of h. As h -> 0 the loss becomes the conditional form, with u_t by a difference of s.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from amgen.paths.base import Boundary, Constant, Path, PathSample


class Cells:
    """A partition of [0, 1] in cells: equal ones in each interval between two `breaks`.

    Args:
        count: cells in each interval, at least 1.
        breaks: ends of the intervals, increasing from 0 to 1: where paths may have kinks.

    Attributes:
        edges: ends of the cells, float64 (J + 1,).

    Example:
        >>> import torch
        >>> from amgen.paths import Cells
        >>> start, end = Cells(2, breaks=[0, 0.5, 1]).around(torch.tensor([0.3, 0.9], dtype=torch.float64))
        >>> start.tolist(), end.tolist()
        ([0.25, 0.75], [0.5, 1.0])
    """

    def __init__(self, count: int, breaks: Sequence[float] = (0.0, 1.0)):
        if count < 1 or len(breaks) < 2 or breaks[0] != 0 or breaks[-1] != 1 or not (np.diff(breaks) > 0).all():
            raise ValueError(f"count={count}, breaks={list(breaks)}: expected at least 1, and increasing numbers from 0 to 1")
        shares = np.arange(count) / count
        inner = (np.asarray(breaks[:-1])[:, None] + np.diff(breaks)[:, None] * shares).ravel()
        self.edges = torch.from_numpy(np.append(inner, 1.0))
        self._edges = Constant(self.edges)

    def around(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return start and end of the cells that the times `t` (B,) are in, each (B,)."""
        edges = self._edges.like(t)
        after = torch.searchsorted(edges, t.contiguous(), right=True).clamp(1, len(edges) - 1)
        return edges[after - 1], edges[after]

    def boundary(
        self,
        path: Path,
        t: Tensor,
        noise: Tensor,
        data: Tensor,
        label: Tensor | None = None,
        auxiliary: Tensor | None = None,
        dropout_seeds: Tensor | None = None,
    ) -> Boundary:
        """Return the points of the curves at the ends of the cells of `t`, with their masses; arguments as for `Path.sample`.

        The end of a cell is approached from below. So at a kink of the path it belongs to the interval of the cell.
        """
        start, end = self.around(t)
        before: PathSample = path.sample(start, noise, data, label=label, auxiliary=auxiliary, dropout_seeds=dropout_seeds)
        after: PathSample = path.sample(torch.nextafter(end, start), noise, data, label=label, auxiliary=auxiliary)
        return Boundary(before.x, after.x, label, before.conditioning.condition, dropout_seeds, before.mass, after.mass, (start, end))
