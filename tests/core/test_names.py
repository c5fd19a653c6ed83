"""Names stand once: the tables that are read before torch is loaded are those of the classes."""

import inspect
from typing import get_args

import pytest

from amgen import config
from amgen.actions import MLP, UNet
from amgen.core import names
from amgen.losses import TIME_WEIGHTS
from amgen.paths import (
    SCHEDULES,
    AdaptiveTimes,
    ColourisationPath,
    HeatPath,
    InPaintingPath,
    Masses,
    OptimalTransportCoupling,
    QuadratureTimes,
    SuperResolutionPath,
    VariancePreserving,
    VPPath,
)
from amgen.solvers import ADAPTIVE, FIXED_STEP, GRIDS, SDE_SOLVERS, StepGrid


def test_every_name_has_an_implementation() -> None:
    assert sorted(names.SOLVERS) == sorted([*FIXED_STEP, *ADAPTIVE, *SDE_SOLVERS])
    assert config.SOLVERS == names.SOLVERS
    assert {name: solver.__name__ for name, solver in {**FIXED_STEP, **ADAPTIVE}.items()} == {
        **names.FIXED_STEP_SOLVERS,
        **names.ADAPTIVE_SOLVERS,
    }
    assert set(GRIDS) == set(get_args(names.StepGridName))
    assert tuple(SCHEDULES) == get_args(names.ScheduleName)
    assert tuple(TIME_WEIGHTS) == get_args(names.TimeWeightName)


@pytest.mark.parametrize(
    ("section", "made", "options"),
    [
        (config.VPPathConfig(), VPPath, {"beta_min": "beta_min", "beta_max": "beta_max"}),
        (config.VPPathConfig(), VariancePreserving, {"beta_min": "beta_min", "beta_max": "beta_max"}),
        (config.SuperResolutionPathConfig(), SuperResolutionPath, {"factor": "factor"}),
        (config.InPaintingPathConfig(), InPaintingPath, {"region": "region", "mask": "mask"}),
        (config.ColourisationPathConfig(), ColourisationPath, {"noise": "noise"}),
        (config.HeatPathConfig(), HeatPath, {"blur": "blur", "noise": "noise"}),
        (config.OptimalTransportCouplingConfig(), OptimalTransportCoupling, {"group": "group"}),
        (config.AdaptiveTimesConfig(), AdaptiveTimes, {"bins": "bins", "floor": "floor"}),
        (config.QuadratureTimesConfig(), QuadratureTimes, {"rule": "rule", "nodes": "nodes"}),
        (config.MassesConfig(end=[1]), Masses, {"interpolation": "interpolation"}),
        (config.SamplingConfig(), StepGrid, {"step_grid": "kind", "rho": "rho"}),
        (config.ActionConfig(), UNet, {"attention_heads": "attention_heads", "dropout": "dropout", "time_frequency": "time_frequency"}),
        (config.MLPConfig(), MLP, {"gain": "gain", "time_frequency": "time_frequency"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_classes_have_the_defaults_of_the_configuration(section: config.Section, made: type, options: dict[str, str]) -> None:
    defaults = inspect.signature(made).parameters
    for option, argument in options.items():
        assert defaults[argument].default == getattr(section, option)


def test_the_memory_of_adaptive_times_is_that_of_the_configuration() -> None:
    """A half-life in images there is a decay per step of the default batch here."""
    images, batch = config.AdaptiveTimesConfig().memory, config.TrainingConfig().batch_size
    assert AdaptiveTimes().memory ** (images / batch) == pytest.approx(0.5)
