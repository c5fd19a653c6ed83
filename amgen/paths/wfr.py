"""Wasserstein-Fisher-Rao (WFR) geodesics between pairs of points with masses.

The action of unbalanced dynamics, 1/2 |v|^2 + g^2 / (2 lambda) for the velocity v and the growth rate g, is the WFR metric with the length
scale delta = 1 / sqrt(lambda). Its geodesic from a mass m_0 at x_0 to a mass m_1 at x_1, over s in [0, 1], is a straight line in a plane
(Liero, Mielke and Savaré, Inventiones 2018, section 8): with the angle theta = |x_1 - x_0| / (2 delta) <= pi/2,

    z_s = (1 - s) sqrt(m_0) + s sqrt(m_1) e^(i theta),    m_s = |z_s|^2,    x_s = x_0 + 2 delta arg(z_s) e,

with e = (x_1 - x_0) / |x_1 - x_0|. So the velocity is 2 delta sqrt(m_0 m_1) sin(theta) e / m_s and the growth rate is
2 Re(conj(z_s) z'_s) / m_s. The action is 2 delta^2 (m_0 + m_1 - 2 sqrt(m_0 m_1) cos(theta)). A death has m_1 = 0 and a birth m_0 = 0: then
nothing moves. As delta grows, x_s tends to a straight line, and to the geodesic of optimal transport if the masses are equal.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from amgen.paths.base import Conditioning, expand
from amgen.paths.snapshots import SnapshotPath


class WFRPath(SnapshotPath):
    """WFR geodesics between pairs of points of consecutive snapshots.

    Data are pairs (B, 2 K, D + 1) for the K intervals between K + 1 times: rows 2 k and 2 k + 1 are the two ends of the pair of interval k,
    each a point and its mass. `amgen.data.PairStream` samples them from plans of unbalanced optimal transport. x_t = geodesic + b eps with
    normal eps; masses and growth rates are those of the geodesic.

    Args:
        times: times of the snapshots, increasing, in any unit; the first one becomes t = 0 and the last one t = 1.
        delta: length scale of growth, in the unit of the points, above 0; infinite for straight lines.
        noise: b, standard deviation of the noise around the geodesics.
        weighted: whether samples have masses and growth rates; otherwise all masses are 1.

    Example:
        Half of the mass of a point grows to twice its mass, at the same place:

        >>> import torch
        >>> from amgen.paths import WFRPath
        >>> path = WFRPath(times=[0, 1], delta=1.0)
        >>> pairs = torch.tensor([[[3.0, 0.5], [3.0, 2.0]]])
        >>> sample = path.sample(torch.tensor([0.5]), torch.zeros(1, 1), pairs)
        >>> sample.x.tolist(), sample.velocity.tolist(), round(sample.mass.item(), 4)
        ([[3.0]], [[0.0]], 1.125)
    """

    def __init__(self, times: Sequence[float], delta: float = math.inf, noise: float = 0.0, weighted: bool = True):
        super().__init__(times, noise, weighted)
        self.delta = delta

    def interpolate(self, t: Tensor, noise: Tensor, data: Tensor, conditioning: Conditioning) -> tuple[Tensor, Tensor]:
        """Return x_t and u_t, both (B, D), at times `t` (B,)."""
        start, end, share, length = self._interval(t, data)
        x, velocity, _, _ = geodesic(share, start, end, self.delta)
        return x + self.noise * noise if self.noise else x, velocity / expand(length, velocity)

    def masses(self, t: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
        """Return m_t and d/dt log m_t, both (B,)."""
        start, end, share, length = self._interval(t, data)
        _, _, mass, growth = geodesic(share, start, end, self.delta)
        return mass, growth / length

    def _interval(self, t: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the ends (B, D + 1) of the pairs of the intervals of `t`, and the share of t in them and their lengths, (B,)."""
        times = self._times.like(t)
        after = torch.searchsorted(times, t, right=True).clamp(1, len(times) - 1)
        length = times[after] - times[after - 1]
        row = torch.arange(len(t), device=t.device)
        return pairs[row, 2 * after - 2], pairs[row, 2 * after - 1], (t - times[after - 1]) / length, length


def geodesic(share: Tensor, start: Tensor, end: Tensor, delta: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the WFR geodesics of pairs of points with masses.

    Args:
        share: s in [0, 1], (B,).
        start: points at s = 0, each with its mass as the last entry, (B, D + 1).
        end: points at s = 1, likewise, at most pi delta away where both masses are positive.
        delta: length scale of growth; may be infinite.

    Returns:
        Positions and velocities dx/ds, (B, D), masses and growth rates d/ds log m, (B,). The growth rate is 0 where the mass is 0.

    Example:
        >>> import torch
        >>> from amgen.paths.wfr import geodesic
        >>> start, end = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 4.0]])
        >>> x, velocity, mass, growth = geodesic(torch.ones(1), start, end, delta=1.0)
        >>> round(x.item(), 6), round(mass.item(), 6)
        (1.0, 4.0)
    """
    way = end[:, :-1] - start[:, :-1]
    distance = way.norm(dim=1)
    direction = way / distance.clamp_min(torch.finfo(way.dtype).tiny)[:, None]
    first, last = start[:, -1].sqrt(), end[:, -1].sqrt()
    if math.isinf(delta):  # 2 delta sin(theta) = distance, cos(theta) = 1
        cosine, radius = torch.ones_like(distance), distance
    else:
        angle = (distance / (2 * delta)).clamp(max=0.5 * math.pi)
        cosine, radius = angle.cos(), 2 * delta * angle.sin()
    real = (1 - share) * first + share * last * cosine
    real_slope = last * cosine - first
    height, height_slope = share * last * radius, last * radius  # 2 delta times the imaginary part of z and of z'
    scale = 0.0 if math.isinf(delta) else 1 / (4 * delta**2)
    mass = real.square() + scale * height.square()
    divisor = mass.clamp_min(torch.finfo(mass.dtype).tiny)
    growth = 2 * (real * real_slope + scale * height * height_slope) / divisor
    # Where one end has no mass nothing moves. At s = 0 and s = 1 that also avoids 0 / 0.
    moved = (
        height / real.clamp_min(torch.finfo(real.dtype).tiny) if math.isinf(delta) else 2 * delta * torch.atan2(height / (2 * delta), real)
    )
    both = (first > 0) & (last > 0)
    moved = torch.where(both, moved, torch.where(first > 0, 0.0, distance))
    velocity = torch.where(both, first * last * radius / divisor, 0.0)
    return start[:, :-1] + moved[:, None] * direction, velocity[:, None] * direction, mass, growth
