"""From a gray image to its colours."""

import torch
from torch import Tensor

from amgen.core.errors import UserError
from amgen.core.names import COLOURISATION_NOISE
from amgen.paths.affine import AffinePath
from amgen.paths.base import Conditioning, Constant
from amgen.paths.schedules import Coefficients, Linear, Schedule

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the gray value (ITU-R BT.601)."""
_LUMA = Constant(torch.tensor(LUMA, dtype=torch.float64))


class ColourisationPath(AffinePath):
    """x_t = gray + a(t) noise eps + alpha(t) (x_1 - gray): the colours come in while the noise goes.

    With the linear schedule this is (1 - t) (gray + noise eps) + t x_1 (arXiv 2210.06662, section 4.2). The condition is the gray image,
    one channel. Given the gray image, x_t - gray is an affine path of the noise and the colours.

    Args:
        noise: standard deviation of the noise at t = 0.
        schedule: a(t) and alpha(t).

    Raises:
        UserError: unless the noise is positive.

    Example:
        >>> import torch
        >>> from amgen.paths import ColourisationPath
        >>> path = ColourisationPath(noise=0.1)
        >>> noise, images = torch.randn(4, 3, 8, 8), torch.rand(4, 3, 8, 8)
        >>> sample = path.sample(torch.zeros(4), noise, images)
        >>> sample.conditioning.condition.shape
        torch.Size([4, 1, 8, 8])
        >>> sample.x.allclose(sample.conditioning.condition + 0.1 * noise)
        True
    """

    conditional = True

    def __init__(self, noise: float = COLOURISATION_NOISE, schedule: Schedule = Linear()):  # noqa: B008 (immutable)
        if not noise > 0:
            raise UserError(f"path.noise={noise}: expected a positive number")
        super().__init__(schedule)
        self.noise = noise

    def condition_channels(self, channels: int) -> int:
        """Return 1, for the gray image."""
        return 1

    def conditioning(self, data: Tensor, auxiliary: Tensor | None = None) -> Conditioning:
        """Return the gray image, (B, 1, H, W)."""
        return Conditioning(torch.einsum("bchw,c->bhw", data, _LUMA.like(data))[:, None])

    def coefficients(self, t: Tensor) -> Coefficients:
        """Return noise a and alpha, the coefficients of eps and of the colours, and their derivatives."""
        c = self.schedule.coefficients(t)
        return Coefficients(self.noise * c.noise, c.data, self.noise * c.noise_rate, c.data_rate)

    def interpolate(self, t: Tensor, noise: Tensor, data: Tensor, conditioning: Conditioning) -> tuple[Tensor, Tensor]:
        """Return x_t and u_t at times `t` (B,)."""
        if self.schedule.convex:  # x_t lies between the start and the data
            return self.schedule.interpolate(t, self.prior(noise, data, conditioning), data)
        gray = _gray(conditioning)
        x, velocity = self.schedule.interpolate(t, self.noise * noise, data - gray)
        return gray + x, velocity

    def prior(self, noise: Tensor, data: Tensor | None = None, conditioning: Conditioning | None = None) -> Tensor:
        """Return the gray image in every channel, with noise."""
        if conditioning is None or conditioning.condition is None:
            raise UserError("this model colours images: give the images to start from (--condition-data)")
        return conditioning.condition + self.noise * noise

    def shown(self, data: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the gray image in every channel."""
        return _gray(conditioning).expand_as(data)

    def baselines(self, data: Tensor, conditioning: Conditioning) -> dict[str, Tensor]:
        """Return the gray image in every channel."""
        return {"gray": self.shown(data, conditioning)}

    def posterior_noise(self, t: Tensor, x: Tensor, velocity: Tensor, conditioning: Conditioning) -> Tensor:
        """Return E[eps | x_t], by the affine relation of x_t without its gray part, (1 - alpha) gray."""
        return self.schedule.posterior_noise(t, *self._without_gray(t, x, velocity, conditioning), self.noise)

    def score(self, t: Tensor, x: Tensor, velocity: Tensor, conditioning: Conditioning) -> Tensor:
        """Return grad log q_t, likewise."""
        return self.schedule.score(t, *self._without_gray(t, x, velocity, conditioning), self.noise)

    def _without_gray(self, t: Tensor, x: Tensor, velocity: Tensor, conditioning: Conditioning) -> tuple[Tensor, Tensor]:
        """Return x_t - (1 - alpha) gray = noise a eps + alpha x_1 and its velocity."""
        c, gray = self.schedule.coefficients(t).like(x), _gray(conditioning)
        return x - (1 - c.data) * gray, velocity + c.data_rate * gray


def _gray(conditioning: Conditioning) -> Tensor:
    assert conditioning.condition is not None
    return conditioning.condition
