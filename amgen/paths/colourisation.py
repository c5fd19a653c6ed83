"""From a gray image to its colours."""

import torch
from torch import Tensor

from amgen.core.errors import UserError
from amgen.paths.affine import Coefficients, LinearPath
from amgen.paths.base import Conditioning, expand

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the gray value (ITU-R BT.601)."""


class ColourisationPath(LinearPath):
    """x_t = (1 - t) (gray + noise eps) + t x_1 (arXiv 2210.06662, section 4.2). Condition: the gray image, one channel.

    Given the gray image, y_t = x_t - (1 - t) gray is an affine path with a(t) = noise (1 - t).

    Args:
        noise: standard deviation of the noise at t = 0.
    """

    conditional = True

    def __init__(self, noise: float = 0.1):
        if not noise > 0:
            raise UserError(f"path.noise={noise}: expected a positive number")
        self.noise = noise

    def condition_channels(self, channels: int) -> int:
        """Return 1, the gray image's."""
        return 1

    def conditioning(self, data: Tensor, auxiliary: Tensor | None = None) -> Conditioning:
        """Return the gray image, (B, 1, H, W)."""
        return Conditioning(torch.einsum("bchw,c->bhw", data, data.new_tensor(LUMA))[:, None])

    def coefficients(self, t: Tensor) -> Coefficients:
        """Return the coefficients of eps and x_1."""
        return Coefficients(self.noise * (1 - t), t, torch.full_like(t, -self.noise), torch.ones_like(t))

    def interpolate(self, t: Tensor, noise: Tensor, data: Tensor, conditioning: Conditioning) -> tuple[Tensor, Tensor]:
        """Return x_t and u_t at times `t` (B,)."""
        return super().interpolate(t, self.prior(noise, data, conditioning), data, conditioning)

    def prior(self, noise: Tensor, data: Tensor | None = None, conditioning: Conditioning | None = None) -> Tensor:
        """Return the gray image in every channel, with noise."""
        if conditioning is None or conditioning.condition is None:
            raise UserError("this model colours images: give the images to start from (--condition-data)")
        return conditioning.condition + self.noise * noise

    def shown(self, data: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the gray image in every channel."""
        assert conditioning.condition is not None
        return conditioning.condition.expand_as(data)

    def baselines(self, data: Tensor, conditioning: Conditioning) -> dict[str, Tensor]:
        """Return the gray image in every channel."""
        return {"gray": self.shown(data, conditioning)}

    def posterior_noise(self, t: Tensor, x: Tensor, velocity: Tensor, conditioning: Conditioning) -> Tensor:
        """Return E[eps | x_t], by the affine relation of x_t - (1 - t) gray."""
        assert conditioning.condition is not None
        gray = conditioning.condition
        return super().posterior_noise(t, x - (1 - expand(t, x)) * gray, velocity + gray, conditioning)
