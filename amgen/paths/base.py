"""Probability paths q_t between noise (t = 0) and data (t = 1), given by samples x_t and their velocities.

Symbols: eps is standard normal noise, x_1 the data, t a time in [0, 1]. A pair z = (eps, x_1) has the curve x_t = I(t, eps, x_1), which
ends at x_1, with the velocity u_t = d/dt x_t. For most paths x_t is Gaussian given x_1: x_t = mu_t + a_t eps, with the conditional score
grad log q_t(x_t | x_1) = -eps / a_t.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from amgen.core.errors import UserError


@dataclass(frozen=True)
class Conditioning:
    """The known part of an image before it is generated.

    Attributes:
        condition: input of the network beside x, (B, K, H, W), which the action is not differentiated in; None for none.
        free: 1 for pixels that move and 0 for known ones, (B, 1, H, W); None when all pixels move.

    Example:
        >>> import torch
        >>> from amgen.paths import SuperResolutionPath
        >>> conditioning = SuperResolutionPath(2).conditioning(torch.rand(4, 3, 8, 8))
        >>> conditioning.condition.shape, conditioning.free.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 1, 8, 8]))
    """

    condition: Tensor | None = None
    free: Tensor | None = None

    def restrict(self, x: Tensor) -> Tensor:
        """Return `x` with zeros at the known pixels."""
        return x if self.free is None else x * self.free


@dataclass
class Boundary:
    """Samples of q_0 and q_1 for the boundary terms of the marginal form, or of the marginals at the ends of cells.

    Attributes:
        start: samples of q_0, (B, ...), or of the start of each sample's cell.
        end: samples of q_1, same shape, or of the end of each sample's cell.
        label: class of each pair, int64 (B,), or None.
        condition: condition of each pair, (B, K, H, W), or None.
        dropout_seeds: seeds of the dropout masks of each pair, int32 (B, 2), or None.
        start_mass: mass of each pair at t = 0, (B,); None for ones.
        end_mass: mass of each pair at t = 1, (B,); None for ones.
        cell: start and end of each sample's cell of times, both (B,); None for 0 and 1. See `amgen.paths.cells`.
    """

    start: Tensor
    end: Tensor
    label: Tensor | None = None
    condition: Tensor | None = None
    dropout_seeds: Tensor | None = None
    start_mass: Tensor | None = None
    end_mass: Tensor | None = None
    cell: tuple[Tensor, Tensor] | None = None


@dataclass
class PathSample:
    """A batch of B points on a path, with all that a loss needs.

    Attributes:
        t: times, in [0, 1], shape (B,).
        x: points x_t, shape (B, ...).
        velocity: u_t, same shape as `x`.
        density: p(t), the density of the distribution of `t`, shape (B,).
        boundary: samples of both ends, if requested.
        score: conditional score grad log q_t(x_t | x_1), same shape as `x`, if requested and if x_t is Gaussian given x_1.
        label: class of each sample, int64, shape (B,); None for an unconditional action.
        conditioning: condition and free pixels.
        mass: m_t of each sample, (B,); None for ones.
        growth: d/dt log m_t, (B,); None for zeros.
        probes: random signs for the Hutchinson estimate of the Laplacian, (B, P, ...); None where none is estimated.
        dropout_seeds: seeds of the dropout masks, int32 (B, 2), from `amgen.core.randomness.dropout_seeds`; None without dropout.
    """

    t: Tensor
    x: Tensor
    velocity: Tensor
    density: Tensor
    boundary: Boundary | None = None
    score: Tensor | None = None
    label: Tensor | None = None
    conditioning: Conditioning = Conditioning()
    mass: Tensor | None = None
    growth: Tensor | None = None
    probes: Tensor | None = None
    dropout_seeds: Tensor | None = None


class Path(ABC):
    """A family of curves x_t = I(t, eps, x_1) that end at the data.

    Attributes:
        auxiliary: number of uniform random numbers that each sample needs beside its noise.
        conditional: whether generation starts from the known part of an image.
    """

    auxiliary: int = 0
    conditional: bool = False

    @abstractmethod
    def interpolate(self, t: Tensor, noise: Tensor, data: Tensor, conditioning: Conditioning) -> tuple[Tensor, Tensor]:
        """Return x_t and u_t = d/dt x_t, both shaped like `data` (B, ...), at times `t` (B,)."""

    def condition_channels(self, channels: int) -> int:
        """Return how many channels the condition of images with `channels` channels has."""
        return 0

    def conditioning(self, data: Tensor, auxiliary: Tensor | None = None) -> Conditioning:
        """Return the known part of images `data` (B, C, H, W); `auxiliary` (B, `self.auxiliary`) are uniform random numbers."""
        return Conditioning()

    def noise_scale(self, t: Tensor) -> Tensor | None:
        """Return a_t of x_t = mu_t + a_t eps at times (B,), shape (B,); None if x_t is not Gaussian given x_1."""
        return None

    def prior(self, noise: Tensor, data: Tensor | None = None, conditioning: Conditioning | None = None) -> Tensor:
        """Transform standard normal noise (B, ...) into samples of q_0, where generation starts.

        Args:
            noise: standard normal.
            data: images with a known part, for a conditional path. Unknown pixels are not used.
            conditioning: the known part, from `self.conditioning`.
        """
        return noise

    def start_mass(self, data: Tensor | None) -> Tensor | None:
        """Return the masses that samples start with, (B,); None for ones."""
        return None

    def log_prior(self, x: Tensor) -> Tensor:
        """Return log q_0 of points (B, ...) at t = 0, shape (B,), in their dtype.

        Raises:
            UserError: for a conditional path.
        """
        if self.conditional:
            raise UserError(f"{type(self).__name__} starts from given images: what it generates has no density among all images")
        return -0.5 * (x.square() + math.log(2 * math.pi)).flatten(1).sum(dim=1)

    def shown(self, data: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the known part of images as an image, shaped like `data`; unknown pixels are black."""
        return data if conditioning.free is None else torch.where(conditioning.free.bool(), -1.0, data)

    def baselines(self, data: Tensor, conditioning: Conditioning) -> dict[str, Tensor]:
        """Return the images that simple methods reconstruct from the known part, by name, shaped like `data`; unknown pixels are not used.

        Values may lie a little outside [-1, 1]. Empty for a path that starts from noise.
        """
        return {}

    def finish(self, x: Tensor) -> Tensor:
        """Map the end of a generated curve into the range of the data."""
        return x

    def posterior_noise(self, t: Tensor, x: Tensor, velocity: Tensor, conditioning: Conditioning) -> Tensor:
        """Return E[eps | x_t = x] at points x (B, ...) from the marginal velocity there, for noise that is independent of the data.

        Raises:
            UserError: for a path that is not Gaussian given the data.
        """
        raise UserError(f"{type(self).__name__} is not Gaussian given the data: its score does not follow from the velocity")

    def score(self, t: Tensor, x: Tensor, velocity: Tensor, conditioning: Conditioning) -> Tensor:
        """Return grad log q_t = -E[eps | x_t] / a_t, for t < 1; arguments as for `posterior_noise`."""
        noise, scale = self.posterior_noise(t, x, velocity, conditioning), self.noise_scale(t)
        assert scale is not None
        return -noise / expand(scale, x)

    def sample(
        self,
        t: Tensor,
        noise: Tensor,
        data: Tensor,
        density: Tensor | None = None,
        label: Tensor | None = None,
        auxiliary: Tensor | None = None,
        dropout_seeds: Tensor | None = None,
        *,
        boundary: bool = False,
        score: bool = False,
    ) -> PathSample:
        """Return points on the curves of `noise` and `data`.

        Args:
            t: times, (B,).
            noise: standard normal, (B, ...).
            data: x_1, same shape.
            density: p(t), (B,); ones by default.
            label: classes that condition the action, int64 (B,).
            auxiliary: uniform random numbers, (B, `self.auxiliary`), if the path needs them.
            dropout_seeds: seeds of the dropout masks, int32 (B, 2), if the action has dropout.
            boundary: also return samples of both ends, which the marginal form needs.
            score: also return the conditional score, which entropic dynamics need in conditional form. At t = 1, where it may be infinite,
                it is that of `before_end(t)`.
        """
        conditioning = self.conditioning(data, auxiliary)
        x, velocity = self.interpolate(t, noise, data, conditioning)
        scale = self.noise_scale(before_end(t)) if score else None
        return PathSample(
            t=t,
            x=x,
            velocity=velocity,
            density=torch.ones_like(t) if density is None else density,
            boundary=self.boundary(noise, data, conditioning, label, dropout_seeds) if boundary else None,
            score=None if scale is None else conditioning.restrict(-noise / expand(scale, noise)),
            label=label,
            conditioning=conditioning,
            dropout_seeds=dropout_seeds,
        )

    def boundary(
        self, noise: Tensor, data: Tensor, conditioning: Conditioning, label: Tensor | None = None, dropout_seeds: Tensor | None = None
    ) -> Boundary:
        """Return both ends of the curves of `noise` and `data`; arguments as for `sample`."""
        start, _ = self.interpolate(data.new_zeros(len(data)), noise, data, conditioning)
        return Boundary(start, data, label, conditioning.condition, dropout_seeds)


def before_end(t: Tensor) -> Tensor:
    """Return times (B,) in [0, 1], with 1 replaced by the largest number below 1.

    A product of a factor that vanishes at t = 1 and one that is infinite there has its limit at this time, to rounding.
    """
    return t.clamp(max=1 - 0.5 * torch.finfo(t.dtype).eps)


class Constant:
    """A tensor that never changes, kept on every device and in every type that it was asked for.

    Copying it to a GPU at each step would wait for all that the GPU has still to do.

    Args:
        value: the tensor.
    """

    def __init__(self, value: Tensor):
        self.value = value
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def like(self, x: Tensor) -> Tensor:
        """Return the tensor on the device and in the type of `x`."""
        key = x.device, x.dtype
        if key not in self._copies:
            self._copies[key] = self.value.to(x.device, x.dtype)
        return self._copies[key]


def expand(t: Tensor, like: Tensor) -> Tensor:
    """Return `t` (B,) reshaped to (B, 1, ..., 1), with the number of dimensions of `like`."""
    return t.reshape(-1, *[1] * (like.dim() - 1))


def wrap(x: Tensor, period: float) -> Tensor:
    """Return x modulo `period`, in [-period/2, period/2)."""
    return (x + 0.5 * period).remainder(period) - 0.5 * period
