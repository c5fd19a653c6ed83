"""A Gaussian mixture whose weights change in time."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mixture:
    """Gaussian bells that stay where they are while mass passes from one to another: the share of bell c is (1 - t) start_c + t end_c.

    Attributes:
        centres: (C, 2).
        deviation: of every bell, in both directions.
        start: shares at t = 0.
        end: shares at t = 1.
    """

    centres: tuple[tuple[float, float], ...] = ((-1.5, -0.8), (0.0, 1.6), (1.5, -0.8))
    deviation: float = 0.6
    start: tuple[float, ...] = (0.6, 0.3, 0.1)
    end: tuple[float, ...] = (0.1, 0.3, 0.6)

    def shares(self, t: float) -> np.ndarray:
        """Return the share of each bell at a time, (C,)."""
        return (1 - t) * np.asarray(self.start) + t * np.asarray(self.end)

    def sample(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return points of t = 0, (count, 2), and their bells, (count,)."""
        bells = rng.choice(len(self.start), count, p=self.start)
        return np.asarray(self.centres)[bells] + rng.normal(0, self.deviation, (count, 2)), bells

    def nearest(self, x: np.ndarray) -> np.ndarray:
        """Return the bell whose centre is nearest, (N,)."""
        return np.square(x[:, None] - np.asarray(self.centres)).sum(axis=2).argmin(axis=1)

    def masses(self, times: np.ndarray, bells: np.ndarray) -> list[np.ndarray]:
        """Return the mass of points of t = 0 at each of the times, in units of their mass at t = 0."""
        return [(self.shares(t) / self.shares(0))[bells] for t in times]
