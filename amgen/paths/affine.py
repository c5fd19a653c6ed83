"""Paths that mix noise and data, x_t = a(t) eps + alpha(t) x_1."""

import math
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from amgen.core.errors import UserError
from amgen.paths.base import Conditioning, Path, expand


class Coefficients(NamedTuple):
    """Coefficients of x_t = noise * eps + data * x_1 and their derivatives in t, each shaped like t."""

    noise: Tensor
    data: Tensor
    noise_rate: Tensor
    data_rate: Tensor

    def like(self, x: Tensor) -> "Coefficients":
        """Reshape from (B,) so as to multiply `x` (B, ...)."""
        return Coefficients(*(expand(value, x) for value in self))


class AffinePath(Path):
    """x_t = a(t) eps + alpha(t) x_1, with u_t = a' eps + alpha' x_1."""

    @abstractmethod
    def coefficients(self, t: Tensor) -> Coefficients:
        """Return the coefficients at times (B,), each (B,)."""

    def interpolate(self, t: Tensor, noise: Tensor, data: Tensor, conditioning: Conditioning) -> tuple[Tensor, Tensor]:
        """Return x_t and u_t at times `t` (B,)."""
        c = self.coefficients(t).like(data)
        return c.noise * noise + c.data * data, c.noise_rate * noise + c.data_rate * data

    def noise_scale(self, t: Tensor) -> Tensor:
        """Return a(t)."""
        return self.coefficients(t).noise

    def posterior_noise(self, t: Tensor, x: Tensor, velocity: Tensor, conditioning: Conditioning) -> Tensor:
        """Return E[eps | x_t] = (alpha' x - alpha v) / (alpha' a - a' alpha): x and v are affine in the posterior means of eps and x_1."""
        c = self.coefficients(t).like(x)
        return (c.data_rate * x - c.data * velocity) / (c.data_rate * c.noise - c.noise_rate * c.data)


class LinearPath(AffinePath):
    """x_t = (1 - t) eps + t x_1 (arXiv 2210.06662, section 4.2)."""

    def coefficients(self, t: Tensor) -> Coefficients:
        """Return 1 - t, t and their derivatives."""
        one = torch.ones_like(t)
        return Coefficients(1 - t, t, -one, one)

    def interpolate(self, t: Tensor, noise: Tensor, data: Tensor, conditioning: Conditioning) -> tuple[Tensor, Tensor]:
        """Return x_t and u_t at times `t` (B,)."""
        return torch.lerp(noise, data, expand(t, data)), data - noise


class TrigonometricPath(AffinePath):
    """x_t = cos(pi t/2) eps + sin(pi t/2) x_1."""

    def coefficients(self, t: Tensor) -> Coefficients:
        """Return cosine, sine and their derivatives."""
        # The cosine as the sine of the complement, which is exactly 0 at t = 1 and never negative; cos(pi/2) rounds to -4e-8.
        cosine, sine = (0.5 * math.pi * (1 - t)).sin(), (0.5 * math.pi * t).sin()
        return Coefficients(cosine, sine, -0.5 * math.pi * sine, 0.5 * math.pi * cosine)


class VPPath(AffinePath):
    """x_t = sigma(r) eps + alpha(r) x_1 with r = 1 - t, sigma^2 + alpha^2 = 1: the variance-preserving diffusion backwards in time.

    log alpha(r) = -r^2/4 (beta_max - beta_min) - r beta_min/2 (arXiv 2011.13456; arXiv 2210.06662, appendix). The velocity grows as
    1/sqrt(r) towards the data, so that the variance of the conditional form grows with log(1/r): prefer the weight 1-t. At t = 0 a trace
    of the data is left (alpha = 0.0066 with the default rates), which generation neglects.

    Args:
        beta_min: rate of the diffusion at the data.
        beta_max: rate of the diffusion at the noise.

    Raises:
        UserError: if the rates are not positive and increasing.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0):
        if not 0 < beta_min <= beta_max:
            raise UserError(f"path.beta_min={beta_min}, path.beta_max={beta_max}: expected 0 < beta_min <= beta_max")
        self.beta_min = beta_min
        self.beta_max = beta_max

    def coefficients(self, t: Tensor) -> Coefficients:
        """Return sigma(1 - t), alpha(1 - t) and their derivatives in t; the derivative of sigma is infinite at t = 1."""
        r = 1 - t
        log_alpha = -0.25 * r**2 * (self.beta_max - self.beta_min) - 0.5 * r * self.beta_min
        beta = self._beta(r)
        alpha = log_alpha.exp()
        sigma = (-torch.expm1(2 * log_alpha)).sqrt()
        return Coefficients(sigma, alpha, -0.5 * beta * alpha**2 / sigma, 0.5 * beta * alpha)

    def posterior_noise(self, t: Tensor, x: Tensor, velocity: Tensor, conditioning: Conditioning) -> Tensor:
        """Return E[eps | x_t] = sigma (x - 2 v / beta(r)), which is 0 at t = 1.

        That is the affine relation with numerator and denominator times sigma, without sigma', which is infinite at t = 1; sigma^2 +
        alpha^2 = 1 makes the denominator alpha' sigma^2 - sigma sigma' alpha = alpha beta / 2.
        """
        return -expand(self.coefficients(t).noise, x) * self.score(t, x, velocity, conditioning)

    def score(self, t: Tensor, x: Tensor, velocity: Tensor, conditioning: Conditioning) -> Tensor:
        """Return grad log q_t = 2 v / beta(r) - x, at t = 1 too: v is the probability flow of the diffusion."""
        return 2 * velocity / expand(self._beta(1 - t), x) - x

    def _beta(self, r: Tensor) -> Tensor:
        """Return the rate of the diffusion at r = 1 - t."""
        return self.beta_min + r * (self.beta_max - self.beta_min)
