"""A multilayer perceptron body for vectors."""

import torch
from torch import Tensor, nn

from amgen.actions.layers import TimeEmbedding


class MLP(nn.Module):
    """f(t, x) for vectors x: SiLU layers on x beside an embedding of t.

    Args:
        dimension: length of x, and of the output.
        width: units of each hidden layer.
        depth: hidden layers.
        time_frequency: highest angular frequency of the embedding of t, radians.
    """

    def __init__(self, dimension: int, width: int, depth: int, time_frequency: float = 10.0):
        super().__init__()
        self.time = TimeEmbedding(width, time_frequency)
        layers: list[nn.Module] = []
        current = dimension + width
        for _ in range(depth):
            layers += [nn.Linear(current, width), nn.SiLU()]
            current = width
        self.layers = nn.Sequential(*layers, nn.Linear(current, dimension))

    def forward(
        self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None, keys: Tensor | None = None
    ) -> Tensor:
        """Map times (B,) and vectors (B, dimension) to (B, dimension)."""
        if label is not None or condition is not None:
            raise ValueError("an MLP action takes neither labels nor conditions")
        return self.layers(torch.cat([x, self.time(t)], dim=1))
