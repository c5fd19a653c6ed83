"""Drift to a centre and diffusion."""

from dataclasses import dataclass

import numpy as np


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
