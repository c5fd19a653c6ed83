"""The sections that say what is learned: path, coupling, dynamics, times, action and loss."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Tag, field_validator, model_validator

from amgen.config.base import LARGEST_IMAGE, Fraction, Positive, Rate, Section, by
from amgen.core.errors import UserError


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
    by("kind", "linear"),
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
    by("kind", "independent"),
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
    by("kind", "balanced"),
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
    by("kind", "stratified"),
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


AnyActionConfig = Annotated[Annotated[ActionConfig, Tag("unet")] | Annotated[MLPConfig, Tag("mlp")], by("kind", "unet")]

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
    by("form", "conditional"),
]
