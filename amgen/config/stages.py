"""The sections that say how to train, to sample and to evaluate."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from amgen.config.base import MAY_CHANGE, Fraction, Positive, Rate, Section
from amgen.core.errors import short, unknown
from amgen.core.names import BATCH_SIZE, SOLVERS, STEP_GRID, STEP_GRID_RHO, MetricName, StepGridName


class TrainingConfig(Section):
    """How long, how fast and how safely to train. Progress is counted in images seen."""

    images: Positive = Field(200_000, description="Images to train on, rounded up to whole batches.", json_schema_extra=MAY_CHANGE)
    # About ten times the largest batches in use. A larger number is a slip, and would look like a hang.
    batch_size: Annotated[int, Field(gt=0, le=1_000_000)] = Field(
        BATCH_SIZE, description="Images per step, over all processes together, at most 1,000,000."
    )
    micro_batch: Positive | None = Field(
        None,
        description="Most images in one pass of a process; a larger share is computed in several passes. Default: one pass.",
        json_schema_extra=MAY_CHANGE,
    )
    optimizer: Literal["adam", "adamw"] = Field("adam", description="Adam, or Adam with decoupled weight decay.")
    learning_rate: float = Field(1e-3, gt=0, description="Step size after the warm-up.")
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.999), description="Adam's decay rates.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay (adamw only).")
    warmup_images: int = Field(0, ge=0, le=10**15, description="Images over which the learning rate rises linearly from 0.")
    decay: float = Field(0.0, ge=0, le=1, description="Fraction of the run, at its end, in which the learning rate falls linearly to 0.")
    clip: float | None = Field(1.0, gt=0, description="Largest global norm of the gradient; null for no clipping.")
    ema: Annotated[list[Rate], Field(min_length=1)] = Field(
        [44_300.0],
        description="Half-lives, in images, of the averaged weights; a value below 1 is the decay per step. Sampling uses the first one.",
    )
    precision: Literal["fp32", "tf32", "bf16", "fp64"] = Field(
        "fp32", description="Arithmetic of the network; fp64 is for checks of numerical errors."
    )
    compile: bool = Field(False, description="Compile the whole loss with torch.compile.", json_schema_extra=MAY_CHANGE)
    device: Literal["auto", "cpu"] = Field("auto", description="auto for a GPU if there is one, or cpu.", json_schema_extra=MAY_CHANGE)
    log_every: Positive = Field(6_400, description="Images between lines of metrics.jsonl.", json_schema_extra=MAY_CHANGE)
    sample_every: int = Field(50_000, ge=0, le=10**15, description="Images between sample grids; 0 for none.", json_schema_extra=MAY_CHANGE)
    checkpoint_every: Positive = Field(50_000, description="Images between checkpoints.", json_schema_extra=MAY_CHANGE)
    # While losses are read a GPU waits for its next step. Several processes stop at the next reading: ten steps
    # of 2 s are within the 30 s that Slurm and Kubernetes wait.
    sync_every: Positive = Field(
        10,
        description="Most steps before losses are read from the device and checked, and several processes agree on whether to stop.",
        json_schema_extra=MAY_CHANGE,
    )
    checkpoint_activations: bool = Field(
        False, description="Recompute activations in the backward passes to save memory.", json_schema_extra=MAY_CHANGE
    )
    trackers: list[Literal["tensorboard", "wandb"]] = Field(
        [], description="Also log to these trackers; their logs are in the run's folder `tracking`.", json_schema_extra=MAY_CHANGE
    )
    timeout: Annotated[int, Field(gt=0, le=2_592_000)] = Field(  # no job runs longer than 30 days
        600,
        description="Seconds that a process waits for the others before it stops with an error, at most 30 days.",
        json_schema_extra=MAY_CHANGE,
    )
    keep_last: Positive = Field(2, description="Number of newest checkpoints to keep.", json_schema_extra=MAY_CHANGE)
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
    """How sample grids are generated in training, and the defaults of `amgen sample` and `amgen eval-fid`."""

    solver: str = Field(
        "heun", description="ODE solver, or SDE solver for entropic dynamics or with a noise level.", json_schema_extra=MAY_CHANGE
    )
    steps: int = Field(
        20, gt=0, le=100_000, description="Steps from t = 0 to t = 1 (fixed-step solvers), at most 100,000.", json_schema_extra=MAY_CHANGE
    )
    step_grid: StepGridName = Field(
        STEP_GRID,
        description="Lengths of the steps: equal (uniform), short at both ends (cosine), or times 1 - (1 - s)^rho (polynomial).",
        json_schema_extra=MAY_CHANGE,
    )
    rho: float = Field(
        STEP_GRID_RHO,
        ge=0.01,
        le=100,
        description="Exponent of the polynomial grid, 0.01 to 100; above 1 the steps near the data are short.",
        json_schema_extra=MAY_CHANGE,
    )
    noise_level: float = Field(
        0.0,
        ge=0,
        description="G of the SDE with the same marginals as the ODE of balanced dynamics, g(t) = G sqrt(a_t); 0 for the ODE.",
        json_schema_extra=MAY_CHANGE,
    )
    tolerance: float = Field(
        1e-4,
        ge=1e-7,  # single precision resolves no finer: a solver would halve its steps for ever
        description="Relative and absolute tolerance (adaptive solvers), at least 1e-7.",
        json_schema_extra=MAY_CHANGE,
    )
    batch_size: int | Literal["auto"] = Field(
        "auto",
        description="Images that each process generates together; auto: as many as fit the memory and still gain speed.",
        json_schema_extra=MAY_CHANGE,
    )
    guidance: float = Field(
        1.0,
        ge=0,
        description="Scale of classifier-free guidance: 1 is the class as learned, 0 no class, above 1 the class exaggerated.",
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


class EvaluationConfig(Section):
    """Metrics in training, for the first averaged weights of training.ema. The best weights are kept as checkpoints/best."""

    every: int = Field(
        0,
        ge=0,
        le=10**15,
        description="Images between evaluations, and one at the end; 0 for none.",
        json_schema_extra=MAY_CHANGE,
    )
    features: str = Field("inception", description="Features of the metrics, as for amgen eval-fid.", json_schema_extra=MAY_CHANGE)
    metrics: tuple[MetricName, ...] = Field(
        ("fid",), min_length=1, description="Metrics to compute; the first one in the order of this list decides which weights are best.",
        json_schema_extra=MAY_CHANGE,
    )  # fmt: skip
    num: Positive = Field(10_000, le=1_000_000_000, description="Images to generate.", json_schema_extra=MAY_CHANGE)
    kid_subset_size: Positive = Field(1_000, description="Images in each subset that KID is averaged over.", json_schema_extra=MAY_CHANGE)
    data: str | None = Field(
        None, description="Real images or an .npz of their statistics; null for the training images.", json_schema_extra=MAY_CHANGE
    )
