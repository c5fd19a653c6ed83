"""Action networks s(t, x): a body (U-Net or MLP) and a head that reduces its output to one scalar."""

from amgen.actions.frozen import frozen_view
from amgen.actions.heads import Action, DotAction, PooledAction, SquareAction, TimeOffset
from amgen.actions.mlp import MLP
from amgen.actions.unet import UNet

__all__ = ["MLP", "Action", "DotAction", "PooledAction", "SquareAction", "TimeOffset", "UNet", "frozen_view"]
