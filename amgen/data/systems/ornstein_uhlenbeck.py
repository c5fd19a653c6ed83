"""The Ornstein-Uhlenbeck process: drift to a centre, and diffusion.

With rate k, centre c and noise scale sigma, dx = -k (x - c) dt + sigma dW. From x_0 ~ N(m_0, diag(v_0)) the process is Gaussian at every t:

    mean      m(t) = c + (m_0 - c) exp(-k t)
    variance  v(t) = v_0 exp(-2 k t) + sigma^2 (1 - exp(-2 k t)) / (2 k)

and x(t + h) given x(t) is Gaussian with mean c + (x(t) - c) exp(-k h) and variance sigma^2 (1 - exp(-2 k h)) / (2 k) (Uhlenbeck and
Ornstein 1930; Gillespie 1996, "Exact numerical simulation of the Ornstein-Uhlenbeck process and its integral").
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class OrnsteinUhlenbeck:
    """dx = -rate (x - centre) dt + sigma dW in two dimensions, from a Gaussian with independent coordinates.

    Attributes:
        rate: k, the strength of the drift, per unit of time.
        sigma: scale of the noise.
        centre: c, (2,).
        start: mean at t = 0, m_0, (2,).
        start_deviation: standard deviation of each coordinate at t = 0, sqrt(v_0), (2,).
    """

    rate: float = 2.0
    sigma: float = 1.0
    centre: tuple[float, float] = (1.0, 0.0)
    start: tuple[float, float] = (-1.5, 0.5)
    start_deviation: tuple[float, float] = (0.3, 0.8)

    def mean(self, t: float) -> np.ndarray:
        """Return the mean m(t), (2,)."""
        centre = np.asarray(self.centre)
        return centre + (np.asarray(self.start) - centre) * np.exp(-self.rate * t)

    def variance(self, t: float) -> np.ndarray:
        """Return the variance v(t) of each coordinate, (2,)."""
        decay = np.exp(-2 * self.rate * t)
        return np.square(self.start_deviation) * decay + self.sigma**2 * (1 - decay) / (2 * self.rate)

    def drift(self, x: np.ndarray) -> np.ndarray:
        """Return the drift -rate (x - centre) of points x (N, 2), (N, 2)."""
        return -self.rate * (x - np.asarray(self.centre))

    def sample(self, count: int, t: float, rng: np.random.Generator) -> np.ndarray:
        """Return independent samples at time t, (count, 2)."""
        return self.mean(t) + np.sqrt(self.variance(t)) * rng.normal(size=(count, 2))

    def trajectories(self, count: int, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return trajectories at increasing times, (len(times), count, 2), by the exact transition between times."""
        centre = np.asarray(self.centre)
        points = [self.sample(count, times[0], rng)]
        for step in np.diff(times):
            decay = np.exp(-self.rate * step)
            noise = self.sigma * np.sqrt((1 - decay**2) / (2 * self.rate)) * rng.normal(size=(count, 2))
            points.append(centre + (points[-1] - centre) * decay + noise)
        return np.stack(points)
