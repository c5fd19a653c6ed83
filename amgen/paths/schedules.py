"""Schedules: the coefficients a(t) of the noise and alpha(t) of the data of a path x_t = a(t) eps + alpha(t) x_1, for t in [0, 1].

Every schedule ends at the data: a(1) = 0 and alpha(1) = 1. A path that mixes noise and data takes any of them.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, get_args

import torch
from torch import Tensor

from amgen.core.errors import UserError, unknown
from amgen.core.names import VP_BETA_MAX, VP_BETA_MIN, ScheduleName
from amgen.paths.base import expand


class Coefficients(NamedTuple):
    """Coefficients of x_t = noise * eps + data * x_1 and their derivatives in t, each shaped like t."""

    noise: Tensor
    data: Tensor
    noise_rate: Tensor
    data_rate: Tensor

    def like(self, x: Tensor) -> "Coefficients":
        """Return the coefficients reshaped from (B,) to (B, 1, ..., 1), to multiply `x` (B, ...)."""
        return Coefficients(*(expand(value, x) for value in self))


class Schedule(ABC):
    """a(t) and alpha(t) of x_t = a(t) eps + alpha(t) x_1.

    Attributes:
        convex: whether a + alpha = 1 at every time.
    """

    convex: ClassVar[bool] = False

    @abstractmethod
    def coefficients(self, t: Tensor) -> Coefficients:
        """Return a, alpha and their derivatives at times (B,), each (B,)."""

    def interpolate(self, t: Tensor, noise: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
        """Return x_t = a noise + alpha data and u_t = a' noise + alpha' data at times (B,), both shaped like `data` (B, ...)."""
        c = self.coefficients(t).like(data)
        return c.noise * noise + c.data * data, c.noise_rate * noise + c.data_rate * data

    def posterior_noise(self, t: Tensor, x: Tensor, velocity: Tensor, deviation: float = 1.0) -> Tensor:
        """Return E[eps | x_t = x], shaped like `x` (B, ...), from the marginal velocity at `x`.

        The posterior means of eps and x_1 solve x = a E[eps] + alpha E[x_1] and v = a' E[eps] + alpha' E[x_1]. Hence

            E[eps | x_t] = (alpha' x - alpha v) / (alpha' a - a' alpha).

        Args:
            t: times, (B,).
            x: points, (B, ...).
            velocity: marginal velocity at the points, same shape.
            deviation: standard deviation of the noise; a is multiplied by it.
        """
        c = self.coefficients(t).like(x)
        return (c.data_rate * x - c.data * velocity) / (c.data_rate * (deviation * c.noise) - (deviation * c.noise_rate) * c.data)

    def score(self, t: Tensor, x: Tensor, velocity: Tensor, deviation: float = 1.0) -> Tensor:
        """Return grad log q_t = -E[eps | x_t] / a, for t < 1; arguments as for `posterior_noise`."""
        return -self.posterior_noise(t, x, velocity, deviation) / expand(deviation * self.coefficients(t).noise, x)


class Linear(Schedule):
    """a(t) = 1 - t, alpha(t) = t (arXiv 2210.06662, section 4.2).

    Example:
        >>> import torch
        >>> from amgen.paths import Linear
        >>> c = Linear().coefficients(torch.tensor([0.25]))
        >>> c.noise.item(), c.data.item(), c.noise_rate.item(), c.data_rate.item()
        (0.75, 0.25, -1.0, 1.0)
    """

    convex = True

    def coefficients(self, t: Tensor) -> Coefficients:
        """Return 1 - t, t and their derivatives."""
        one = torch.ones_like(t)
        return Coefficients(1 - t, t, -one, one)

    def interpolate(self, t: Tensor, noise: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
        """Return x_t = (1 - t) noise + t data and u_t = data - noise."""
        return torch.lerp(noise, data, expand(t, data)), data - noise


class Trigonometric(Schedule):
    """a(t) = cos(pi t / 2), alpha(t) = sin(pi t / 2) (arXiv 2209.15571).

    a^2 + alpha^2 = 1, and both derivatives are bounded.

    Example:
        >>> import torch
        >>> from amgen.paths import Trigonometric
        >>> c = Trigonometric().coefficients(torch.tensor([0.0, 0.5, 1.0]))
        >>> (c.noise**2 + c.data**2).allclose(torch.ones(3))
        True
    """

    def coefficients(self, t: Tensor) -> Coefficients:
        """Return the cosine, the sine and their derivatives."""
        # The cosine as the sine of the complement, which is exactly 0 at t = 1 and never negative; cos(pi/2) rounds to -4e-8.
        cosine, sine = (0.5 * math.pi * (1 - t)).sin(), (0.5 * math.pi * t).sin()
        return Coefficients(cosine, sine, -0.5 * math.pi * sine, 0.5 * math.pi * cosine)


class VariancePreserving(Schedule):
    """The variance-preserving diffusion, backwards in time: a(t) = sigma(r), alpha(t) = alpha(r) with r = 1 - t.

    With the rate beta(r) = beta_min + r (beta_max - beta_min) of the diffusion (arXiv 2011.13456, equation 11; arXiv 2210.06662, appendix),

        log alpha(r) = -r^2 (beta_max - beta_min) / 4 - r beta_min / 2,    sigma(r)^2 = 1 - alpha(r)^2.

    a'(t) grows as 1 / sqrt(r) towards the data. The variance of the conditional loss then grows with log(1 / r): prefer the weight 1-t.
    A small part of the data is left at t = 0: alpha = 0.0066 with the default rates. Generation neglects it.

    Args:
        beta_min: rate of the diffusion at the data, r = 0.
        beta_max: rate of the diffusion at the noise, r = 1.

    Raises:
        UserError: unless 0 < beta_min <= beta_max.

    Example:
        >>> import torch
        >>> from amgen.paths import VariancePreserving
        >>> c = VariancePreserving().coefficients(torch.tensor([0.0, 1.0]))
        >>> [round(value, 4) for value in c.data.tolist()]
        [0.0066, 1.0]
    """

    def __init__(self, beta_min: float = VP_BETA_MIN, beta_max: float = VP_BETA_MAX):
        if not 0 < beta_min <= beta_max:
            raise UserError(f"path.beta_min={beta_min}, path.beta_max={beta_max}: expected 0 < beta_min <= beta_max")
        self.beta_min = beta_min
        self.beta_max = beta_max

    def coefficients(self, t: Tensor) -> Coefficients:
        """Return sigma(1 - t), alpha(1 - t) and their derivatives in t; the derivative of sigma is infinite at t = 1."""
        r = 1 - t
        log_alpha = -0.25 * r**2 * (self.beta_max - self.beta_min) - 0.5 * r * self.beta_min
        beta = self.rate(r)
        alpha = log_alpha.exp()
        sigma = (-torch.expm1(2 * log_alpha)).sqrt()
        return Coefficients(sigma, alpha, -0.5 * beta * alpha**2 / sigma, 0.5 * beta * alpha)

    def posterior_noise(self, t: Tensor, x: Tensor, velocity: Tensor, deviation: float = 1.0) -> Tensor:
        """Return E[eps | x_t] = sigma (x - 2 v / beta(r)) / deviation, which is 0 at t = 1.

        This is the general formula with numerator and denominator multiplied by sigma. It avoids sigma', which is infinite at t = 1;
        with sigma^2 + alpha^2 = 1 the denominator is alpha' sigma^2 - sigma sigma' alpha = alpha beta / 2.
        """
        return -expand(self.coefficients(t).noise, x) * self._scaled_score(t, x, velocity, deviation)

    def score(self, t: Tensor, x: Tensor, velocity: Tensor, deviation: float = 1.0) -> Tensor:
        """Return grad log q_t = (2 v / beta(r) - x) / deviation^2, at t = 1 too: v is the probability flow of the diffusion."""
        return self._scaled_score(t, x, velocity, deviation) / deviation

    def rate(self, r: Tensor) -> Tensor:
        """Return beta(r), the rate of the diffusion at r = 1 - t."""
        return self.beta_min + r * (self.beta_max - self.beta_min)

    def _scaled_score(self, t: Tensor, x: Tensor, velocity: Tensor, deviation: float) -> Tensor:
        """Return the score times `deviation`."""
        return (2 * velocity / expand(self.rate(1 - t), x) - x) / deviation


SCHEDULES: dict[ScheduleName, type[Schedule]] = {"linear": Linear, "trigonometric": Trigonometric, "vp": VariancePreserving}
"""Schedules by the names that they have in a configuration."""


def make_schedule(name: ScheduleName) -> Schedule:
    """Return the schedule of that name, with its default options.

    Raises:
        UserError: for an unknown name.

    Example:
        >>> from amgen.paths import make_schedule
        >>> make_schedule("vp").beta_max
        20.0
    """
    if name not in SCHEDULES:
        raise unknown("schedule", name, get_args(ScheduleName))
    return SCHEDULES[name]()
