"""Names that options and messages use, and the defaults of the mathematics; torch is not loaded for them.

The configuration checks these names before torch is imported. The packages that implement them look their classes up here. So each name
and each default stands in one place.
"""

from typing import Literal, get_args

FIXED_STEP_SOLVERS = {
    "ab2": "AdamsBashforth2",
    "ab3": "AdamsBashforth3",
    "euler": "Euler",
    "heun": "Heun",
    "midpoint": "Midpoint",
    "ralston": "Ralston",
    "rk4": "RK4",
}
"""ODE solvers that take the steps of a grid: name to class in `amgen.solvers.ode`."""

ADAPTIVE_SOLVERS = {
    "adaptive-heun": "AdaptiveHeun",
    "bosh3": "Bosh3",
    "dopri5": "Dopri5",
    "dopri8": "Dopri8",
}
"""ODE solvers that choose their own steps by a tolerance, likewise."""

SDE_SOLVERS = {
    "euler-maruyama": "EulerMaruyama",
    "sra1": "SRA1",
    "stochastic-heun": "StochasticHeun",
}
"""SDE solvers: name to class in `amgen.solvers.sde`."""

ODE_SOLVERS = tuple(sorted([*FIXED_STEP_SOLVERS, *ADAPTIVE_SOLVERS]))

SOLVERS = (*ODE_SOLVERS, *SDE_SOLVERS)

StepGridName = Literal["uniform", "cosine", "polynomial"]
"""Where the steps of a fixed-step solver lie."""
STEP_GRID: StepGridName = "uniform"
STEP_GRID_RHO = 2.0

ScheduleName = Literal["linear", "trigonometric", "vp"]
"""Coefficients of noise and data along a path."""
SCHEDULE: ScheduleName = "linear"

VP_BETA_MIN = 0.1
VP_BETA_MAX = 20.0
VP_TRACE = 0.0066
"""alpha(0) of the variance-preserving schedule with these rates: the part of the data that is left at t = 0."""

SUPER_RESOLUTION_FACTOR = 2

Region = Literal["half", "box", "mask"]
"""Regions to in-paint."""
REGION: Region = "half"

COLOURISATION_NOISE = 0.1

HEAT_BLUR = 4.0
HEAT_NOISE = 0.1

OT_GROUP = 64
WFR_GROUP = 4000
"""Most points of a snapshot that a plan of transport is solved for at once: 0.4 GB of memory and some 5 seconds on one core."""

GROWTH_RATE = 0.01

MassInterpolation = Literal["linear", "geometric"]
"""How masses change between t = 0 and t = 1."""
MASS_INTERPOLATION: MassInterpolation = "linear"

TimeWeightName = Literal["constant", "1-t", "(1-t)^2"]
"""Weights w(t) of a loss."""
TIME_WEIGHT: TimeWeightName = "constant"

ADAPTIVE_TIMES_BINS = 32
ADAPTIVE_TIMES_MEMORY = 4_410.0
"""Half-life of the sums that the density of times is made of, in images."""
ADAPTIVE_TIMES_FLOOR = 0.01

QuadratureRule = Literal["antithetic", "gauss", "simpson"]
"""Rules for the integral over t."""
QUADRATURE_RULE: QuadratureRule = "antithetic"
QUADRATURE_NODES = 2

MetricName = Literal["fid", "kid", "is", "prc", "nearest"]
METRICS: tuple[MetricName, ...] = get_args(MetricName)
"""Metrics of generated images, in the order of reports."""

BATCH_SIZE = 64

UNET_TIME_FREQUENCY = 100.0
MLP_TIME_FREQUENCY = 10.0
"""Highest angular frequencies of the embedding of t, radians per unit of t."""
MLP_GAIN = 1.0
ATTENTION_HEADS = 1
DROPOUT = 0.0
