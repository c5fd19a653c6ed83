"""Types of dynamics, and the dynamics of a trained action: velocity, growth, score, divergence."""

from amgen.dynamics.trained import Dynamics, MarginalNoise
from amgen.dynamics.types import Balanced, ConvexCost, DynamicsType, Entropic, Unbalanced

__all__ = ["Balanced", "ConvexCost", "Dynamics", "DynamicsType", "Entropic", "MarginalNoise", "Unbalanced"]
