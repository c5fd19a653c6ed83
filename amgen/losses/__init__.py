"""Action-matching losses, as modules that contain the action and return one loss for each sample.

- `action_matching`: ConditionalLoss (regression on the velocity of a known path) and MarginalLoss (the loss of the paper)
- `weights`: TimeWeight: the weight w(t) of a loss and its derivative
"""

from amgen.losses.action_matching import ActionMatchingLoss, ConditionalLoss, LossTerms, MarginalLoss
from amgen.losses.weights import CONSTANT, TIME_WEIGHTS, TimeWeight

__all__ = ["CONSTANT", "TIME_WEIGHTS", "ActionMatchingLoss", "ConditionalLoss", "LossTerms", "MarginalLoss", "TimeWeight"]
