"""What moves samples, and what a trained action gives: velocity, growth, score, divergence."""

from amgen.dynamics.trained import Dynamics, MarginalNoise
from amgen.dynamics.types import Balanced, ConvexCost, DynamicsType, Entropic, Unbalanced

__all__ = ["Balanced", "ConvexCost", "Dynamics", "DynamicsType", "Entropic", "MarginalNoise", "Unbalanced"]
