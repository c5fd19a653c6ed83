"""The configuration of a run as a whole, and in what two of them differ."""

from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import BaseModel, Field, model_validator
from pydantic.fields import FieldInfo

from amgen.config.base import Section
from amgen.config.combinations import mismatches
from amgen.config.data import AnyDataConfig, DataConfig
from amgen.config.parts import (
    ActionConfig,
    AnyActionConfig,
    BalancedConfig,
    ConditionalLossConfig,
    CouplingConfig,
    DynamicsConfig,
    IndependentCouplingConfig,
    LinearPathConfig,
    LossConfig,
    PathConfig,
    StratifiedTimesConfig,
    TimesConfig,
)
from amgen.config.stages import EvaluationConfig, SamplingConfig, TrainingConfig
from amgen.config.wording import sections
from amgen.core.errors import UserError


class Config(Section):
    """A complete run."""

    seed: int = Field(0, ge=0, lt=2**63, description="Everything random in a run follows from this number.")
    data: AnyDataConfig = Field(default_factory=lambda: DataConfig(), description="What to learn from.")
    path: PathConfig = Field(default_factory=lambda: LinearPathConfig(), description="How noise is turned into data: the marginals q_t.")
    coupling: CouplingConfig = Field(
        default_factory=lambda: IndependentCouplingConfig(), description="Which noise is joined with which image."
    )
    dynamics: DynamicsConfig = Field(default_factory=lambda: BalancedConfig(), description="How the action moves samples.")
    action: AnyActionConfig = Field(default_factory=lambda: ActionConfig(), description="The network.")
    loss: LossConfig = Field(default_factory=lambda: ConditionalLossConfig(), description="The form of the objective.")
    times: TimesConfig = Field(default_factory=lambda: StratifiedTimesConfig(), description="How the times of a batch are drawn.")
    training: TrainingConfig = Field(default_factory=lambda: TrainingConfig())
    sampling: SamplingConfig = Field(default_factory=lambda: SamplingConfig())
    evaluation: EvaluationConfig = Field(default_factory=lambda: EvaluationConfig())

    @model_validator(mode="after")
    def _levels_fit(self) -> "Config":
        if not isinstance(self.data, DataConfig) or not isinstance(self.action, ActionConfig):
            return self
        size, halvings = self.data.size, len(self.action.multipliers) - 1
        if size % 2**halvings:
            raise ValueError(f"data.size={size} cannot be halved {halvings} times, once for each of action.multipliers")
        resolutions = [size // 2**level for level in range(halvings + 1)]
        for resolution in self.action.attention:
            if resolution not in resolutions:
                raise ValueError(f"action.attention={resolution} is not a resolution of the network: {resolutions}")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> "Config":
        for problem in mismatches(self):
            raise ValueError(problem)
        return self

    @property
    def images(self) -> DataConfig:
        """The section `data` of a run on images.

        Raises:
            UserError: if the run is on points.
        """
        if not isinstance(self.data, DataConfig):
            raise UserError(f"this model is of points (data.kind={self.data.kind}), and this is for images: try amgen sample, or scripts/")
        return self.data

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images; otherwise as `images`."""
        return self.images.channels, self.images.size, self.images.size

    @property
    def modality(self) -> str:
        """What is moved: images or points."""
        return "images" if isinstance(self.data, DataConfig) else "points"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what is moved: (C, H, W) of images, (D,) of points."""
        return self.image_shape if isinstance(self.data, DataConfig) else (self.data.dimension,)

    def to_yaml(self) -> str:
        """Return the resolved options as YAML, sections in the order of this file."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, default_flow_style=None)

    def differences(self, other: "Config") -> dict[str, tuple[Any, Any]]:
        """Map each key that differs and alters what is learned to its values here and in `other`."""
        mine, theirs = flatten(self), flatten(other)
        keys = [*mine, *(key for key in theirs if key not in mine)]
        changed = {key: (mine.get(key), theirs.get(key)) for key in keys if mine.get(key) != theirs.get(key)}
        # Where the learning rate falls towards the end, moving the end changes every step of the fall.
        bound = {"training.images"} if self.training.decay else set()
        return {key: values for key, values in changed.items() if key in bound or not _may_change(key)}


def flatten(section: Section, prefix: str = "") -> dict[str, Any]:
    """Map dotted keys to values."""
    flat: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Section) else {prefix + name: value}
    return flat


def _may_change(key: str) -> bool:
    extra = fields(key.split("."))[0].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("may_change"))


def fields(keys: Sequence[str]) -> list[FieldInfo]:
    """Return the fields of an option, one for each kind of section that has it."""
    candidates: list[type[BaseModel]] = [Config]
    for key in keys[:-1]:
        candidates = [
            inner for section in candidates if key in section.model_fields for inner in sections(section.model_fields[key]).values()
        ]
    return [section.model_fields[keys[-1]] for section in candidates if keys[-1] in section.model_fields]


def section_kinds(keys: Sequence[str]) -> dict[str, type[BaseModel]]:
    """Return the kinds of the section of that name, none if it is an option."""
    return next((sections(field) for field in fields(keys)), {})
