"""A Gaussian mixture whose weights change in time: mass moves between components while points stay where they are.

q_t(x) = sum_c w_c(t) N(x; m_c, s^2 I) with w_c(t) = (1 - t) w_c(0) + t w_c(1). Samples of q_0 represent q_t if a sample of component c has
the mass w_c(t) / w_c(0).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mixture:
    """Gaussian components with fixed centres and weights that change linearly in time.

    Attributes:
        centres: mean m_c of each component, (C, 2).
        deviation: standard deviation s of every component, in both directions.
        start: weight of each component at t = 0, w_c(0); they sum to 1.
        end: weight of each component at t = 1, w_c(1); they sum to 1.
    """

    centres: tuple[tuple[float, float], ...] = ((-1.5, -0.8), (0.0, 1.6), (1.5, -0.8))
    deviation: float = 0.6
    start: tuple[float, ...] = (0.6, 0.3, 0.1)
    end: tuple[float, ...] = (0.1, 0.3, 0.6)

    def shares(self, t: float) -> np.ndarray:
        """Return the weight w_c(t) of each component, (C,)."""
        return (1 - t) * np.asarray(self.start) + t * np.asarray(self.end)

    def sample(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return samples at t = 0, (count, 2), and the component of each, (count,)."""
        components = rng.choice(len(self.start), count, p=self.start)
        return np.asarray(self.centres)[components] + rng.normal(0, self.deviation, (count, 2)), components

    def nearest(self, x: np.ndarray) -> np.ndarray:
        """Return the component with the nearest centre for each point of x (N, 2), (N,)."""
        return np.square(x[:, None] - np.asarray(self.centres)).sum(axis=2).argmin(axis=1)

    def masses(self, times: np.ndarray, components: np.ndarray) -> list[np.ndarray]:
        """Return the masses w_c(t) / w_c(0) of samples of t = 0 with the `components` (N,): for each time (N,)."""
        return [(self.shares(t) / self.shares(0))[components] for t in times]
