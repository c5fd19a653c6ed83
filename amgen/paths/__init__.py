"""Probability paths between noise and data."""

from amgen.paths.affine import AffinePath, LinearPath, TrigonometricPath, VPPath
from amgen.paths.base import Boundary, Conditioning, Path, PathSample
from amgen.paths.colourisation import ColourisationPath
from amgen.paths.couplings import Coupling, IndependentCoupling, OptimalTransportCoupling
from amgen.paths.heat import HeatPath
from amgen.paths.known_pixels import InPaintingPath, KnownPixelsPath, SuperResolutionPath
from amgen.paths.masses import Masses
from amgen.paths.snapshots import SnapshotPath
from amgen.paths.time import AdaptiveTimes, StratifiedTimes, TimeSampler, UniformTimes
from amgen.paths.torus import TorusPath

__all__ = [
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
    "LinearPath",
    "Masses",
    "OptimalTransportCoupling",
    "Path",
    "PathSample",
    "SnapshotPath",
    "StratifiedTimes",
    "SuperResolutionPath",
    "TimeSampler",
    "TorusPath",
    "TrigonometricPath",
    "UniformTimes",
    "VPPath",
]
