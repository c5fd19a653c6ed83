"""Action-matching losses."""

from amgen.losses.action_matching import ActionMatchingLoss, ConditionalLoss, LossTerms, MarginalLoss
from amgen.losses.weights import CONSTANT, TIME_WEIGHTS, TimeWeight

__all__ = ["CONSTANT", "TIME_WEIGHTS", "ActionMatchingLoss", "ConditionalLoss", "LossTerms", "MarginalLoss", "TimeWeight"]
