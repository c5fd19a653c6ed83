"""Paths between snapshots of a population at times t_0 = 0 < ... < t_K = 1, where each snapshot has samples of its own.

A multi-marginal tuple z = (x_0, ..., x_K) has one point of each time. Between two consecutive times, with tau = (t - t_k) / (t_(k+1) -
t_k),

    x_t = (1 - tau) x_k + tau x_(k+1) + b eps,   u_t = (x_(k+1) - x_k) / (t_(k+1) - t_k),   m_t = (1 - tau) m_k + tau m_(k+1)

with masses m and standard normal eps. The coupling of consecutive snapshots (independent, by optimal transport, or given by the particles)
determines the marginals between the times. At the times the marginals are the snapshots, smoothed by b.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from amgen.paths.base import Boundary, Conditioning, Constant, Path, PathSample, expand, wrap


class SnapshotPath(Path):
    """Straight lines between points of consecutive snapshots.

    Data are multi-marginal tuples (B, K + 1, D + 1): one point of each time, and its mass as the last entry.

    Args:
        times: times of the snapshots, increasing, in any unit; the first one becomes t = 0 and the last one t = 1.
        noise: b, standard deviation of the noise around the lines.
        weighted: whether samples have the masses of the tuples; otherwise all masses are 1.
        period: period of every coordinate, for points on a torus, where lines take the shorter way; None for no period.

    Example:
        >>> import torch
        >>> from amgen.paths import SnapshotPath
        >>> path = SnapshotPath(times=[0, 1, 2])
        >>> points = torch.tensor([[0.0], [1.0], [5.0]])
        >>> tuples = torch.cat([points, torch.ones(3, 1)], dim=1)[None]  # one tuple of three points in one dimension, with masses
        >>> sample = path.sample(torch.tensor([0.75]), torch.zeros(1, 1), tuples)
        >>> sample.x.tolist(), sample.velocity.tolist()
        ([[3.0]], [[8.0]])
    """

    conditional = True

    def __init__(self, times: Sequence[float], noise: float = 0.0, weighted: bool = False, period: float | None = None):
        places = torch.tensor(list(times), dtype=torch.float64)
        self.times = (places - places[0]) / (places[-1] - places[0])
        self._times = Constant(self.times)
        self.noise = noise
        self.weighted = weighted
        self.period = period

    def interpolate(self, t: Tensor, noise: Tensor, data: Tensor, conditioning: Conditioning) -> tuple[Tensor, Tensor]:
        """Return x_t and u_t, both (B, D), at times `t` (B,)."""
        x, velocity = self._between(t, data[..., :-1])
        return self.finish(x + self.noise * noise if self.noise else x), velocity

    def masses(self, t: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
        """Return m_t and d/dt log m_t, both (B,)."""
        mass, rate = self._between(t, data[..., -1:], periodic=False)
        return mass.squeeze(1), (rate / mass).squeeze(1)

    def _between(self, t: Tensor, tuples: Tensor, periodic: bool = True) -> tuple[Tensor, Tensor]:
        """Interpolate tuples (B, K + 1, F) at times (B,); return values and derivatives in t, (B, F)."""
        times = self._times.like(t)
        after = torch.searchsorted(times, t, right=True).clamp(1, len(times) - 1)
        length = times[after] - times[after - 1]
        row = torch.arange(len(t), device=t.device)
        first = tuples[row, after - 1]
        step = tuples[row, after] - first
        if periodic and self.period is not None:
            step = wrap(step, self.period)
        share = (t - times[after - 1]) / length
        return first + expand(share, step) * step, step / expand(length, step)

    def noise_scale(self, t: Tensor) -> Tensor | None:
        """Return b if it is positive: x_t is then Gaussian given the tuple."""
        return torch.full_like(t, self.noise) if self.noise else None

    def sample(
        self,
        t: Tensor,
        noise: Tensor,
        data: Tensor,
        density: Tensor | None = None,
        label: Tensor | None = None,
        auxiliary: Tensor | None = None,
        dropout_seeds: Tensor | None = None,
        *,
        boundary: bool = False,
        score: bool = False,
    ) -> PathSample:
        """Return points on the lines of tuples `data` (B, K + 1, D + 1), with their masses; arguments as for every path."""
        sample = super().sample(t, noise, data, density, label, auxiliary, dropout_seeds, boundary=boundary, score=score)
        if not self.weighted:
            return sample
        mass, growth = self.masses(t, data)
        return replace(sample, mass=mass, growth=growth)

    def boundary(
        self, noise: Tensor, data: Tensor, conditioning: Conditioning, label: Tensor | None = None, dropout_seeds: Tensor | None = None
    ) -> Boundary:
        """Return the points of the first and the last time, with noise and masses."""
        start, end = (self.interpolate(data.new_full((len(data),), time), noise, data, conditioning)[0] for time in (0.0, 1.0))
        masses = (data[:, 0, -1], data[:, -1, -1]) if self.weighted else (None, None)
        return Boundary(start, end, label, conditioning.condition, dropout_seeds, *masses)

    def prior(self, noise: Tensor, data: Tensor | None = None, conditioning: Conditioning | None = None) -> Tensor:
        """Return the points of the first time, with noise."""
        assert data is not None  # a conditional path always has data
        return self.finish(data[:, 0, :-1] + self.noise * noise)

    def start_mass(self, data: Tensor | None) -> Tensor | None:
        """Return the masses at the first time, (B,), if the path is weighted."""
        return data[:, 0, -1] if self.weighted and data is not None else None

    def shown(self, data: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the points of the first time."""
        return data[:, 0, :-1]

    def finish(self, x: Tensor) -> Tensor:
        """Wrap points on a torus into [-period/2, period/2)."""
        return x if self.period is None else wrap(x, self.period)
