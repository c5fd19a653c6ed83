"""The sections that say what is learned: path, coupling, times, action and loss."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Tag, field_validator, model_validator

from amgen.config.base import LARGEST_IMAGE, Fraction, Positive, Rate, Section, by
from amgen.core.checks import quadrature_problem
from amgen.core.errors import UserError
from amgen.core.names import (
    ADAPTIVE_TIMES_BINS,
    ADAPTIVE_TIMES_FLOOR,
    ADAPTIVE_TIMES_MEMORY,
    ATTENTION_HEADS,
    COLOURISATION_NOISE,
    DROPOUT,
    HEAT_BLUR,
    HEAT_NOISE,
    MLP_GAIN,
    MLP_TIME_FREQUENCY,
    OT_GROUP,
    QUADRATURE_NODES,
    QUADRATURE_RULE,
    REGION,
    SCHEDULE,
    SUPER_RESOLUTION_FACTOR,
    TIME_WEIGHT,
    UNET_TIME_FREQUENCY,
    VP_BETA_MAX,
    VP_BETA_MIN,
    WFR_GROUP,
    QuadratureRule,
    Region,
    ScheduleName,
    TimeWeightName,
)


class LinearPathConfig(Section):
    """Straight lines from noise to data."""

    kind: Literal["linear"] = Field("linear", description="x_t = (1 - t) x_0 + t x_1.")


class VPPathConfig(Section):
    """The marginals of the variance-preserving diffusion, backwards in time."""

    kind: Literal["vp"] = Field("vp", description="x_t = sigma(1 - t) x_0 + alpha(1 - t) x_1 with alpha^2 + sigma^2 = 1.")
    beta_min: float = Field(VP_BETA_MIN, gt=0, description="Rate of the diffusion at the data, t = 1.")
    beta_max: float = Field(VP_BETA_MAX, gt=0, description="Rate of the diffusion at the noise, t = 0.")


class TrigonometricPathConfig(Section):
    """Quarter circles from noise to data."""

    kind: Literal["trigonometric"] = Field("trigonometric", description="x_t = cos(pi t/2) x_0 + sin(pi t/2) x_1.")


Schedule = Annotated[
    ScheduleName,
    Field(description="a(t) and alpha(t): 1 - t and t (linear), cos and sin of pi t/2 (trigonometric), or those of path.kind=vp (vp)."),
]


class SuperResolutionPathConfig(Section):
    """Known pixels on a grid; noise becomes data between them."""

    kind: Literal["super-resolution"] = Field("super-resolution", description="Super-resolution: generate what lies between known pixels.")
    factor: int = Field(
        SUPER_RESOLUTION_FACTOR, ge=2, le=LARGEST_IMAGE, description="Every factor-th pixel in height and in width is known."
    )
    schedule: Schedule = SCHEDULE


MAX_MASK = 4096
"""Largest height or width of a mask, in pixels; a larger one is an error."""


class InPaintingPathConfig(Section):
    """A region is painted; the pixels around it are known."""

    kind: Literal["in-painting"] = Field("in-painting", description="In-painting: generate a region of the image.")
    region: Region = Field(REGION, description="The region: the top or bottom half, a box anywhere, or a given mask.")
    mask: list[Annotated[str, Field(pattern=r"^[x.]+$")]] | None = Field(
        None, description="Mask for region=mask: rows of text, x painted and . known; or an image file, painted where it is light."
    )

    schedule: Schedule = SCHEDULE

    @field_validator("mask", mode="before")
    @classmethod
    def _read_mask(cls, mask: Any) -> Any:
        """Replace a file's name by its rows, so that the run does not depend on the file."""
        if not isinstance(mask, str):
            return mask
        from amgen.core.decoding import read_gray

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

    kind: Literal["colourisation"] = Field("colourisation", description="x_t = gray + a(t) noise eps + alpha(t) (x_1 - gray).")
    noise: float = Field(COLOURISATION_NOISE, gt=0, description="Standard deviation of the noise on the gray image at t = 0.")
    schedule: Schedule = SCHEDULE


class HeatPathConfig(Section):
    """From a blurred image to a sharp one."""

    kind: Literal["heat"] = Field("heat", description="x_t = x_1 blurred by blur (1 - t) pixels + noise (1 - t) eps.")
    blur: float = Field(HEAT_BLUR, gt=0, le=10_000, description="Standard deviation of the Gaussian blur at t = 0, in pixels.")
    noise: float = Field(HEAT_NOISE, gt=0, description="Standard deviation of the noise on the blurred image at t = 0.")


class TorusPathConfig(Section):
    """Pixels on circles: from uniform values to data."""

    kind: Literal["torus"] = Field("torus", description="x_t = x_1 + 2 (1 - t) e modulo 4, e uniform on [-1, 1].")


class SnapshotsPathConfig(Section):
    """Between the snapshots of a population."""

    kind: Literal["snapshots"] = Field("snapshots", description="Straight lines between points of consecutive snapshots.")
    noise: float = Field(
        0.0, ge=0, description="Standard deviation of Gaussian noise on every point, in standardized coordinates; it smooths the marginals."
    )


class WFRPathConfig(Section):
    """Between the snapshots of a population, with growth."""

    kind: Literal["wfr"] = Field("wfr", description="Wasserstein-Fisher-Rao geodesics between points of consecutive snapshots.")
    noise: float = Field(
        0.0, ge=0, description="Standard deviation of Gaussian noise on every point, in standardized coordinates; it smooths the marginals."
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
    | Annotated[SnapshotsPathConfig, Tag("snapshots")]
    | Annotated[WFRPathConfig, Tag("wfr")],
    by("kind", "linear"),
]


class IndependentCouplingConfig(Section):
    """Noise and images are independent."""

    kind: Literal["independent"] = Field("independent", description="Noise and images are independent.")


class OptimalTransportCouplingConfig(Section):
    """Noise and images are paired by optimal transport."""

    kind: Literal["ot"] = Field("ot", description="Exact optimal transport between the noise and the images of each group.")
    # The exact assignment of n to n takes n^2 numbers and some n^3 operations: 2 GB and minutes at this bound.
    group: Annotated[int, Field(gt=0, le=16_384)] = Field(
        OT_GROUP, description="Consecutive images of the training stream that form a group, at most 16,384."
    )


class WFRCouplingConfig(Section):
    """Whole snapshots are paired by unbalanced optimal transport."""

    kind: Literal["wfr"] = Field(
        "wfr",
        description="Unbalanced optimal transport between neighbouring snapshots as a whole; without growth, balanced optimal transport.",
    )
    # A dense matrix of costs: 4 GB in single precision at this bound.
    group: Annotated[int, Field(ge=100, le=32_768)] = Field(
        WFR_GROUP, description="Most points of a time that are solved together, 100 to 32,768; larger snapshots are divided at random."
    )


CouplingConfig = Annotated[
    Annotated[IndependentCouplingConfig, Tag("independent")]
    | Annotated[OptimalTransportCouplingConfig, Tag("ot")]
    | Annotated[WFRCouplingConfig, Tag("wfr")],
    by("kind", "independent"),
]


class UniformTimesConfig(Section):
    """Independent times."""

    kind: Literal["uniform"] = Field("uniform", description="Each time is uniform on [0, 1), independently.")


class StratifiedTimesConfig(Section):
    """Times that cover the interval evenly."""

    kind: Literal["stratified"] = Field("stratified", description="One time from each of batch_size equal parts of [0, 1).")


class QuadratureTimesConfig(Section):
    """The same pair at the nodes of a quadrature rule in t."""

    kind: Literal["quadrature"] = Field(
        "quadrature", description="The nodes of a rule for the integral over t, the same pair at all of them; for the marginal form."
    )
    rule: QuadratureRule = Field(
        QUADRATURE_RULE,
        description="antithetic: two random nodes in each cell, symmetric about its centre; gauss, simpson: fixed nodes.",
    )
    nodes: Annotated[int, Field(ge=1, le=1024)] = Field(
        QUADRATURE_NODES,
        description="Nodes on [0, 1], or between two neighbouring times of a population: even for antithetic, odd for simpson.",
    )

    @model_validator(mode="after")
    def _rule_has_nodes(self) -> "QuadratureTimesConfig":
        if problem := quadrature_problem(self.rule, self.nodes):
            raise ValueError(problem)
        return self


class AdaptiveTimesConfig(Section):
    """More times where the loss has a larger standard deviation."""

    kind: Literal["adaptive"] = Field("adaptive", description="Stratified; the density follows the running deviation of the loss.")
    bins: Annotated[int, Field(gt=0, le=65_536)] = Field(
        ADAPTIVE_TIMES_BINS, description="Equal bins of [0, 1), each with a constant density; at most 65,536."
    )
    memory: Rate = Field(
        ADAPTIVE_TIMES_MEMORY,
        description="Half-life, in images, of the statistics of the loss in each bin; a value below 1 is their decay per step.",
    )
    floor: float = Field(ADAPTIVE_TIMES_FLOOR, gt=0, le=1, description="Fraction of the density that is uniform.")


TimesConfig = Annotated[
    Annotated[UniformTimesConfig, Tag("uniform")]
    | Annotated[StratifiedTimesConfig, Tag("stratified")]
    | Annotated[AdaptiveTimesConfig, Tag("adaptive")]
    | Annotated[QuadratureTimesConfig, Tag("quadrature")],
    by("kind", "stratified"),
]


class ActionConfig(Section):
    """The network s(t, x): a U-Net body and a scalar head."""

    kind: Literal["unet"] = Field("unet", description="A U-Net, for images.")
    head: Literal["dot", "square", "pooled"] = Field("dot", description="dot: <x, f>; square: 1/2 |x - f|^2; pooled: w . mean(features).")
    width: Positive = Field(32, le=65_536, description="Channels of the first level.")
    multipliers: Annotated[list[Annotated[int, Field(gt=0, le=1024)]], Field(min_length=1, max_length=14)] = Field(
        [1, 2], description="Channels of each level, in units of `width`; each level after the first halves the resolution."
    )
    blocks: Positive = Field(2, le=1000, description="Residual blocks at each level.")
    attention: list[Positive] = Field([], max_length=14, description="Resolutions, in pixels, with self-attention after each block.")
    attention_heads: Positive = Field(ATTENTION_HEADS, le=65_536, description="Heads of each attention layer.")
    dropout: Fraction = Field(DROPOUT, description="Dropout rate inside the residual blocks.")
    time_frequency: float = Field(
        UNET_TIME_FREQUENCY, gt=0, description="Highest angular frequency of the embedding of t, in radians per unit of t."
    )
    classes: int = Field(0, ge=0, le=10_000_000, description="Number of classes that condition the network; 0 for none.")
    label_dropout: Fraction = Field(DROPOUT, description="Fraction of samples trained without their class, for classifier-free guidance.")

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
    gain: float = Field(MLP_GAIN, gt=0, description="Factor on x at the network's input; a larger one learns fine structure sooner.")
    time_features: Annotated[int, Field(ge=2, le=1_000_000)] = Field(32, description="Features of t: cosines and sines together.")
    time_frequency: float = Field(
        MLP_TIME_FREQUENCY, gt=0, description="Highest angular frequency of the embedding of t, in radians per unit of t."
    )


AnyActionConfig = Annotated[Annotated[ActionConfig, Tag("unet")] | Annotated[MLPConfig, Tag("mlp")], by("kind", "unet")]


class ConditionalLossConfig(Section):
    """Regression on the velocity, the score and the growth of each path."""

    form: Literal["conditional"] = Field("conditional", description="Regression on the velocity of the path.")
    weight: TimeWeightName = Field(TIME_WEIGHT, description="w(t), the weight of time t.")


class MarginalLossConfig(Section):
    """The paper's loss, which needs samples of the marginals only."""

    form: Literal["marginal"] = Field("marginal", description="The paper's loss: boundary terms and the derivative in t.")
    weight: TimeWeightName = Field(TIME_WEIGHT, description="w(t), the weight of time t.")
    boundaries: Literal["paired", "independent"] = Field(
        "paired", description="Samples at t = 0 and t = 1: from the same pairs as those between, or from other pairs."
    )
    cells: int = Field(
        0,
        ge=0,
        le=4096,
        description="Cells of [0, 1], or between two neighbouring times of a population: a sample has its boundary terms at the ends of "
        "its cell, which lowers the variance. 0: at t = 0 and t = 1 only.",
    )
    probes: int = Field(1, ge=0, le=10_000, description="Rademacher probes for the Laplacian of entropic dynamics; 0 for its exact value.")


LossConfig = Annotated[
    Annotated[ConditionalLossConfig, Tag("conditional")] | Annotated[MarginalLossConfig, Tag("marginal")],
    by("form", "conditional"),
]
