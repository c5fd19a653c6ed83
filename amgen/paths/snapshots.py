"""Between the snapshots of a population that is seen at times t_0 = 0 < ... < t_K = 1, each time through other samples.

A chain z = (x_0, ..., x_K) takes one point of each time. Between neighbours, with tau = (t - t_k) / (t_(k+1) - t_k),

    x_t = (1 - tau) x_k + tau x_(k+1) + b eps,   u_t = (x_(k+1) - x_k) / (t_(k+1) - t_k),   m_t = (1 - tau) m_k + tau m_(k+1)

with masses m and standard normal eps. How the points of neighbouring times are joined (independently, by optimal transport, or because
they are the same particle) decides the marginals between the times; at the times they are the snapshots, smoothed by b.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from amgen.paths.base import Boundary, Conditioning, Path, PathSample, expand, wrap


class SnapshotPath(Path):
    """Straight lines between points of neighbouring times. Data are chains (B, K + 1, D + 1): points, and their masses as the last entry.

    Args:
        times: of the snapshots, increasing, in any unit; the first becomes t = 0 and the last t = 1.
        noise: b, standard deviation of the noise around the lines.
        weighted: whether masses are heeded.
        period: of every coordinate, for points on a torus, where lines go the shorter way round; None for none.
    """

    conditional = True

    def __init__(self, times: Sequence[float], noise: float = 0.0, weighted: bool = False, period: float | None = None):
        places = torch.tensor(list(times), dtype=torch.float64)
        self.times = (places - places[0]) / (places[-1] - places[0])
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

    def _between(self, t: Tensor, chains: Tensor, periodic: bool = True) -> tuple[Tensor, Tensor]:
        """Interpolate chains (B, K + 1, F) at times (B,); return values and derivatives in t, (B, F)."""
        times = self.times.to(t)
        after = torch.searchsorted(times, t, right=True).clamp(1, len(times) - 1)
        length = times[after] - times[after - 1]
        row = torch.arange(len(t), device=t.device)
        first = chains[row, after - 1]
        step = chains[row, after] - first
        if periodic and self.period is not None:
            step = wrap(step, self.period)
        share = (t - times[after - 1]) / length
        return first + expand(share, step) * step, step / expand(length, step)

    def noise_scale(self, t: Tensor) -> Tensor | None:
        """Return b where there is noise: x_t is Gaussian given the chain."""
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
        """Draw points along chains `data` (B, K + 1, D + 1), with their masses; otherwise as every path."""
        sample = super().sample(t, noise, data, density, label, auxiliary, dropout_seeds, boundary=boundary, score=score)
        if not self.weighted:
            return sample
        mass, growth = self.masses(t, data)
        return replace(sample, mass=mass, growth=growth)

    def boundary(
        self, noise: Tensor, data: Tensor, conditioning: Conditioning, label: Tensor | None = None, dropout_seeds: Tensor | None = None
    ) -> Boundary:
        """Return the points of the first and the last time, with noise and with their masses."""
        start, end = (self.interpolate(data.new_full((len(data),), time), noise, data, conditioning)[0] for time in (0.0, 1.0))
        masses = (data[:, 0, -1], data[:, -1, -1]) if self.weighted else (None, None)
        return Boundary(start, end, label, conditioning.condition, dropout_seeds, *masses)

    def prior(self, noise: Tensor, data: Tensor | None = None, conditioning: Conditioning | None = None) -> Tensor:
        """Return the chains' points of the first time, with noise."""
        assert data is not None  # a guided path is always given some
        return self.finish(data[:, 0, :-1] + self.noise * noise)

    def start_mass(self, data: Tensor | None) -> Tensor | None:
        """Return the chains' masses at the first time, (B,), where they are heeded."""
        return data[:, 0, -1] if self.weighted and data is not None else None

    def shown(self, data: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the chains' points of the first time."""
        return data[:, 0, :-1]

    def finish(self, x: Tensor) -> Tensor:
        """Wrap points on a torus into [-period/2, period/2)."""
        return x if self.period is None else wrap(x, self.period)
