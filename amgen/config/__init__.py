"""Every option of a run: typed, strict, each with its default, unit and one line of help.

A run is described by one `Config`, read from a preset or a YAML file and changed with `--set section.key=value`. Unknown keys, wrong types
and impossible combinations are refused here, before anything is built. No torch is imported by this package.

- `data`, `parts`, `dynamics`, `stages`: the sections of the options
- `options`, `run`: all sections together, and Config, which checks them
- `combinations`: which options do not fit together, and what to do instead
- `reading`: load: presets, YAML files and --set
- `renaming`: old names of options
- `wording`, `yaml_text`: error messages; reading YAML safely
"""

from amgen.config.base import MAY_CHANGE, NOT_PREPARATION, Section
from amgen.config.data import AnyDataConfig, DataConfig, MassesConfig, PopulationConfig, SimulatedConfig, SnapshotsConfig
from amgen.config.dynamics import BalancedConfig, ConvexConfig, DynamicsConfig, EntropicConfig, UnbalancedConfig
from amgen.config.parts import (
    MAX_MASK,
    ActionConfig,
    AdaptiveTimesConfig,
    AnyActionConfig,
    ColourisationPathConfig,
    ConditionalLossConfig,
    CouplingConfig,
    HeatPathConfig,
    IndependentCouplingConfig,
    InPaintingPathConfig,
    LinearPathConfig,
    LossConfig,
    MarginalLossConfig,
    MLPConfig,
    OptimalTransportCouplingConfig,
    PathConfig,
    QuadratureTimesConfig,
    SnapshotsPathConfig,
    StratifiedTimesConfig,
    SuperResolutionPathConfig,
    TimesConfig,
    TorusPathConfig,
    TrigonometricPathConfig,
    UniformTimesConfig,
    VPPathConfig,
    WFRCouplingConfig,
    WFRPathConfig,
)
from amgen.config.reading import apply_overrides, change, load, parse, preset_names, preset_summary, read_yaml
from amgen.config.run import Config
from amgen.config.stages import EvaluationConfig, SamplingConfig, TrainingConfig
from amgen.core.names import ADAPTIVE_SOLVERS, METRICS, ODE_SOLVERS, SDE_SOLVERS, SOLVERS

__all__ = [
    "ADAPTIVE_SOLVERS",
    "MAX_MASK",
    "MAY_CHANGE",
    "METRICS",
    "NOT_PREPARATION",
    "ODE_SOLVERS",
    "SDE_SOLVERS",
    "SOLVERS",
    "ActionConfig",
    "AdaptiveTimesConfig",
    "AnyActionConfig",
    "AnyDataConfig",
    "BalancedConfig",
    "ColourisationPathConfig",
    "ConditionalLossConfig",
    "Config",
    "ConvexConfig",
    "CouplingConfig",
    "DataConfig",
    "DynamicsConfig",
    "EntropicConfig",
    "EvaluationConfig",
    "HeatPathConfig",
    "InPaintingPathConfig",
    "IndependentCouplingConfig",
    "LinearPathConfig",
    "LossConfig",
    "MLPConfig",
    "MarginalLossConfig",
    "MassesConfig",
    "OptimalTransportCouplingConfig",
    "PathConfig",
    "PopulationConfig",
    "QuadratureTimesConfig",
    "SamplingConfig",
    "Section",
    "SimulatedConfig",
    "SnapshotsConfig",
    "SnapshotsPathConfig",
    "StratifiedTimesConfig",
    "SuperResolutionPathConfig",
    "TimesConfig",
    "TorusPathConfig",
    "TrainingConfig",
    "TrigonometricPathConfig",
    "UnbalancedConfig",
    "UniformTimesConfig",
    "VPPathConfig",
    "WFRCouplingConfig",
    "WFRPathConfig",
    "apply_overrides",
    "change",
    "load",
    "parse",
    "preset_names",
    "preset_summary",
    "read_yaml",
]
