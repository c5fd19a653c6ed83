"""The sections of a configuration, before it is checked that they fit together."""

from pydantic import Field

from amgen.config.base import Section
from amgen.config.data import AnyDataConfig, DataConfig
from amgen.config.dynamics import BalancedConfig, DynamicsConfig
from amgen.config.parts import (
    ActionConfig,
    AnyActionConfig,
    ConditionalLossConfig,
    CouplingConfig,
    IndependentCouplingConfig,
    LinearPathConfig,
    LossConfig,
    PathConfig,
    StratifiedTimesConfig,
    TimesConfig,
)
from amgen.config.stages import EvaluationConfig, SamplingConfig, TrainingConfig


class Options(Section):
    """All options of a run, each section valid by itself. `Config` also checks that they fit together."""

    seed: int = Field(0, ge=0, lt=2**63, description="Seed of everything random in a run.")
    data: AnyDataConfig = Field(default_factory=lambda: DataConfig(), description="The training data.")
    path: PathConfig = Field(default_factory=lambda: LinearPathConfig(), description="The path from noise to data: the marginals q_t.")
    coupling: CouplingConfig = Field(
        default_factory=lambda: IndependentCouplingConfig(), description="The joint distribution of noise and data (their pairs)."
    )
    dynamics: DynamicsConfig = Field(default_factory=lambda: BalancedConfig(), description="How the action moves samples.")
    action: AnyActionConfig = Field(default_factory=lambda: ActionConfig(), description="The network.")
    loss: LossConfig = Field(default_factory=lambda: ConditionalLossConfig(), description="The form of the objective.")
    times: TimesConfig = Field(default_factory=lambda: StratifiedTimesConfig(), description="How the times of a batch are sampled.")
    training: TrainingConfig = Field(default_factory=lambda: TrainingConfig(), description="Optimisation, logs and checkpoints.")
    sampling: SamplingConfig = Field(default_factory=lambda: SamplingConfig(), description="Solver and its settings.")
    evaluation: EvaluationConfig = Field(default_factory=lambda: EvaluationConfig(), description="Metrics computed while training.")
