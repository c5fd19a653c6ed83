"""Every option of a run: typed, strict, each with its default, unit and one line of help.

A run is described by one `Config`, read from a preset or a YAML file and changed with `--set section.key=value`. Unknown keys,
wrong types and impossible combinations are refused here, before anything is built. No torch is imported by this module.
"""

import copy
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.config import JsonDict

from amgen.errors import UserError, nearest, unknown

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]

MAY_CHANGE: JsonDict = {"may_change": True}
"""Marks the options that do not alter what is learned: a run may be resumed with another value of these."""


class Section(BaseModel):
    """A group of options. Strict: no unknown keys, no coercion of strings to numbers, no NaN, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


SectionType = TypeVar("SectionType", bound=Section)


class DataConfig(Section):
    """Where the images come from and the form they are brought into."""

    path: str = Field(
        "digits",
        min_length=1,
        description="A folder or .zip of images, or a data set's name: digits, mnist, fashion-mnist, cifar10.",
        json_schema_extra=MAY_CHANGE,
    )
    size: Positive = Field(8, description="Height and width of the images, pixels.")
    channels: Literal[1, 3] = Field(1, description="1 for gray, 3 for RGB.")
    resize: Literal["forbid", "crop", "stretch"] = Field(
        "forbid",
        description="Images of another size: refuse them, crop their centre square and resize it, or stretch them.",
    )
    convert: bool = Field(False, description="Turn gray images into RGB and back where `channels` asks for it.")
    background: int = Field(255, ge=0, le=255, description="Gray level, 0 to 255, behind transparent pixels.")
    flip: bool = Field(False, description="Mirror each image left to right with probability 1/2.")
    root: str = Field(
        "~/.cache/amgen/data",
        description="Folder where named data sets are kept (each as torchvision lays it out).",
        json_schema_extra=MAY_CHANGE,
    )
    download: bool = Field(False, description="Fetch a named data set that is missing.", json_schema_extra=MAY_CHANGE)
    memory_mb: int = Field(
        1024,
        ge=0,
        description="Data sets of at most this size, MB as uint8, are decoded once and kept in memory.",
        json_schema_extra=MAY_CHANGE,
    )
    workers: int = Field(0, ge=0, description="Reading processes for each training process.", json_schema_extra=MAY_CHANGE)


class PathConfig(Section):
    """How noise is turned into data: the marginals q_t."""

    kind: Literal["linear"] = Field("linear", description="x_t = (1 - t) x_0 + t x_1.")


class CouplingConfig(Section):
    """Which noise is joined with which image."""

    kind: Literal["independent", "ot"] = Field(
        "independent", description="independent, or ot: exact optimal transport among the members of a group."
    )
    group: Positive = Field(64, description="Consecutive images of the training stream that are coupled among themselves (ot).")


class ActionConfig(Section):
    """The network s(t, x): a U-Net body and a scalar head."""

    head: Literal["dot", "square", "pooled"] = Field("dot", description="dot: <x, f>; square: 1/2 |x - f|^2; pooled: w . mean(features).")
    width: Positive = Field(32, description="Channels of the first level.")
    multipliers: Annotated[list[Positive], Field(min_length=1)] = Field(
        [1, 2], description="Channels of each level, in units of `width`; every level halves the resolution."
    )
    blocks: Positive = Field(2, description="Residual blocks at each level.")
    attention: list[Positive] = Field([], description="Resolutions, pixels, with self-attention after each block.")
    attention_heads: Positive = Field(1, description="Heads of each attention layer.")
    dropout: Fraction = Field(0.0, description="Dropout rate inside the residual blocks.")
    time_frequency: float = Field(100.0, gt=0, description="Highest angular frequency of the embedding of t, radians per unit of t.")
    classes: int = Field(0, ge=0, description="Number of classes that condition the network; 0 for none.")

    @model_validator(mode="after")
    def _divisible(self) -> "ActionConfig":
        for multiplier in self.multipliers:
            if (self.width * multiplier) % self.attention_heads:
                raise ValueError(f"attention_heads={self.attention_heads} does not divide {self.width * multiplier} channels")
        return self


class LossConfig(Section):
    """The action-matching objective."""

    form: Literal["conditional", "marginal"] = Field(
        "conditional",
        description="conditional: regression on the path's velocity; marginal: the paper's loss, boundary terms and all.",
    )
    weight: Literal["constant", "1-t", "(1-t)^2"] = Field("constant", description="w(t), the weight of time t.")


class TrainingConfig(Section):
    """How long, how fast and how safely to train. Progress is counted in images seen."""

    images: Positive = Field(200_000, description="Images to train on, rounded up to whole batches.", json_schema_extra=MAY_CHANGE)
    batch_size: Positive = Field(64, description="Images for each step, all processes together.")
    micro_batch: Positive | None = Field(
        None,
        description="Most images a process holds in one pass; a larger share is accumulated. Default: all of it.",
        json_schema_extra=MAY_CHANGE,
    )
    optimizer: Literal["adam", "adamw"] = Field("adam", description="Adam, or Adam with decoupled weight decay.")
    learning_rate: float = Field(1e-3, gt=0, description="Step size after the warm-up.")
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.999), description="Adam's decay rates.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay (adamw alone).")
    warmup_images: int = Field(0, ge=0, description="Images over which the learning rate rises linearly from 0.")
    decay: float = Field(0.0, ge=0, le=1, description="Last share of the run, over which the learning rate falls linearly to 0.")
    clip: float | None = Field(1.0, gt=0, description="Largest global norm of the gradient; null for no clipping.")
    ema: Annotated[list[Fraction], Field(min_length=1)] = Field(
        [0.999], description="Decay rates, per step, of the averaged weights; sampling uses the first."
    )
    precision: Literal["fp32", "tf32", "bf16"] = Field("fp32", description="Arithmetic of the network.")
    compile: bool = Field(False, description="Compile the whole loss with torch.compile.", json_schema_extra=MAY_CHANGE)
    device: Literal["auto", "cpu"] = Field("auto", description="auto: a GPU where there is one.", json_schema_extra=MAY_CHANGE)
    log_every: Positive = Field(6_400, description="Images between lines of metrics.jsonl.", json_schema_extra=MAY_CHANGE)
    sample_every: int = Field(50_000, ge=0, description="Images between sample grids; 0 for none.", json_schema_extra=MAY_CHANGE)
    checkpoint_every: Positive = Field(50_000, description="Images between checkpoints.", json_schema_extra=MAY_CHANGE)
    keep_last: Positive = Field(2, description="Newest checkpoints to keep.", json_schema_extra=MAY_CHANGE)
    keep_every: int = Field(
        0,
        ge=0,
        description="Also keep checkpoints at multiples of this many images; 0 for none.",
        json_schema_extra=MAY_CHANGE,
    )

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingConfig":
        if self.micro_batch is not None and self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size={self.batch_size} is not a multiple of micro_batch={self.micro_batch}")
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError("weight_decay needs optimizer=adamw")
        if len(set(self.ema)) != len(self.ema):
            raise ValueError(f"ema={self.ema} names a rate twice")
        return self


class SamplingConfig(Section):
    """How sample grids are drawn while training, and the defaults of `amgen sample` and `amgen eval-fid`."""

    solver: str = Field("heun", description="ODE solver.", json_schema_extra=MAY_CHANGE)
    steps: Positive = Field(20, description="Steps from noise to data (fixed-step solvers).", json_schema_extra=MAY_CHANGE)
    tolerance: float = Field(1e-4, gt=0, description="Relative and absolute tolerance (adaptive solvers).", json_schema_extra=MAY_CHANGE)
    batch_size: Positive = Field(100, description="Images drawn together by each process.", json_schema_extra=MAY_CHANGE)
    grid: Positive = Field(64, description="Images in a sample grid.", json_schema_extra=MAY_CHANGE)

    @field_validator("solver")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SOLVERS:
            raise ValueError(str(unknown("solver", name, SOLVERS)))
        return name


SOLVERS = ("dopri5", "euler", "heun", "midpoint", "rk4")
"""Names of the ODE solvers, here so that they are checked and listed before torch is loaded."""


class Config(Section):
    """A complete run."""

    seed: int = Field(0, ge=0, lt=2**63, description="Everything random in a run follows from this number.")
    data: DataConfig = Field(default_factory=lambda: DataConfig())
    path: PathConfig = Field(default_factory=lambda: PathConfig())
    coupling: CouplingConfig = Field(default_factory=lambda: CouplingConfig())
    action: ActionConfig = Field(default_factory=lambda: ActionConfig())
    loss: LossConfig = Field(default_factory=lambda: LossConfig())
    training: TrainingConfig = Field(default_factory=lambda: TrainingConfig())
    sampling: SamplingConfig = Field(default_factory=lambda: SamplingConfig())

    @model_validator(mode="after")
    def _levels_fit(self) -> "Config":
        size, halvings = self.data.size, len(self.action.multipliers) - 1
        if size % 2**halvings:
            raise ValueError(f"data.size={size} cannot be halved {halvings} times, once for each of action.multipliers")
        resolutions = [size // 2**level for level in range(halvings + 1)]
        for resolution in self.action.attention:
            if resolution not in resolutions:
                raise ValueError(f"action.attention={resolution} is not a resolution of the network: {resolutions}")
        return self

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return self.data.channels, self.data.size, self.data.size

    def to_yaml(self) -> str:
        """Return the resolved options as YAML, sections in the order of this file."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, default_flow_style=None)

    def differences(self, other: "Config") -> dict[str, tuple[Any, Any]]:
        """Map each key that differs and alters what is learned to its values here and in `other`."""
        mine, theirs = _flatten(self), _flatten(other)
        changed = {key: (mine[key], theirs[key]) for key in mine if mine[key] != theirs[key]}
        # Where the learning rate falls towards the end, moving the end changes every step of the fall.
        bound = {"training.images"} if self.training.decay else set()
        return {key: values for key, values in changed.items() if key in bound or not _may_change(key)}


def parse(options: Mapping[str, Any], source: str) -> Config:
    """Check nested `options` and return the Config; `source` names them in errors.

    Raises:
        UserError: for the first unknown key, wrong type or impossible value.
    """
    try:
        # By way of JSON, where strict mode lets lists become tuples and still refuses "1" for 1.
        return Config.model_validate_json(json.dumps(options))
    except ValidationError as error:
        raise UserError(f"{source}: {_first_problem(error)}") from None
    except TypeError as error:
        raise UserError(f"{source}: a value is of a type that options do not have: {error}") from None


def change(section: SectionType, changes: Mapping[str, Any]) -> SectionType:
    """Return a section with some options changed, all checked again; a change to None keeps what is there.

    Raises:
        UserError: for an impossible value.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        return type(section).model_validate_json(json.dumps({**section.model_dump(mode="json"), **given}))
    except ValidationError as error:
        raise UserError(_first_problem(error)) from None


def load(source: str, overrides: Sequence[str] = ()) -> Config:
    """Read a preset by name or a YAML file by path, apply `a.b=c` overrides, and return the resolved Config."""
    return parse(apply_overrides(read_yaml(source), overrides), source)


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("amgen.configs")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_yaml(source: str) -> dict[str, Any]:
    """Return the nested options of a preset or of a YAML file."""
    if source in preset_names():
        text = (resources.files("amgen.configs") / f"{source}.yaml").read_text(encoding="utf-8")
    elif source.endswith((".yaml", ".yml")):
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the configuration {source}: {error}") from None
    else:
        raise UserError(f"{unknown('preset', source, preset_names())}, or give the path of a .yaml file")
    try:
        options = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from None
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise UserError(f"{source} must hold sections such as `data:`, not a {type(options).__name__}")
    return options


def apply_overrides(options: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return `options` with each `section.key=value` set; values are read as YAML."""
    result = copy.deepcopy(options)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(f"--set {override!r}: expected section.key=value, such as training.images=2000")
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError as error:
            raise UserError(f"--set {override!r}: the value is not valid YAML: {' '.join(str(error).split())}") from None
        node = result
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise UserError(f"--set {override!r}: {parent!r} is an option, not a section")
        node[leaf] = value
    return result


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number, as YAML 1.2 has it, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _flatten(section: Section, prefix: str = "") -> dict[str, Any]:
    """Map dotted keys to values."""
    flat: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, Section) else {prefix + name: value}
    return flat


def _may_change(key: str) -> bool:
    *parents, leaf = key.split(".")
    extra = _section(parents).model_fields[leaf].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("may_change"))


def _section(names: Sequence[str]) -> type[Section]:
    """Follow section names from Config; stop at the last that is a section."""
    section: type[Section] = Config
    for name in names:
        field = section.model_fields.get(name)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            break
        section = field.annotation
    return section


def _first_problem(error: ValidationError) -> str:
    """Word pydantic's first complaint as `section.key=value: what was expected`."""
    problem = error.errors(include_url=False)[0]
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        section = _section(location[:-1])
        options = ", ".join(section.model_fields)
        return f"unknown option {key!r}{nearest(location[-1], section.model_fields)}: options here are {options}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return message
    return f"{key}={problem['input']!r}: {message[0].lower()}{message[1:]}"
