"""Layers of the action networks, which a loss can differentiate twice.

They use no fused attention (it has no double backward on GPUs) and no batch statistics. No parameter has a gradient of zero by
construction: the keys of attention have no bias, since softmax does not depend on it.
"""

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from amgen.actions.dropout import Dropout
from amgen.actions.second_order import Conv2d, NormSiLU


class TimeEmbedding(nn.Module):
    """Sinusoidal features of t, then two linear layers.

    The angular frequencies are spaced geometrically from pi/2, a quarter turn over [0, 1], to `highest_frequency` in radians. A high one
    makes d/dt s noisy, which only the marginal form uses. The embedding is in full precision in mixed precision too: bf16 resolves t to
    1/256 only.

    Args:
        features: length F of the embedding.
        highest_frequency: highest angular frequency, radians per unit of t.
    """

    frequencies: Tensor

    def __init__(self, features: int, highest_frequency: float):
        super().__init__()
        lowest = min(math.pi / 2, highest_frequency)
        count = features // 2
        exponents = torch.linspace(0, 1, count, dtype=torch.float64)
        frequencies = lowest * (highest_frequency / lowest) ** exponents
        self.register_buffer("frequencies", frequencies.to(torch.get_default_dtype()), persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * count, features), nn.SiLU(), nn.Linear(features, features))

    def forward(self, t: Tensor) -> Tensor:
        """Return the embedding of times (B,), shape (B, features)."""
        with torch.autocast(t.device.type, enabled=False):
            angles = t[:, None] * self.frequencies
            return self.layers(torch.cat([angles.cos(), angles.sin()], dim=1))


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of sums of this dtype: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def groups_of(channels: int) -> int:
    """Return the number of groups of a normalisation: at most 32, of at least 4 channels each.

    A bias before groups of one channel would get no gradient.
    """
    groups = min(32, max(1, channels // 4))
    while channels % groups:
        groups -= 1
    return groups


def norm_silu(channels: int) -> NormSiLU:
    """Return a group normalisation followed by SiLU."""
    return NormSiLU(groups_of(channels), channels, eps=1e-6)


def zero(layer: Conv2d) -> Conv2d:
    """Set the parameters of a layer to zero, so that it adds nothing before training."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """Two normalised 3x3 convolutions, added to the input; the embedding of t is added between them."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int, dropout: Dropout):
        super().__init__()
        self.norm1 = norm_silu(channels_in)
        self.conv1 = Conv2d(channels_in, channels_out, 3)
        self.embed = nn.Linear(embedding, channels_out)
        self.norm2 = norm_silu(channels_out)
        self.dropout = dropout
        self.conv2 = zero(Conv2d(channels_out, channels_out, 3))
        self.skip = Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor, dropout_seeds: Tensor | None = None) -> Tensor:
        """Map (B, channels_in, H, W) to (B, channels_out, H, W); `embedding` is (B, E), after its activation."""
        h = self.conv1(self.norm1(x)) + self.embed(embedding)[:, :, None, None]
        h = self.conv2(self.dropout(self.norm2(h), dropout_seeds))
        return self.skip(x) + h


class Attention(nn.Module):
    """Self-attention over the pixels, added to the input, by matrix products and softmax, which have a double backward."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups_of(channels), channels, eps=1e-6)
        self.qkv = Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = zero(Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        q, k, v = rearrange(self.qkv(self.norm(x)), "b (three heads c) h w -> three b heads (h w) c", three=3, heads=self.heads)
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1, dtype=wide(x.dtype))
        mixed = rearrange(weights @ v, "b heads (h w) c -> b (heads c) h w", h=x.shape[-2])
        return x + self.out(mixed)


class Downsample(nn.Module):
    """A strided 3x3 convolution that halves the resolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H/2, W/2)."""
        return self.conv(x)


class Upsample(nn.Module):
    """Nearest-neighbour upsampling by 2, then a 3x3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = Conv2d(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W)."""
        return self.conv(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
