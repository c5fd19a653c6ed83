"""How an action moves samples.

- `types`: Balanced, Entropic, Unbalanced and ConvexCost: the types of dynamics
- `trained`: Dynamics of a trained action: velocity, growth, score, divergence
"""

from amgen.dynamics.trained import Dynamics, MarginalNoise
from amgen.dynamics.types import Balanced, ConvexCost, DynamicsType, Entropic, Unbalanced

__all__ = ["Balanced", "ConvexCost", "Dynamics", "DynamicsType", "Entropic", "MarginalNoise", "Unbalanced"]
