"""A multilayer perceptron body for vectors."""

import torch
from torch import Tensor, nn

from amgen.actions.layers import TimeEmbedding
from amgen.core.names import MLP_GAIN, MLP_TIME_FREQUENCY


class MLP(nn.Module):
    """f(t, x) for vectors x: linear and SiLU layers on x, concatenated with an embedding of t.

    Args:
        dimension: length of x.
        width: units of each hidden layer.
        depth: number of hidden layers.
        time_frequency: highest angular frequency of the embedding of t, radians per unit of t.
        time_features: length of the embedding of t; by default `width`.
        gain: factor on x at the input; a larger one learns fine structure sooner.
        features_only: return the last hidden layer, (B, width), instead of a vector like x.

    Example:
        >>> import torch
        >>> from amgen.actions import MLP
        >>> MLP(dimension=3, width=16, depth=2)(torch.rand(4), torch.randn(4, 3)).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        dimension: int,
        width: int,
        depth: int,
        time_frequency: float = MLP_TIME_FREQUENCY,
        time_features: int | None = None,
        gain: float = MLP_GAIN,
        features_only: bool = False,
    ):
        super().__init__()
        self.gain = gain
        embedding = time_features or width
        self.time = TimeEmbedding(embedding, time_frequency)
        layers: list[nn.Module] = []
        current = dimension + embedding
        for _ in range(depth):
            layers += [nn.Linear(current, width), nn.SiLU()]
            current = width
        if not features_only:
            layers.append(nn.Linear(current, dimension))
        self.layers = nn.Sequential(*layers)

    def forward(
        self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None, dropout_seeds: Tensor | None = None
    ) -> Tensor:
        """Map times (B,) and vectors (B, dimension) to (B, dimension), or to features (B, width).

        Raises:
            ValueError: for a label or a condition, which this body does not take.
        """
        if label is not None or condition is not None:
            raise ValueError("an MLP action takes neither labels nor conditions")
        return self.layers(torch.cat([self.gain * x, self.time(t)], dim=1))
