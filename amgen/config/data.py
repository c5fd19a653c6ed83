"""The section `data`: images, snapshots of a population from a table, or a simulated population."""

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Tag, model_validator

from amgen.config.base import LARGEST_IMAGE, MAY_CHANGE, NOT_PREPARATION, Positive, Section, Share, by
from amgen.core.errors import short
from amgen.core.names import MASS_INTERPOLATION, MassInterpolation


class MassesConfig(Section):
    """Masses of the images of each class that change in time (unbalanced dynamics)."""

    start: Annotated[list[Share], Field(min_length=1)] | None = Field(
        None, description="Share of each class at t = 0, in any unit (divided by their sum); null for the shares in the data."
    )
    end: Annotated[list[Share], Field(min_length=1)] = Field(
        description="Share of each class at t = 1, in any unit (divided by their sum)."
    )
    interpolation: MassInterpolation = Field(
        MASS_INTERPOLATION,
        description="linear: m_t = (1 - t) m_0 + t m_1, total mass kept; geometric: m_t = m_0^(1-t) m_1^t.",
    )


class DataConfig(Section):
    """Images: where they come from, and the form that they are brought into."""

    kind: Literal["images"] = Field("images", description="Images, generated from noise.")
    path: str = Field(
        "digits",
        min_length=1,
        description="A folder or .zip of images, or the name of a data set: digits, mnist, fashion-mnist, cifar10.",
        json_schema_extra={**MAY_CHANGE, **NOT_PREPARATION},
    )
    size: Positive = Field(8, le=LARGEST_IMAGE, description="Height and width of the images, pixels.")
    channels: Literal[1, 3] = Field(1, description="1 for gray, 3 for RGB.")
    resize: Literal["forbid", "crop", "stretch"] = Field(
        "forbid",
        description="What to do with images of another size. forbid: stop; crop: cut out the centre square and resize it; "
        "stretch: resize height and width to `size`.",
    )
    convert: bool = Field(
        False, description="Convert images of another colour mode (gray, RGB, CMYK...) to that of `channels`; false: stop at the first one."
    )
    background: int = Field(255, ge=0, le=255, description="Gray level, 0 to 255, that transparent pixels are composited onto.")
    flip: bool = Field(False, description="Mirror each image left to right with probability 1/2.", json_schema_extra=NOT_PREPARATION)
    root: str = Field(
        "~/.cache/amgen/data",
        description="Folder of the data sets that have a name, in the layout of torchvision.",
        json_schema_extra={**MAY_CHANGE, **NOT_PREPARATION},
    )
    download: bool = Field(
        False,
        description="Download a data set that has a name if it is not in `root`.",
        json_schema_extra={**MAY_CHANGE, **NOT_PREPARATION},
    )
    memory_mb: int = Field(
        1024,
        ge=0,
        le=2**30,
        description="Largest data set that is decoded once and kept in memory, MiB of uint8 pixels; others are decoded at every use.",
        json_schema_extra={**MAY_CHANGE, **NOT_PREPARATION},
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop",
        description="What to do with an unreadable image. stop: end with an error; skip: use the next readable one instead, and count it.",
    )
    workers: int = Field(
        0,
        ge=0,
        le=256,
        description="Worker processes that read images, for each training process; 0: read in the training process.",
        json_schema_extra={**MAY_CHANGE, **NOT_PREPARATION},
    )
    masses: MassesConfig | None = Field(
        None,
        description="Masses of the classes that change in time (unbalanced dynamics); null: every image has the mass 1.",
        json_schema_extra=NOT_PREPARATION,
    )
    classes: list[str] | None = Field(
        None,
        description="Names of the classes, in the order of their numbers; null: the names in the data. Recorded when training starts.",
        # Names do not change what is learned. Images in another order of classes have another fingerprint.
        json_schema_extra={**MAY_CHANGE, **NOT_PREPARATION},
    )

    def preparation(self) -> dict[str, Any]:
        """Return the options that decide how a file becomes an image: all that are not marked `NOT_PREPARATION`."""
        extras = {name: field.json_schema_extra for name, field in type(self).model_fields.items()}
        without = {name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("not_preparation")}
        return self.model_dump(mode="json", exclude=without)


class PopulationConfig(Section):
    """Options that all populations of points have. An item of training is a multi-marginal tuple: one point of each time."""

    masses: ClassVar[None] = None
    workers: ClassVar[int] = 0
    on_error: ClassVar[str] = "stop"

    standardize: Literal["none", "global", "columns", "whiten"] = Field(
        "global",
        description="Coordinates that the network sees: centred points divided by one standard deviation (global), by one for each column "
        "(columns), or also decorrelated (whiten); none: the points as they are.",
    )
    times: Annotated[list[float], Field(min_length=2)] | None = Field(
        None, description="Times to train on, in the unit of the table; null: all except `hold_out`. Recorded when training starts."
    )
    origin: list[float] | None = Field(None, description="Centre of the standardized coordinates. Recorded when training starts.")
    axes: list[list[float]] | None = Field(
        None, description="Matrix A of the standardized coordinates z, x = origin + A z. Recorded when training starts."
    )

    @model_validator(mode="after")
    def _increasing(self) -> "PopulationConfig":
        if self.times is not None and any(first >= second for first, second in pairwise(self.times)):
            raise ValueError(f"data.times={short(self.times)}: expected increasing times: sort them, and remove those given twice")
        return self


class SnapshotsConfig(PopulationConfig):
    """A table of points of a population at several times."""

    kind: Literal["snapshots"] = Field("snapshots", description="A table of points at several times.")
    path: str = Field(
        min_length=1,
        description="A .csv (or .tsv, .txt) with a header, an .npz with `times` and `points` or with `sample_labels` and `pcs`, or an "
        "AnnData file (.h5ad, or a folder .zarr).",
        json_schema_extra=MAY_CHANGE,
    )
    dimension: Positive = Field(le=1_000_000, description="Number of feature columns to use, the first ones, or of principal components.")
    embedding: str | None = Field(
        None,
        min_length=1,
        description="Coordinates of the cells of an AnnData file: a key of obsm; X, the genes; or pca, principal components of X, computed "
        "from the cells of the times to train on. null: X_pca.",
    )
    time_key: str = Field(
        "time",
        description="Column of a .csv, or of the obs of an AnnData file, that holds the times: numbers, or labels such as 'day 10.5'.",
    )
    mass_key: str | None = Field(
        None, description="Column of a .csv, or of the obs of an AnnData file, or array of an .npz, that holds the mass of each row."
    )
    max_cells: Positive | None = Field(
        None,
        description="Most rows to train on: each time keeps the same share of its rows, chosen at random, and its total mass. null: all.",
    )
    hold_out: float | None = Field(None, description="A time between the first and the last that is not trained on, for evaluation.")
    paired: bool = Field(False, description="Row i of every time is the same particle.")
    mass_from_counts: bool = Field(
        False, description="The total mass of a time is its number of rows, for a population that grows and shrinks."
    )
    period: float | None = Field(None, gt=0, description="Period of every column, for points on a torus; null: not periodic.")

    @property
    def weighted(self) -> bool:
        """Whether masses differ between points or times."""
        return self.mass_from_counts or self.mass_key is not None

    @model_validator(mode="after")
    def _options_fit(self) -> "SnapshotsConfig":
        if self.mass_from_counts and self.mass_key is not None:
            raise ValueError("data.mass_from_counts and data.mass_key each say what the masses are: leave one out")
        if self.period is not None and self.standardize != "none":
            raise ValueError(f"data.standardize={self.standardize} would change the period of the columns: set data.standardize=none")
        return self


class SimulatedConfig(PopulationConfig):
    """A system with known dynamics, simulated when training starts."""

    kind: Literal["simulated"] = Field("simulated", description="A simulated population.")
    paired: ClassVar[bool] = True
    period: ClassVar[None] = None

    system: Literal["hydrogen", "mixture", "ornstein-uhlenbeck"] = Field(
        description="hydrogen: |psi|^2 of an electron in a superposition of two states, in 3 dimensions; mixture: three Gaussians whose "
        "weights change, in 2; ornstein-uhlenbeck: drift to a centre and diffusion, in 2."
    )
    particles: Annotated[int, Field(ge=2, le=100_000_000)] = Field(20_000, description="Number of particles.")
    snapshots: Annotated[int, Field(ge=2, le=1_000_000)] = Field(101, description="Number of equidistant times.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the simulation.")

    @property
    def dimension(self) -> int:
        """Number of coordinates of a point."""
        return 3 if self.system == "hydrogen" else 2

    @property
    def weighted(self) -> bool:
        """Whether masses differ between points or times."""
        return self.system == "mixture"


AnyDataConfig = Annotated[
    Annotated[DataConfig, Tag("images")] | Annotated[SnapshotsConfig, Tag("snapshots")] | Annotated[SimulatedConfig, Tag("simulated")],
    by("kind", "images"),
]
