"""Probability paths q_t between noise (t = 0) and data (t = 1), known through samples x_t and their velocities.

Symbols: eps standard normal noise, x_1 data, t in [0, 1], x_t = I(t, eps, x_1) a curve that ends at x_1, u_t = d/dt x_t, z = (eps, x_1)
the pair that a curve belongs to. For most paths x_t is Gaussian given x_1, x_t = mu_t + a_t eps, with the conditional score -eps / a_t.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from amgen.core.errors import UserError


@dataclass(frozen=True)
class Conditioning:
    """What generation is told of an image beforehand.

    Attributes:
        condition: what the network sees beside x and is not differentiated in, (B, K, H, W); None for nothing.
        free: 1 where pixels move and 0 where they are known, (B, 1, H, W); None when all move.
    """

    condition: Tensor | None = None
    free: Tensor | None = None

    def restrict(self, x: Tensor) -> Tensor:
        """Set to zero what belongs to known pixels."""
        return x if self.free is None else x * self.free


@dataclass
class Boundary:
    """Samples of q_0 and q_1 for the boundary terms of the marginal form.

    Attributes:
        start: samples of q_0, (B, ...).
        end: samples of q_1, same shape.
        label: class of each pair, int64 (B,), or None.
        condition: condition of each pair, (B, K, H, W), or None.
        keys: what the dropout masks of each pair are made from, int32 (B, 2), or None.
        start_mass: mass of each pair at t = 0, (B,); None for ones.
        end_mass: mass of each pair at t = 1, (B,); None for ones.
    """

    start: Tensor
    end: Tensor
    label: Tensor | None = None
    condition: Tensor | None = None
    dropout_seeds: Tensor | None = None
    start_mass: Tensor | None = None
    end_mass: Tensor | None = None


@dataclass
class PathSample:
    """A batch of B points drawn along a path, and what the losses need to know of them.

    Attributes:
        t: times, in [0, 1], shape (B,).
        x: points x_t, shape (B, ...).
        velocity: u_t, same shape as `x`.
        density: p(t), the density that `t` was drawn from, shape (B,).
        boundary: samples of both ends, where they were asked for.
        score: conditional score grad log q_t(x_t | x_1), same shape as `x`, where it was asked for and x_t is Gaussian given x_1.
        label: class of each sample, int64, shape (B,); None for an unconditional action.
        given: condition and free pixels.
        mass: m_t of each sample, (B,); None for ones.
        growth: d/dt log m_t, (B,); None for zeros.
        probes: random signs for the Hutchinson estimate of the Laplacian, (B, P, ...); None when there is none to estimate.
        keys: what dropout masks are made from, int32 (B, 2), of `amgen.randomness.keys`; None without dropout.
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
    """A family of curves x_t = I(t, eps, x_1) that end at data.

    Attributes:
        choices: uniform random numbers that each sample needs beside its noise.
        guided: whether generation starts from an image of which something is known.
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
        """Return what is told of images `data` (B, C, H, W); `choices` (B, `self.choices`) are uniform random numbers."""
        return Conditioning()

    def noise_scale(self, t: Tensor) -> Tensor | None:
        """Return a_t at times (B,), shape (B,), of x_t = mu_t + a_t eps; None where x_t is not Gaussian given x_1."""
        return None

    def prior(self, noise: Tensor, data: Tensor | None = None, conditioning: Conditioning | None = None) -> Tensor:
        """Turn standard normal noise (B, ...) into samples of q_0, where generation starts.

        Args:
            noise: standard normal.
            data: the images that something is known of, where `guided`. Nothing else of them is looked at.
            given: what is known, as `given` returns it.
        """
        return noise

    def start_mass(self, data: Tensor | None) -> Tensor | None:
        """Return the masses that samples start with, (B,); None for ones."""
        return None

    def log_prior(self, x: Tensor) -> Tensor:
        """Return log q_0 of points (B, ...) at t = 0, shape (B,), in their dtype.

        Raises:
            UserError: for a path that starts from images of which something is known.
        """
        if self.conditional:
            raise UserError(f"{type(self).__name__} starts from given images: what it generates has no density among all images")
        return -0.5 * (x.square() + math.log(2 * math.pi)).flatten(1).sum(dim=1)

    def shown(self, data: Tensor, conditioning: Conditioning) -> Tensor:
        """Return what is known of images as a picture, shaped like them; unknown pixels are black."""
        return data if conditioning.free is None else torch.where(conditioning.free.bool(), -1.0, data)

    def baselines(self, data: Tensor, conditioning: Conditioning) -> dict[str, Tensor]:
        """Return images made of what is given without training, by name, shaped like `data`, of which no unknown pixel is looked at.

        Values may lie a little outside [-1, 1]. Empty for a path that starts from noise alone.
        """
        return {}

    def finish(self, x: Tensor) -> Tensor:
        """Bring the end of a generated curve into the range of data."""
        return x

    def posterior_noise(self, t: Tensor, x: Tensor, velocity: Tensor, conditioning: Conditioning) -> Tensor:
        """Return E[eps | x_t = x] at points x (B, ...), given the marginal velocity there, noise and data being independent.

        Raises:
            UserError: for a path that is not Gaussian.
        """
        raise UserError(f"{type(self).__name__} is not Gaussian given the data: its score does not follow from the velocity")

    def score(self, t: Tensor, x: Tensor, velocity: Tensor, conditioning: Conditioning) -> Tensor:
        """Return grad log q_t = -E[eps | x_t] / a_t, for t < 1; otherwise as `posterior_noise`."""
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
        """Draw points along the curves of `noise` and `data`.

        Args:
            t: times, (B,).
            noise: standard normal, (B, ...).
            data: x_1, same shape.
            density: p(t), (B,); ones by default.
            label: classes that condition the action, int64 (B,).
            auxiliary: uniform random numbers, (B, `self.auxiliary`), where the path needs some.
            dropout_seeds: seeds of the dropout masks, int32 (B, 2), where the action has dropout.
            boundary: also return samples of both ends, which the marginal form needs.
            score: also return the conditional score, which entropic dynamics need in conditional form.
        """
        conditioning = self.conditioning(data, auxiliary)
        x, velocity = self.interpolate(t, noise, data, conditioning)
        scale = self.noise_scale(t) if score else None
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


def expand(t: Tensor, like: Tensor) -> Tensor:
    """Reshape `t` (B,) to (B, 1, ..., 1), with as many dimensions as `like`."""
    return t.reshape(-1, *[1] * (like.dim() - 1))


def wrap(x: Tensor, period: float) -> Tensor:
    """Return x modulo `period`, in [-period/2, period/2)."""
    return (x + 0.5 * period).remainder(period) - 0.5 * period
