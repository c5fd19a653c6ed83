"""Every option of a run: typed, strict, each with its default, unit and one line of help.

A run is described by one `Config`, read from a preset or a YAML file and changed with `--set section.key=value`. Unknown keys,
wrong types and impossible combinations are refused here, before anything is built. No torch is imported by this module.
"""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from amgen import yaml_text
from amgen.errors import UserError, short, unknown
from amgen.wording import KINDS, check_sections, first_problem, section_expected, sections

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(gt=0, le=10**15)]  # beyond any use, and within what a float counts exactly
Share = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(ge=0, le=1e12)]
"""How fast something is forgotten: below 1 what is left of it after a step, at 1 and above its half-life in images."""

LARGEST_IMAGE = 16_384
"""Most pixels of a side. This and the other upper bounds are beyond what any machine computes: they tell slips from options."""

MAY_CHANGE: JsonDict = {"may_change": True}
"""Marks the options that do not alter what is learned: a run may be resumed with another value of these."""
NOT_PREPARATION: JsonDict = {"not_preparation": True}
"""Marks the options of images that neither what an image looks like depends on nor which ones are taken; see `DataConfig.preparation`."""


class Section(BaseModel):
    """A group of options. Strict: no unknown keys, no coercion of strings to numbers, no NaN, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


SectionType = TypeVar("SectionType", bound=Section)


def _by(key: str, default: str) -> Discriminator:
    """Choose among sections by the value of `key`, which need not be given."""
    return Discriminator(lambda value: value.get(key, default) if isinstance(value, dict) else getattr(value, key, None))


class MassesConfig(Section):
    """Masses of the images that change in time, class by class (unbalanced dynamics)."""

    start: Annotated[list[Share], Field(min_length=1)] | None = Field(
        None, description="Share of each class at t = 0, in any unit; null for the shares in the data."
    )
    end: Annotated[list[Share], Field(min_length=1)] = Field(description="Share of each class at t = 1, in any unit.")
    interpolation: Literal["linear", "geometric"] = Field(
        "linear", description="linear: m_t = (1 - t) m_0 + t m_1, total mass kept; geometric: m_0^(1-t) m_1^t."
    )


class DataConfig(Section):
    """Where the images come from and the form they are brought into."""

    kind: Literal["images"] = Field("images", description="Images; noise becomes data.")
    path: str = Field(
        "digits",
        min_length=1,
        description="A folder or .zip of images, or a data set's name: digits, mnist, fashion-mnist, cifar10.",
        json_schema_extra={**MAY_CHANGE, **NOT_PREPARATION},
    )
    size: Positive = Field(8, le=LARGEST_IMAGE, description="Height and width of the images, pixels.")
    channels: Literal[1, 3] = Field(1, description="1 for gray, 3 for RGB.")
    resize: Literal["forbid", "crop", "stretch"] = Field(
        "forbid",
        description="Images of another size: refuse them, crop their centre square and resize it, or stretch them.",
    )
    convert: bool = Field(False, description="Convert images of another colour space (gray, RGB, CMYK...) to what `channels` asks for.")
    background: int = Field(255, ge=0, le=255, description="Gray level, 0 to 255, behind transparent pixels.")
    flip: bool = Field(False, description="Mirror each image left to right with probability 1/2.", json_schema_extra=NOT_PREPARATION)
    root: str = Field(
        "~/.cache/amgen/data",
        description="Folder where named data sets are kept (each as torchvision lays it out).",
        json_schema_extra={**MAY_CHANGE, **NOT_PREPARATION},
    )
    download: bool = Field(
        False, description="Fetch a named data set that is missing.", json_schema_extra={**MAY_CHANGE, **NOT_PREPARATION}
    )
    memory_mb: int = Field(
        1024,
        ge=0,
        le=2**30,
        description="Data sets of at most this size, MB as uint8, are decoded once and kept in memory.",
        json_schema_extra={**MAY_CHANGE, **NOT_PREPARATION},
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="A file that is no readable image: stop, or take the next readable one in its place, and count it."
    )
    workers: int = Field(
        0, ge=0, le=256, description="Reading processes for each training process.", json_schema_extra={**MAY_CHANGE, **NOT_PREPARATION}
    )
    masses: MassesConfig | None = Field(
        None, description="Masses of the classes that change in time; null for equal ones.", json_schema_extra=NOT_PREPARATION
    )
    classes: list[str] | None = Field(
        None,
        description="Names of the classes, in the order of their numbers; null for those of the data. Recorded when training starts.",
        # A name does not alter what is learned, and another order of the images makes them other data.
        json_schema_extra={**MAY_CHANGE, **NOT_PREPARATION},
    )

    def preparation(self) -> dict[str, Any]:
        """Return the options that decide what images are made of given files: all but those declared to be no part of it."""
        extras = {name: field.json_schema_extra for name, field in type(self).model_fields.items()}
        without = {name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("not_preparation")}
        return self.model_dump(mode="json", exclude=without)


class PopulationConfig(Section):
    """What populations of points that are seen at several times have in common. An item of training is one point of each time."""

    masses: ClassVar[None] = None
    workers: ClassVar[int] = 0
    on_error: ClassVar[str] = "stop"

    whiten: Literal["none", "common", "columns", "full"] = Field(
        "common",
        description="Centre the points and divide them by one deviation (common) or each column by its own, or decorrelate them (full).",
    )
    times: Annotated[list[float], Field(min_length=2)] | None = Field(
        None, description="Times to train on, in the table's unit; null for all but the one held out. Recorded when training starts."
    )
    origin: list[float] | None = Field(None, description="Centre of the whitened coordinates. Recorded when training starts.")
    axes: list[list[float]] | None = Field(None, description="Matrix A of the whitening, x = origin + A z. Recorded when training starts.")

    @model_validator(mode="after")
    def _increasing(self) -> "PopulationConfig":
        if self.times is not None and any(first >= second for first, second in pairwise(self.times)):
            raise ValueError(f"data.times={short(self.times)}: expected increasing times")
        return self


class SnapshotsConfig(PopulationConfig):
    """Points of a population at several times, from a table."""

    kind: Literal["snapshots"] = Field("snapshots", description="A table of points at several times.")
    path: str = Field(
        min_length=1,
        description="A .csv (or .tsv, .txt) with a header, or an .npz with `times` and `points` or with `sample_labels` and `pcs`.",
        json_schema_extra=MAY_CHANGE,
    )
    dimension: Positive = Field(le=1_000_000, description="Columns of features to use, the first ones.")
    time_column: str = Field("time", description="Column of a .csv that holds the times.")
    mass_column: str | None = Field(None, description="Column of a .csv, or array of an .npz, that holds the mass of each row.")
    hold_out: float | None = Field(None, description="A time between the first and the last to leave out, for evaluation.")
    paired: bool = Field(False, description="Row i of every time is the same particle.")
    counts: bool = Field(False, description="The mass of a time is its number of rows (a population that grows and shrinks).")
    period: float | None = Field(None, gt=0, description="Period of every column, for points on a torus; null for none.")

    @property
    def weighted(self) -> bool:
        """Whether rows have masses of their own."""
        return self.counts or self.mass_column is not None

    @model_validator(mode="after")
    def _options_fit(self) -> "SnapshotsConfig":
        if self.counts and self.mass_column is not None:
            raise ValueError("data.counts and data.mass_column each say what the masses are: leave one out")
        if self.period is not None and self.whiten != "none":
            raise ValueError(f"data.whiten={self.whiten} would change the period of the columns: set data.whiten=none")
        return self


class SimulatedConfig(PopulationConfig):
    """Points of a system whose motion is known, simulated when training starts."""

    kind: Literal["simulated"] = Field("simulated", description="A simulated population.")
    paired: ClassVar[bool] = True
    period: ClassVar[None] = None

    system: Literal["hydrogen", "mixture", "ornstein-uhlenbeck"] = Field(
        description="hydrogen: |psi|^2 of an electron in two states at once, 3 dimensions; mixture: three bells whose weights move, 2; "
        "ornstein-uhlenbeck: drift to a centre and diffusion, 2."
    )
    particles: Annotated[int, Field(ge=2, le=100_000_000)] = Field(20_000, description="Particles to simulate.")
    snapshots: Annotated[int, Field(ge=2, le=1_000_000)] = Field(101, description="Equidistant times at which they are seen.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the simulation.")

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return 3 if self.system == "hydrogen" else 2

    @property
    def weighted(self) -> bool:
        """Whether rows have masses of their own."""
        return self.system == "mixture"


AnyDataConfig = Annotated[
    Annotated[DataConfig, Tag("images")] | Annotated[SnapshotsConfig, Tag("snapshots")] | Annotated[SimulatedConfig, Tag("simulated")],
    _by("kind", "images"),
]


class LinearPathConfig(Section):
    """Straight lines from noise to data."""

    kind: Literal["linear"] = Field("linear", description="x_t = (1 - t) x_0 + t x_1.")


class VPPathConfig(Section):
    """The marginals of the variance-preserving diffusion, backwards in time."""

    kind: Literal["vp"] = Field("vp", description="x_t = sigma(1 - t) x_0 + alpha(1 - t) x_1 with alpha^2 + sigma^2 = 1.")
    beta_min: float = Field(0.1, gt=0, description="Rate of the diffusion at the data.")
    beta_max: float = Field(20.0, gt=0, description="Rate of the diffusion at the noise.")


class TrigonometricPathConfig(Section):
    """Quarter circles from noise to data."""

    kind: Literal["trigonometric"] = Field("trigonometric", description="x_t = cos(pi t/2) x_0 + sin(pi t/2) x_1.")


class SuperResolutionPathConfig(Section):
    """Known pixels on a grid; noise becomes data between them."""

    kind: Literal["super-resolution"] = Field("super-resolution", description="Fill in what lies between known pixels.")
    factor: int = Field(2, ge=2, le=LARGEST_IMAGE, description="Every factor-th pixel in height and in width is known.")


MAX_MASK = 4096
"""Pixels in height or width that a mask may have; larger ones are taken for a mistake."""


class InPaintingPathConfig(Section):
    """A region is painted, what surrounds it is known."""

    kind: Literal["in-painting"] = Field("in-painting", description="Paint a region of the image.")
    region: Literal["half", "box", "mask"] = Field("half", description="Top or bottom half, a box anywhere, or a given mask.")
    mask: list[Annotated[str, Field(pattern=r"^[x.]+$")]] | None = Field(
        None, description="Rows of the mask, x painted and . known, or an image file, painted where it is light (region=mask)."
    )

    @field_validator("mask", mode="before")
    @classmethod
    def _read_mask(cls, mask: Any) -> Any:
        """Replace a file's name by its rows, so that the run does not depend on the file."""
        if not isinstance(mask, str):
            return mask
        from amgen.decoding import read_gray

        try:
            gray = read_gray(mask, MAX_MASK)
        except UserError as error:
            raise ValueError(f"path.mask: {error}") from None
        pixels = list(gray.tobytes())
        return ["".join(".x"[pixel > 127] for pixel in pixels[row : row + gray.width]) for row in range(0, len(pixels), gray.width)]

    @model_validator(mode="after")
    def _mask_where_needed(self) -> "InPaintingPathConfig":
        if (self.region == "mask") != (self.mask is not None):
            raise ValueError("path.region=mask and path.mask go together: give both or neither")
        return self


class ColourisationPathConfig(Section):
    """From a gray image to its colours."""

    kind: Literal["colourisation"] = Field("colourisation", description="x_t = (1 - t) (gray + noise eps) + t x_1.")
    noise: float = Field(0.1, gt=0, description="Standard deviation of the noise on the gray image at t = 0.")


class HeatPathConfig(Section):
    """From a blurred image to a sharp one."""

    kind: Literal["heat"] = Field("heat", description="x_t = x_1 blurred by blur (1 - t) pixels + noise (1 - t) eps.")
    blur: float = Field(4.0, gt=0, le=10_000, description="Standard deviation of the Gaussian blur at t = 0, in pixels.")
    noise: float = Field(0.1, gt=0, description="Standard deviation of the noise on the blurred image at t = 0.")


class TorusPathConfig(Section):
    """Pixels on circles: from uniform values to data."""

    kind: Literal["torus"] = Field("torus", description="x_t = x_1 + 2 (1 - t) e modulo 4, e uniform on [-1, 1].")


class SnapshotsPathConfig(Section):
    """Between the snapshots of a population."""

    kind: Literal["snapshots"] = Field("snapshots", description="Straight lines between points of neighbouring times.")
    noise: float = Field(
        0.0, ge=0, description="Standard deviation of a Gaussian around every point, in whitened units; it smooths the marginals."
    )


PathConfig = Annotated[
    Annotated[LinearPathConfig, Tag("linear")]
    | Annotated[VPPathConfig, Tag("vp")]
    | Annotated[TrigonometricPathConfig, Tag("trigonometric")]
    | Annotated[SuperResolutionPathConfig, Tag("super-resolution")]
    | Annotated[InPaintingPathConfig, Tag("in-painting")]
    | Annotated[ColourisationPathConfig, Tag("colourisation")]
    | Annotated[HeatPathConfig, Tag("heat")]
    | Annotated[TorusPathConfig, Tag("torus")]
    | Annotated[SnapshotsPathConfig, Tag("snapshots")],
    _by("kind", "linear"),
]


class IndependentCouplingConfig(Section):
    """Noise and images are joined as they are drawn."""

    kind: Literal["independent"] = Field("independent", description="Noise and images are independent.")


class OptimalTransportCouplingConfig(Section):
    """Noise and images are joined by optimal transport."""

    kind: Literal["ot"] = Field("ot", description="Exact optimal transport among the members of a group.")
    # The exact assignment of n to n takes n^2 numbers and some n^3 operations: 2 GB and minutes at this bound.
    group: Annotated[int, Field(gt=0, le=16_384)] = Field(
        64, description="Consecutive images of the training stream that are coupled among themselves, at most 16,384."
    )


CouplingConfig = Annotated[
    Annotated[IndependentCouplingConfig, Tag("independent")] | Annotated[OptimalTransportCouplingConfig, Tag("ot")],
    _by("kind", "independent"),
]


class BalancedConfig(Section):
    """dx/dt = grad s."""

    kind: Literal["balanced"] = Field("balanced", description="Action Matching: samples flow along grad s.")


class EntropicConfig(Section):
    """dx = grad s dt + sigma(t) dW."""

    kind: Literal["entropic"] = Field("entropic", description="Entropic Action Matching: samples drift along grad s and diffuse.")
    sigma: float = Field(1.0, gt=0, description="Scale of the noise.")
    schedule: Literal["constant", "1-t", "sqrt(a)"] = Field(
        "sqrt(a)", description="sigma(t): sigma, sigma (1 - t), or sigma sqrt(a_t) with a_t the noise scale of the path."
    )


class UnbalancedConfig(Section):
    """dx/dt = grad s, d(log weight)/dt = rate s."""

    kind: Literal["unbalanced"] = Field("unbalanced", description="Unbalanced Action Matching: mass also grows and shrinks.")
    rate: float = Field(0.01, gt=0, description="lambda: growth for each unit of s. Small: growing is dear and moving is cheap.")


class ConvexConfig(Section):
    """dx/dt = grad c*(grad s)."""

    kind: Literal["convex"] = Field("convex", description="Action Matching for the transport cost |v|^p / p.")
    power: float = Field(2.0, gt=1, description="p; 2 is Action Matching itself.")


DynamicsConfig = Annotated[
    Annotated[BalancedConfig, Tag("balanced")]
    | Annotated[EntropicConfig, Tag("entropic")]
    | Annotated[UnbalancedConfig, Tag("unbalanced")]
    | Annotated[ConvexConfig, Tag("convex")],
    _by("kind", "balanced"),
]


class UniformTimesConfig(Section):
    """Times drawn one by one."""

    kind: Literal["uniform"] = Field("uniform", description="Each time is uniform on [0, 1), independently.")


class StratifiedTimesConfig(Section):
    """Times that cover the interval evenly."""

    kind: Literal["stratified"] = Field("stratified", description="One time from each of batch_size equal parts of [0, 1).")


class AdaptiveTimesConfig(Section):
    """Times drawn where the loss varies most."""

    kind: Literal["adaptive"] = Field("adaptive", description="Density in proportion to the running deviation of the loss; stratified.")
    bins: Annotated[int, Field(gt=0, le=65_536)] = Field(32, description="Equal bins of [0, 1) with one density each, at most 65,536.")
    memory: Rate = Field(
        4_410.0,
        description="Half-life, images, of what is remembered of the loss in each bin; below 1, its decay per step of any batch_size.",
    )
    floor: float = Field(0.01, gt=0, le=1, description="Share of the times that stays uniform.")


TimesConfig = Annotated[
    Annotated[UniformTimesConfig, Tag("uniform")]
    | Annotated[StratifiedTimesConfig, Tag("stratified")]
    | Annotated[AdaptiveTimesConfig, Tag("adaptive")],
    _by("kind", "stratified"),
]


class ActionConfig(Section):
    """The network s(t, x): a U-Net body and a scalar head."""

    kind: Literal["unet"] = Field("unet", description="A U-Net, for images.")
    head: Literal["dot", "square", "pooled"] = Field("dot", description="dot: <x, f>; square: 1/2 |x - f|^2; pooled: w . mean(features).")
    width: Positive = Field(32, le=65_536, description="Channels of the first level.")
    multipliers: Annotated[list[Annotated[int, Field(gt=0, le=1024)]], Field(min_length=1, max_length=14)] = Field(
        [1, 2], description="Channels of each level, in units of `width`; every level halves the resolution."
    )
    blocks: Positive = Field(2, le=1000, description="Residual blocks at each level.")
    attention: list[Positive] = Field([], max_length=14, description="Resolutions, pixels, with self-attention after each block.")
    attention_heads: Positive = Field(1, le=65_536, description="Heads of each attention layer.")
    dropout: Fraction = Field(0.0, description="Dropout rate inside the residual blocks.")
    time_frequency: float = Field(100.0, gt=0, description="Highest angular frequency of the embedding of t, radians per unit of t.")
    classes: int = Field(0, ge=0, le=10_000_000, description="Number of classes that condition the network; 0 for none.")
    label_dropout: Fraction = Field(0.0, description="Share of samples trained without their class, for classifier-free guidance.")

    @model_validator(mode="after")
    def _divisible(self) -> "ActionConfig":
        if self.label_dropout and not self.classes:
            raise ValueError("action.label_dropout needs classes: set action.classes")
        for multiplier in self.multipliers:
            if (self.width * multiplier) % self.attention_heads:
                raise ValueError(f"attention_heads={self.attention_heads} does not divide {self.width * multiplier} channels")
        return self


class MLPConfig(Section):
    """The network s(t, x) of points: an MLP body and a scalar head."""

    classes: ClassVar[int] = 0
    label_dropout: ClassVar[float] = 0.0
    dropout: ClassVar[float] = 0.0

    kind: Literal["mlp"] = Field("mlp", description="A multilayer perceptron, for points.")
    head: Literal["dot", "square", "linear"] = Field("dot", description="dot: <x, f>; square: 1/2 |x - f|^2; linear: w . features.")
    width: Positive = Field(256, le=1_000_000, description="Units of each hidden layer.")
    depth: Positive = Field(4, le=1000, description="Hidden layers.")
    gain: float = Field(1.0, gt=0, description="Factor on x as the network sees it; a large one learns fine structure sooner.")
    time_features: Annotated[int, Field(ge=2, le=1_000_000)] = Field(32, description="Cosines and sines of t, together.")
    time_frequency: float = Field(10.0, gt=0, description="Highest angular frequency of the embedding of t, radians per unit of t.")


AnyActionConfig = Annotated[Annotated[ActionConfig, Tag("unet")] | Annotated[MLPConfig, Tag("mlp")], _by("kind", "unet")]


Weight = Literal["constant", "1-t", "(1-t)^2"]


class ConditionalLossConfig(Section):
    """Regression on what is known along each path."""

    form: Literal["conditional"] = Field("conditional", description="Regression on the velocity of the path.")
    weight: Weight = Field("constant", description="w(t), the weight of time t.")


class MarginalLossConfig(Section):
    """The paper's loss, which sees samples of the marginals alone."""

    form: Literal["marginal"] = Field("marginal", description="The paper's loss: boundary terms and the derivative in t.")
    weight: Weight = Field("constant", description="w(t), the weight of time t.")
    boundaries: Literal["paired", "independent"] = Field(
        "paired", description="Samples at t = 0 and t = 1: of the same pairs as the interior ones, or of others."
    )
    probes: int = Field(1, ge=0, le=10_000, description="Rademacher probes for the Laplacian of entropic dynamics; 0 computes it exactly.")


LossConfig = Annotated[
    Annotated[ConditionalLossConfig, Tag("conditional")] | Annotated[MarginalLossConfig, Tag("marginal")],
    _by("form", "conditional"),
]


class TrainingConfig(Section):
    """How long, how fast and how safely to train. Progress is counted in images seen."""

    images: Positive = Field(200_000, description="Images to train on, rounded up to whole batches.", json_schema_extra=MAY_CHANGE)
    # Some ten times the largest batches that images are trained with; what is far above is a slip, and would look like a hang.
    batch_size: Annotated[int, Field(gt=0, le=1_000_000)] = Field(
        64, description="Images for each step, all processes together, at most 1,000,000."
    )
    micro_batch: Positive | None = Field(
        None,
        description="Most images a process holds in one pass; a larger share is accumulated. Default: all of it.",
        json_schema_extra=MAY_CHANGE,
    )
    optimizer: Literal["adam", "adamw"] = Field("adam", description="Adam, or Adam with decoupled weight decay.")
    learning_rate: float = Field(1e-3, gt=0, description="Step size after the warm-up.")
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.999), description="Adam's decay rates.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay (adamw alone).")
    warmup_images: int = Field(0, ge=0, le=10**15, description="Images over which the learning rate rises linearly from 0.")
    decay: float = Field(0.0, ge=0, le=1, description="Last share of the run, over which the learning rate falls linearly to 0.")
    clip: float | None = Field(1.0, gt=0, description="Largest global norm of the gradient; null for no clipping.")
    ema: Annotated[list[Rate], Field(min_length=1)] = Field(
        [44_300.0],
        description="Half-lives, images, of the averaged weights; below 1, decays per step of any batch_size. Sampling uses the first.",
    )
    precision: Literal["fp32", "tf32", "bf16", "fp64"] = Field(
        "fp32", description="Arithmetic of the network; fp64 to check that what should not matter does not."
    )
    compile: bool = Field(False, description="Compile the whole loss with torch.compile.", json_schema_extra=MAY_CHANGE)
    device: Literal["auto", "cpu"] = Field("auto", description="auto: a GPU where there is one.", json_schema_extra=MAY_CHANGE)
    log_every: Positive = Field(6_400, description="Images between lines of metrics.jsonl.", json_schema_extra=MAY_CHANGE)
    sample_every: int = Field(50_000, ge=0, le=10**15, description="Images between sample grids; 0 for none.", json_schema_extra=MAY_CHANGE)
    checkpoint_every: Positive = Field(50_000, description="Images between checkpoints.", json_schema_extra=MAY_CHANGE)
    checkpoint_activations: bool = Field(
        False, description="Compute activations anew in the backward passes instead of keeping them.", json_schema_extra=MAY_CHANGE
    )
    trackers: list[Literal["tensorboard", "wandb"]] = Field(
        [], description="Also report to these; logs lie in the run's folder `tracking`.", json_schema_extra=MAY_CHANGE
    )
    timeout: Annotated[int, Field(gt=0, le=2_592_000)] = Field(  # longer than 30 days no job runs, and clocks count in 64 bits
        600,
        description="Seconds that a process waits for the others before it gives them up for lost, at most 30 days.",
        json_schema_extra=MAY_CHANGE,
    )
    keep_last: Positive = Field(2, description="Newest checkpoints to keep.", json_schema_extra=MAY_CHANGE)
    keep_every: int = Field(
        0,
        ge=0,
        le=10**15,
        description="Also keep checkpoints at multiples of this many images; 0 for none.",
        json_schema_extra=MAY_CHANGE,
    )

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingConfig":
        if self.micro_batch is not None and self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size={self.batch_size} is not a multiple of micro_batch={self.micro_batch}")
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError("weight_decay needs optimizer=adamw")
        if self.compile and self.checkpoint_activations:
            raise ValueError(
                "checkpoint_activations is for the eager loss, and compile=true divides memory and time by itself: leave one of them out"
            )
        if len(set(self.ema)) != len(self.ema):
            raise ValueError(f"ema={self.ema} names a rate twice")
        return self


class SamplingConfig(Section):
    """How sample grids are drawn while training, and the defaults of `amgen sample` and `amgen eval-fid`."""

    solver: str = Field(
        "heun", description="ODE solver, or SDE solver for entropic dynamics and with a noise level.", json_schema_extra=MAY_CHANGE
    )
    steps: int = Field(
        20, gt=0, le=100_000, description="Steps from noise to data (fixed-step solvers), at most 100,000.", json_schema_extra=MAY_CHANGE
    )
    step_grid: Literal["uniform", "cosine", "polynomial"] = Field(
        "uniform",
        description="Steps: equal, short at both ends, or 1 - (1 - s)^rho.",
        json_schema_extra=MAY_CHANGE,
    )
    rho: float = Field(
        2.0,
        ge=0.01,
        le=100,
        description="Exponent of the polynomial grid, 0.01 to 100; above 1, short steps near the data.",
        json_schema_extra=MAY_CHANGE,
    )
    noise_level: float = Field(
        0.0,
        ge=0,
        description="G of an SDE with the marginals of balanced dynamics, g(t) = G sqrt(a_t); 0 for the ODE.",
        json_schema_extra=MAY_CHANGE,
    )
    tolerance: float = Field(
        1e-4,
        ge=1e-7,  # images are carried in single precision, which resolves no finer: a solver would halve its steps for ever
        description="Relative and absolute tolerance (adaptive solvers), at least 1e-7.",
        json_schema_extra=MAY_CHANGE,
    )
    batch_size: int | Literal["auto"] = Field(
        "auto",
        description="Images drawn together by each process; auto for as many as the memory holds and speed gains from.",
        json_schema_extra=MAY_CHANGE,
    )
    guidance: float = Field(
        1.0,
        ge=0,
        description="Classifier-free guidance: 1 the class as learned, 0 no class, above 1 the class exaggerated.",
        json_schema_extra=MAY_CHANGE,
    )
    grid: Positive = Field(64, le=10_000, description="Images in a sample grid.", json_schema_extra=MAY_CHANGE)

    @field_validator("solver")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SOLVERS:
            raise ValueError(str(unknown("solver", name, SOLVERS)))
        return name

    @field_validator("batch_size", mode="before")
    @classmethod
    def _auto_or_positive(cls, size: Any) -> Any:
        if size != "auto" and not (type(size) is int and size > 0):
            raise ValueError(f"batch_size={short(size)}: expected auto or a positive integer")
        return size


ODE_SOLVERS = ("ab2", "ab3", "adaptive-heun", "bosh3", "dopri5", "dopri8", "euler", "heun", "midpoint", "ralston", "rk4")
ADAPTIVE_SOLVERS = ("adaptive-heun", "bosh3", "dopri5", "dopri8")
"""Those of them that choose their own steps by a tolerance."""
SDE_SOLVERS = ("euler-maruyama", "sra1", "stochastic-heun")
SOLVERS = (*ODE_SOLVERS, *SDE_SOLVERS)
"""Names of the solvers, here so that they are checked and listed before torch is loaded."""


class EvaluationConfig(Section):
    """Scores measured while training. The averaged weights of the first rate are scored; the best ones are kept as checkpoints/best."""

    every: int = Field(
        0, ge=0, le=10**15, description="Images between evaluations, 0 for none; the end of the run counts.", json_schema_extra=MAY_CHANGE
    )
    features: str = Field("inception", description="Features, as for amgen eval-fid.", json_schema_extra=MAY_CHANGE)
    metrics: tuple[Literal["fid", "kid", "is", "prc", "nearest"], ...] = Field(
        ("fid",), min_length=1, description="What to measure; the first one in the order of this list decides which is best.",
        json_schema_extra=MAY_CHANGE,
    )  # fmt: skip
    num: Positive = Field(10_000, le=1_000_000_000, description="Images to generate.", json_schema_extra=MAY_CHANGE)
    kid_subset_size: Positive = Field(1_000, description="Images in each subset that KID is averaged over.", json_schema_extra=MAY_CHANGE)
    data: str | None = Field(
        None, description="Real images or an .npz of their statistics; null for the training images.", json_schema_extra=MAY_CHANGE
    )


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
        for problem in _mismatches(self):
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
    def noun(self) -> str:
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
        mine, theirs = _flatten(self), _flatten(other)
        keys = [*mine, *(key for key in theirs if key not in mine)]
        changed = {key: (mine.get(key), theirs.get(key)) for key in keys if mine.get(key) != theirs.get(key)}
        # Where the learning rate falls towards the end, moving the end changes every step of the fall.
        bound = {"training.images"} if self.training.decay else set()
        return {key: values for key, values in changed.items() if key in bound or not _may_change(key)}


def _mismatches(config: Config) -> Iterator[str]:
    """Yield what is wrong with the combination of sections, each with its reason and what to do instead."""
    path, dynamics, loss, coupling = config.path, config.dynamics, config.loss, config.coupling
    conditional = loss.form == "conditional"
    if config.evaluation.every and config.data.kind != "images":
        yield f"evaluation.every scores images, and data.kind={config.data.kind} are points: leave it at 0"
    if config.evaluation.metrics == ("nearest",):
        yield "evaluation.metrics=nearest does not tell which weights are better: add fid"
    if isinstance(loss, MarginalLossConfig) and loss.probes != 1 and dynamics.kind != "entropic":
        yield f"loss.probes={loss.probes} is for the Laplacian of entropic dynamics, not dynamics.kind={dynamics.kind}: leave it out"
    yield from _solver_mismatches(config)
    if config.sampling.guidance != 1 and not config.action.label_dropout:
        yield (
            f"sampling.guidance={config.sampling.guidance} needs a model that also learned without classes: "
            "train with action.label_dropout=0.1"
        )
    if not isinstance(config.data, DataConfig):
        yield from _population_mismatches(config, config.data)
        return
    if path.kind == "snapshots" or config.action.kind == "mlp":
        yield f"path.kind={path.kind}, action.kind={config.action.kind}: snapshots and mlp are for points: set data.kind=snapshots"
    if isinstance(path, ColourisationPathConfig) and config.data.channels != 3:
        yield "path.kind=colourisation needs colours: set data.channels=3"
    if isinstance(path, SuperResolutionPathConfig) and path.factor > config.data.size:
        yield f"path.factor={path.factor} leaves one pixel of {config.data.size}: choose a smaller factor"
    if isinstance(path, InPaintingPathConfig) and path.mask is not None:
        size = config.data.size
        if len(path.mask) != size or any(len(row) != size for row in path.mask):
            yield f"path.mask has {len(path.mask)} rows of {len(path.mask[0])}: expected {size} rows of data.size={size}"
        if not any("x" in row for row in path.mask):
            yield "path.mask paints nothing: mark the pixels to paint with x (or light ones in the image file)"
    if coupling.kind == "ot":
        if path.kind not in ("linear", "vp", "trigonometric"):
            yield (
                f"coupling.kind=ot with path.kind={path.kind}: what generation is given would tell of the noise, which must stay "
                "independent of it: set coupling.kind=independent"
            )
        if config.data.masses is not None and config.data.masses.start is not None:
            yield (
                "coupling.kind=ot with data.masses.start: noise joined to heavier images would no longer be standard normal: "
                "set coupling.kind=independent, or data.masses.start=null"
            )
    if dynamics.kind == "entropic" and conditional:
        if path.kind == "torus":
            yield (
                "dynamics.kind=entropic in conditional form needs x_t to be Gaussian given its ends, which the torus path is not: "
                "set loss.form=marginal"
            )
        if coupling.kind == "ot":
            yield (
                "dynamics.kind=entropic in conditional form needs noise that is Gaussian given the image, which coupling.kind=ot "
                "undoes: set coupling.kind=independent, or loss.form=marginal"
            )
        if dynamics.schedule == "constant" and loss.weight == "constant":
            yield (
                "dynamics.schedule=constant in conditional form asks for a drift that grows as 1/a_t towards the data, with unbounded "
                "variance: set dynamics.schedule to 1-t or sqrt(a), loss.weight=1-t, or loss.form=marginal"
            )
    if dynamics.kind == "entropic" and dynamics.schedule == "sqrt(a)" and path.kind == "torus":
        yield "dynamics.schedule=sqrt(a) needs the noise scale a_t of a Gaussian path, which the torus has not: set dynamics.schedule=1-t"
    if config.data.masses is not None and dynamics.kind != "unbalanced":
        yield f"data.masses change in time, which dynamics.kind={dynamics.kind} cannot follow: set dynamics.kind=unbalanced"
    if dynamics.kind == "unbalanced" and config.action.classes:
        yield "dynamics.kind=unbalanced moves mass between classes, so the action must not be told the class: set action.classes=0"


def _population_mismatches(config: Config, data: SnapshotsConfig | SimulatedConfig) -> Iterator[str]:
    """Yield what is wrong with the combination of sections for a population of points."""
    path, dynamics, conditional = config.path, config.dynamics, config.loss.form == "conditional"
    if not isinstance(path, SnapshotsPathConfig) or config.action.kind != "mlp":
        yield (
            f"path.kind={path.kind}, action.kind={config.action.kind} are for images: set path.kind=snapshots and action.kind=mlp for "
            f"data.kind={data.kind}"
        )
        return
    if config.coupling.kind == "ot" and data.paired:
        yield "coupling.kind=ot would part rows that belong together (data.paired): set coupling.kind=independent"
    if dynamics.kind == "entropic" and not path.noise:
        if conditional:
            yield "dynamics.kind=entropic in conditional form needs path.noise above 0, for the score: set it, or loss.form=marginal"
        elif dynamics.schedule == "sqrt(a)":
            yield "dynamics.schedule=sqrt(a) needs path.noise above 0: set dynamics.schedule=constant"
    if isinstance(data, SnapshotsConfig) and data.counts and dynamics.kind != "unbalanced":
        yield f"data.counts lets the total mass change, which dynamics.kind={dynamics.kind} cannot follow: set dynamics.kind=unbalanced"
    if data.weighted and dynamics.kind != "unbalanced" and conditional:
        yield (
            f"masses that move are not followed by dynamics.kind={dynamics.kind} in conditional form: set dynamics.kind=unbalanced, or "
            "loss.form=marginal"
        )


def _solver_mismatches(config: Config) -> Iterator[str]:
    """Yield what is wrong with the solver for the dynamics."""
    sampling, dynamics = config.sampling, config.dynamics
    solver, noisy, level = sampling.solver, sampling.solver in SDE_SOLVERS, sampling.noise_level
    if dynamics.kind == "entropic":
        if level:
            yield f"sampling.noise_level={level}: entropic dynamics have their own noise: leave it at 0"
        if not noisy:
            yield f"sampling.solver={solver} solves ODEs, and entropic dynamics is an SDE: choose one of {', '.join(SDE_SOLVERS)}"
        return
    if level and dynamics.kind != "balanced":
        yield f"sampling.noise_level={level} is for balanced dynamics, not dynamics.kind={dynamics.kind}: leave it at 0"
    if level and config.path.kind == "torus":
        yield f"sampling.noise_level={level} needs a path that is Gaussian given the data, which the torus is not: leave it at 0"
    if level and config.path.kind == "snapshots":
        yield f"sampling.noise_level={level} needs a path that starts from noise, which path.kind=snapshots does not: leave it at 0"
    if level and config.coupling.kind == "ot":
        yield (
            f"sampling.noise_level={level} needs noise that is independent of the data, which coupling.kind=ot undoes: leave it at 0, or "
            "train with coupling.kind=independent"
        )
    if noisy and not level:
        yield (
            f"sampling.solver={solver} needs noise: give a sampling.noise_level (--noise-level 1), or choose one of "
            f"{', '.join(ODE_SOLVERS)}"
        )
    if level and not noisy:
        yield f"sampling.noise_level={level} makes an SDE: choose one of the solvers {', '.join(SDE_SOLVERS)}"


def parse(options: Mapping[str, Any], source: str) -> Config:
    """Check nested `options` and return the Config; `source` names them in errors.

    Raises:
        UserError: for the first unknown key, wrong type or impossible value.
    """
    try:
        check_sections(options, Config)
        # By way of JSON, where strict mode lets lists become tuples and still refuses "1" for 1.
        return Config.model_validate_json(json.dumps(options))
    except ValidationError as error:
        raise UserError(f"{source}: {first_problem(error, Config)}") from None
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    except (TypeError, ValueError, RecursionError) as error:
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
        raise UserError(first_problem(error, type(section))) from None


def load(source: str, overrides: Sequence[str] = ()) -> Config:
    """Read a preset by name or a YAML file by path, apply `a.b=c` overrides, and return the resolved Config."""
    return parse(apply_overrides(read_yaml(source), overrides), source)


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("amgen.configs")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_summary(name: str) -> str:
    """Return what a preset is: the comment that its file begins with."""
    first = (resources.files("amgen.configs") / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip()


def read_yaml(source: str) -> dict[str, Any]:
    """Return the nested options of a preset or of a YAML file."""
    if source in preset_names():
        options = yaml_text.read((resources.files("amgen.configs") / f"{source}.yaml").read_text(encoding="utf-8"), source)
    elif source.endswith((".yaml", ".yml")):
        options = yaml_text.read_file(Path(source))
    else:
        raise UserError(f"{unknown('preset', source, preset_names())}, or give the path of a .yaml file")
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise UserError(f"{source} must hold sections such as `data:`, not a {type(options).__name__}")
    return options


def apply_overrides(options: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return `options` with each `section.key=value` set; values are read as YAML.

    Another `kind` or `form` begins its section anew: the options of the old kind do not belong to the new one.
    """
    result = copy.deepcopy(options)
    changes = [_read_override(override) for override in overrides]
    for text, keys, value in sorted(changes, key=lambda change: change[1][-1] not in KINDS):
        node = result
        *parents, leaf = keys
        for depth, parent in enumerate(parents, 1):
            if node.get(parent) is None:
                node[parent] = {}
            inner = node[parent]
            if not isinstance(inner, dict):
                if kinds := _kinds(keys[:depth]):
                    raise section_expected(".".join(keys[:depth]), inner, kinds)
                raise UserError(f"--set {short(text)}: {short(parent)} is an option, not a section")
            node = inner
        if leaf in KINDS and node.get(leaf, value) != value:
            node.clear()
        node[leaf] = value
    return result


def _read_override(override: str) -> tuple[str, list[str], Any]:
    """Take `a.b=value` apart: the text itself, the keys and the value."""
    key, equals, text = override.partition("=")
    keys = key.split(".")
    if not equals or not all(keys) or len(keys) > yaml_text.DEEPEST:
        raise UserError(f"--set {short(override)}: expected section.key=value, such as training.images=2000")
    return override, keys, yaml_text.read(text, f"the value of --set {short(override)}")


def _flatten(section: Section, prefix: str = "") -> dict[str, Any]:
    """Map dotted keys to values."""
    flat: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, Section) else {prefix + name: value}
    return flat


def _may_change(key: str) -> bool:
    extra = _fields(key.split("."))[0].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("may_change"))


def _fields(keys: Sequence[str]) -> list[FieldInfo]:
    """Return the fields of an option, one for each kind of section that has it."""
    candidates: list[type[BaseModel]] = [Config]
    for key in keys[:-1]:
        candidates = [
            inner for section in candidates if key in section.model_fields for inner in sections(section.model_fields[key]).values()
        ]
    return [section.model_fields[keys[-1]] for section in candidates if keys[-1] in section.model_fields]


def _kinds(keys: Sequence[str]) -> dict[str, type[BaseModel]]:
    """Return the kinds of the section of that name, none if it is an option."""
    return next((sections(field) for field in _fields(keys)), {})
