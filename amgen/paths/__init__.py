"""Probability paths between noise and data."""

from amgen.paths.affine import AffinePath, LinearPath, TrigonometricPath, VPPath
from amgen.paths.base import Boundary, Conditioning, Path, PathSample
from amgen.paths.colourisation import ColourisationPath
from amgen.paths.couplings import Coupling, IndependentCoupling, OptimalTransportCoupling
from amgen.paths.heat import HeatPath
from amgen.paths.known_pixels import InPaintingPath, KnownPixelsPath, SuperResolutionPath
from amgen.paths.masses import Masses
from amgen.paths.schedules import SCHEDULES, Linear, Schedule, Trigonometric, VariancePreserving, make_schedule
from amgen.paths.snapshots import SnapshotPath
from amgen.paths.time import AdaptiveTimes, StratifiedTimes, TimeSampler, UniformTimes
from amgen.paths.torus import TorusPath

__all__ = [
    "SCHEDULES",
    "AdaptiveTimes",
    "AffinePath",
    "Boundary",
    "ColourisationPath",
    "Conditioning",
    "Coupling",
    "HeatPath",
    "InPaintingPath",
    "IndependentCoupling",
    "KnownPixelsPath",
    "Linear",
    "LinearPath",
    "Masses",
    "OptimalTransportCoupling",
    "Path",
    "PathSample",
    "Schedule",
    "SnapshotPath",
    "StratifiedTimes",
    "SuperResolutionPath",
    "TimeSampler",
    "TorusPath",
    "Trigonometric",
    "TrigonometricPath",
    "UniformTimes",
    "VPPath",
    "VariancePreserving",
    "make_schedule",
]
