"""Paths that mix noise and data, x_t = a(t) eps + alpha(t) x_1, by a schedule of the two coefficients."""

from torch import Tensor

from amgen.core.names import VP_BETA_MAX, VP_BETA_MIN
from amgen.paths.base import Conditioning, Path
from amgen.paths.schedules import Coefficients, Linear, Schedule, Trigonometric, VariancePreserving


class AffinePath(Path):
    """x_t = a(t) eps + alpha(t) x_1, with u_t = a'(t) eps + alpha'(t) x_1.

    Args:
        schedule: a(t) and alpha(t); 1 - t and t by default.

    Example:
        >>> import torch
        >>> from amgen.paths import AffinePath, Trigonometric
        >>> path = AffinePath(Trigonometric())
        >>> noise, data = torch.randn(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
        >>> sample = path.sample(torch.tensor([0.0, 1.0]), noise, data)
        >>> torch.equal(sample.x[0], noise[0]), torch.equal(sample.x[1], data[1])
        (True, True)
    """

    def __init__(self, schedule: Schedule = Linear()):  # noqa: B008 (immutable)
        self.schedule = schedule

    def coefficients(self, t: Tensor) -> Coefficients:
        """Return the coefficients at times (B,), each (B,)."""
        return self.schedule.coefficients(t)

    def interpolate(self, t: Tensor, noise: Tensor, data: Tensor, conditioning: Conditioning) -> tuple[Tensor, Tensor]:
        """Return x_t and u_t at times `t` (B,)."""
        return self.schedule.interpolate(t, noise, data)

    def noise_scale(self, t: Tensor) -> Tensor:
        """Return a(t)."""
        return self.coefficients(t).noise

    def posterior_noise(self, t: Tensor, x: Tensor, velocity: Tensor, conditioning: Conditioning) -> Tensor:
        """Return E[eps | x_t = x] from the velocity by the formula of the schedule."""
        return self.schedule.posterior_noise(t, x, velocity)

    def score(self, t: Tensor, x: Tensor, velocity: Tensor, conditioning: Conditioning) -> Tensor:
        """Return grad log q_t from the velocity by the formula of the schedule."""
        return self.schedule.score(t, x, velocity)


class LinearPath(AffinePath):
    """Straight lines from noise to data, x_t = (1 - t) eps + t x_1, with u_t = x_1 - eps (arXiv 2210.06662, section 4.2).

    Example:
        >>> import torch
        >>> from amgen.paths import LinearPath
        >>> path = LinearPath()
        >>> noise, data = torch.randn(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
        >>> sample = path.sample(torch.full((2,), 0.5), noise, data)
        >>> sample.x.shape, sample.x.allclose((noise + data) / 2), sample.velocity.equal(data - noise)
        (torch.Size([2, 1, 8, 8]), True, True)
    """

    def __init__(self) -> None:
        super().__init__(Linear())


class TrigonometricPath(AffinePath):
    """Quarter circles from noise to data, x_t = cos(pi t / 2) eps + sin(pi t / 2) x_1.

    Example:
        >>> import torch
        >>> from amgen.paths import TrigonometricPath
        >>> path = TrigonometricPath()
        >>> noise, data = torch.randn(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
        >>> sample = path.sample(torch.full((2,), 0.5), noise, data)
        >>> sample.x.allclose((noise + data) / 2**0.5)
        True
    """

    def __init__(self) -> None:
        super().__init__(Trigonometric())


class VPPath(AffinePath):
    """x_t = sigma(1 - t) eps + alpha(1 - t) x_1, sigma^2 + alpha^2 = 1: the variance-preserving diffusion backwards in time.

    The formulas of sigma and alpha are in `VariancePreserving`. The velocity grows as 1 / sqrt(1 - t) towards the data: prefer the weight
    1-t of the loss.

    Args:
        beta_min: rate of the diffusion at the data.
        beta_max: rate of the diffusion at the noise.

    Raises:
        UserError: unless 0 < beta_min <= beta_max.

    Example:
        >>> import torch
        >>> from amgen.paths import VPPath
        >>> path = VPPath(beta_min=0.1, beta_max=20.0)
        >>> c = path.coefficients(torch.tensor([0.0, 0.5, 1.0]))
        >>> (c.noise**2 + c.data**2).allclose(torch.ones(3))
        True
    """

    def __init__(self, beta_min: float = VP_BETA_MIN, beta_max: float = VP_BETA_MAX):
        super().__init__(VariancePreserving(beta_min, beta_max))
        self.beta_min = beta_min
        self.beta_max = beta_max
