"""Probability paths between noise and data."""

from amgen.paths.base import Path, PathSample
from amgen.paths.couplings import Coupling, IndependentCoupling, OptimalTransportCoupling
from amgen.paths.linear import LinearPath
from amgen.paths.time import stratified_times

__all__ = [
    "Coupling",
    "IndependentCoupling",
    "LinearPath",
    "OptimalTransportCoupling",
    "Path",
    "PathSample",
    "stratified_times",
]
