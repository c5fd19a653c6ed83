"""Two populations whose motion is known in closed form: bells whose weights move, and an Ornstein-Uhlenbeck process.

Points are float64 (N, D); times run from 0 to 1.
"""

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


@dataclass(frozen=True)
class OrnsteinUhlenbeck:
    """dx = -rate (x - centre) dt + sigma dW, from a Gaussian.

    Attributes:
        rate: pull to the centre.
        sigma: scale of the noise.
        centre: (2,).
        start: mean at t = 0, (2,).
        start_deviation: deviation of each coordinate at t = 0, (2,).
    """

    rate: float = 2.0
    sigma: float = 1.0
    centre: tuple[float, float] = (1.0, 0.0)
    start: tuple[float, float] = (-1.5, 0.5)
    start_deviation: tuple[float, float] = (0.3, 0.8)

    def mean(self, t: float) -> np.ndarray:
        """Return the mean at a time, (2,)."""
        centre = np.asarray(self.centre)
        return centre + (np.asarray(self.start) - centre) * np.exp(-self.rate * t)

    def variance(self, t: float) -> np.ndarray:
        """Return the variance of each coordinate at a time, (2,)."""
        decay = np.exp(-2 * self.rate * t)
        return np.square(self.start_deviation) * decay + self.sigma**2 * (1 - decay) / (2 * self.rate)

    def drift(self, x: np.ndarray) -> np.ndarray:
        """Return -rate (x - centre), (N, 2)."""
        return -self.rate * (x - np.asarray(self.centre))

    def sample(self, count: int, t: float, rng: np.random.Generator) -> np.ndarray:
        """Return independent samples at a time, (count, 2)."""
        return self.mean(t) + np.sqrt(self.variance(t)) * rng.normal(size=(count, 2))

    def trajectories(self, count: int, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return paths, exact at the times, (len(times), count, 2)."""
        centre = np.asarray(self.centre)
        points = [self.sample(count, times[0], rng)]
        for step in np.diff(times):
            decay = np.exp(-self.rate * step)
            noise = self.sigma * np.sqrt((1 - decay**2) / (2 * self.rate)) * rng.normal(size=(count, 2))
            points.append(centre + (points[-1] - centre) * decay + noise)
        return np.stack(points)
