"""The section `data`: images, or snapshots of a population."""

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Tag, model_validator

from amgen.config.base import LARGEST_IMAGE, MAY_CHANGE, NOT_PREPARATION, Positive, Section, Share, by
from amgen.core.errors import short
from amgen.core.names import MASS_INTERPOLATION, MassInterpolation


class MassesConfig(Section):
    """Masses of the images that change in time, class by class (unbalanced dynamics)."""

    start: Annotated[list[Share], Field(min_length=1)] | None = Field(
        None, description="Share of each class at t = 0, in any unit; null for the shares in the data."
    )
    end: Annotated[list[Share], Field(min_length=1)] = Field(description="Share of each class at t = 1, in any unit.")
    interpolation: MassInterpolation = Field(
        MASS_INTERPOLATION, description="linear: m_t = (1 - t) m_0 + t m_1, total mass kept; geometric: m_0^(1-t) m_1^t."
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
        description="hydrogen: |psi|^2 of an electron in two states, 3 dimensions; mixture: three Gaussians whose weights change, 2; "
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
    by("kind", "images"),
]
