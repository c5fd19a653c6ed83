"""Action networks s(t, x)."""

from amgen.actions.heads import Action, DotAction, PooledAction, SquareAction, TimeOffset
from amgen.actions.mlp import MLP
from amgen.actions.unet import UNet

__all__ = ["MLP", "Action", "DotAction", "PooledAction", "SquareAction", "TimeOffset", "UNet"]
