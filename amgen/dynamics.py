"""What a trained action gives: its velocity, evaluated without leaving an autograd graph behind."""

import torch
from torch import Tensor
from torch.func import grad

from amgen.actions import Action


class Dynamics:
    """The motion dx/dt = grad_x s(t, x) of a trained action, whose parameters are frozen here.

    Attributes:
        evaluations: how many times the gradient of the action has been evaluated on a batch (NFE).
    """

    def __init__(self, action: Action, label: Tensor | None = None, condition: Tensor | None = None):
        self.action = action.requires_grad_(False).eval()
        self.label = label
        self.condition = condition
        self.evaluations = 0

    def velocity(self, t: Tensor | float, x: Tensor) -> Tensor:
        """Return grad_x s at one time or one for each sample, `t` scalar or (B,), and points `x` (B, ...)."""
        self.evaluations += 1
        times = torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(len(x))
        # The outer no_grad keeps a graph from growing; torch.func.grad differentiates inside it all the same.
        with torch.no_grad():
            return grad(lambda point: self.action(times, point, self.label, self.condition).sum())(x)
