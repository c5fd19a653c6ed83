"""The U-Net of actions for images."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from amgen.actions.dropout import Dropout
from amgen.actions.layers import Attention, Downsample, ResidualBlock, TimeEmbedding, Upsample, norm_silu, zero
from amgen.actions.recomputation import recompute
from amgen.actions.second_order import Conv2d
from amgen.core.names import ATTENTION_HEADS, DROPOUT, UNET_TIME_FREQUENCY


class UNet(nn.Module):
    """f(t, x): residual blocks at several resolutions with skip connections, after DDPM (arXiv 2006.11239).

    Args:
        channels: channels of x.
        size: height and width of x, pixels.
        width: channels of the first level.
        multipliers: channels of each level in units of `width`; each level after the first halves the resolution.
        blocks: residual blocks at each level (one more on the way up).
        attention: resolutions, in pixels, with attention after each block.
        attention_heads: heads of each attention layer.
        dropout: dropout rate inside the residual blocks.
        time_frequency: highest angular frequency of the embedding of t, radians per unit of t.
        classes: number of labels; 0 for none.
        condition_channels: channels of the condition, which is concatenated to x; 0 for none.
        out_channels: channels of the output, from a last convolution that is zero before training; None to return the features.
        checkpoint: recompute activations in training instead of keeping them.

    Attributes:
        features: channels of the features before the last convolution.

    Example:
        >>> import torch
        >>> from amgen.actions import UNet
        >>> body = UNet(channels=3, size=16, width=8, multipliers=[1, 2], blocks=1, attention=[8], out_channels=3)
        >>> body(torch.rand(2), torch.randn(2, 3, 16, 16)).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        channels: int,
        size: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention: Sequence[int] = (),
        attention_heads: int = ATTENTION_HEADS,
        dropout: float = DROPOUT,
        time_frequency: float = UNET_TIME_FREQUENCY,
        classes: int = 0,
        condition_channels: int = 0,
        out_channels: int | None = None,
        checkpoint: bool = False,
    ):
        super().__init__()
        self.checkpoint = checkpoint
        embedding = 4 * width
        self.time = TimeEmbedding(embedding, time_frequency)
        self.classes = nn.Embedding(classes, embedding) if classes else None
        self.condition_channels = condition_channels
        self.silu = nn.SiLU()
        self.stem = Conv2d(channels + condition_channels, width, 3)

        numbers = itertools.count()

        def residual(channels_in: int, channels_out: int) -> ResidualBlock:
            return ResidualBlock(channels_in, channels_out, embedding, Dropout(dropout, next(numbers)))

        def block(channels_in: int, channels_out: int, resolution: int) -> Stage:
            layers: list[nn.Module] = [residual(channels_in, channels_out)]
            if resolution in attention:
                layers.append(Attention(channels_out, attention_heads))
            return Stage(layers)

        self.down = nn.ModuleList()
        skips, current, resolution = [width], width, size
        for level, multiplier in enumerate(multipliers):
            if level > 0:
                self.down.append(Stage([Downsample(current)]))
                skips.append(current)
                resolution //= 2
            for _ in range(blocks):
                self.down.append(block(current, width * multiplier, resolution))
                current = width * multiplier
                skips.append(current)

        self.middle = Stage(
            [
                *block(current, current, resolution),
                residual(current, current),
            ]
        )

        self.up = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                self.up.append(block(current + skips.pop(), width * multiplier, resolution))
                current = width * multiplier
            if level > 0:
                self.up.append(Stage([Upsample(current)]))
                resolution *= 2

        self.features = current
        self.norm = norm_silu(current)
        self.head = None if out_channels is None else zero(Conv2d(current, out_channels, 3))

    def forward(
        self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None, dropout_seeds: Tensor | None = None
    ) -> Tensor:
        """Return f(t, x).

        Args:
            t: times, (B,).
            x: points, (B, channels, size, size).
            label: classes, int64 (B,); needed if the network has classes.
            condition: (B, condition_channels, size, size); needed if the network has condition channels.
            dropout_seeds: seeds of the dropout masks, int32 (B, 2); needed in training with dropout.

        Returns:
            (B, out_channels, size, size), or the features (B, features, size, size).

        Raises:
            ValueError: if a label or a condition is missing.
        """
        embedding = self.time(t)
        if self.classes is not None:
            if label is None:
                raise ValueError("this action is conditioned on classes: give a label for each sample")
            embedding = embedding + self.classes(label)
        embedding = self.silu(embedding)
        if self.condition_channels:
            if condition is None:
                raise ValueError("this action is conditioned on images: give a condition for each sample")
            x = torch.cat([x, condition], dim=1)

        h = self.stem(x)
        skips = [h]
        for layers in self.down:
            h = self._run(layers, h, embedding, dropout_seeds)
            skips.append(h)
        h = self._run(self.middle, h, embedding, dropout_seeds)
        for layers in self.up:
            if isinstance(layers[0], ResidualBlock):  # type: ignore[index]
                h = torch.cat([h, skips.pop()], dim=1)
            h = self._run(layers, h, embedding, dropout_seeds)
        h = self.norm(h)
        return h if self.head is None else self.head(h)

    def _run(self, stage: nn.Module, h: Tensor, embedding: Tensor, dropout_seeds: Tensor | None) -> Tensor:
        if self.checkpoint and self.training:
            return recompute(stage, h, embedding, dropout_seeds=dropout_seeds)
        return stage(h, embedding, dropout_seeds)


class Stage(nn.ModuleList):
    """Layers between two skip connections, in sequence."""

    def forward(self, h: Tensor, embedding: Tensor, dropout_seeds: Tensor | None) -> Tensor:
        """Apply the layers to (B, C, H, W); residual blocks also get the embedding and the seeds."""
        for layer in self:
            h = layer(h, embedding, dropout_seeds) if isinstance(layer, ResidualBlock) else layer(h)
        return h
