"""Probability paths q_t between noise (t = 0) and data (t = 1), and the random choices of a training sample.

- `base`, `affine`, `schedules`: Path, and paths that mix noise and data: LinearPath, VPPath, TrigonometricPath
- `known_pixels`, `colourisation`, `heat`: paths that start from the known part of an image
- `torus`, `snapshots`: pixels on circles; snapshots of a population
- `couplings`: which noise is paired with which image
- `cells`: cells of times, for the boundary terms of the marginal form
- `masses`: masses of samples that change in time
- `neighbourhood`: where the action of a population was trained
- `time`: samplers of training times
"""

from amgen.paths.affine import AffinePath, LinearPath, TrigonometricPath, VPPath
from amgen.paths.base import Boundary, Conditioning, Path, PathSample
from amgen.paths.cells import Cells
from amgen.paths.colourisation import ColourisationPath
from amgen.paths.couplings import Coupling, IndependentCoupling, OptimalTransportCoupling
from amgen.paths.heat import HeatPath
from amgen.paths.known_pixels import InPaintingPath, KnownPixelsPath, SuperResolutionPath
from amgen.paths.masses import Masses
from amgen.paths.neighbourhood import Neighbourhood
from amgen.paths.schedules import SCHEDULES, Linear, Schedule, Trigonometric, VariancePreserving, make_schedule
from amgen.paths.snapshots import SnapshotPath
from amgen.paths.time import AdaptiveTimes, QuadratureTimes, StratifiedTimes, TimeSampler, UniformTimes
from amgen.paths.torus import TorusPath
from amgen.paths.wfr import WFRPath

__all__ = [
    "SCHEDULES",
    "AdaptiveTimes",
    "AffinePath",
    "Boundary",
    "Cells",
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
    "Neighbourhood",
    "OptimalTransportCoupling",
    "Path",
    "PathSample",
    "QuadratureTimes",
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
    "WFRPath",
    "make_schedule",
]
