"""From a checkpoint and seeds to images, or to points."""

import copy
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amgen import checkpoints
from amgen.actions import Action
from amgen.batching import in_batches
from amgen.build import build_action, build_kind, build_path, no_label
from amgen.checks import MOST_IMAGES
from amgen.config import Config, DataConfig, SamplingConfig, change
from amgen.data import ImageDataset, SnapshotDataset, Units, open_dataset, recorded_units, to_uint8
from amgen.dynamics import Dynamics, MarginalNoise
from amgen.errors import Diverged, UserError
from amgen.kinds import Kind, Unbalanced
from amgen.labels import class_name, find_label, labels_of
from amgen.paths import Given
from amgen.paths import Path as ProbabilityPath
from amgen.precision import set_tf32
from amgen.processes import Processes
from amgen.randomness import Purpose, gaussian, uniform, uniforms
from amgen.solvers import ADAPTIVE, BrownianMotion, ODESolver, SDESolver, StepGrid, make_solver


@dataclass
class Model:
    """A trained action, ready to generate.

    Attributes:
        config: the configuration it was trained with.
        action: the network, frozen.
        path: the path it was trained on.
        kind: what the action's gradient does to samples.
        weights: which weights these are, `action` or `ema-RATE`.
        images: how many images they were trained on.
        source: where they came from.
        sha256: what identifies the weights (`amgen.checkpoints.digest`); computed when it is asked for, if not given.
    """

    config: Config
    action: Action
    path: ProbabilityPath
    kind: Kind
    weights: str
    images: int
    source: Path
    sha256: str | None = None

    @property
    def weights_sha256(self) -> str:
        """What identifies the weights wherever they lie: a SHA-256 of their contents, hexadecimal."""
        if self.sha256 is None:
            self.sha256 = checkpoints.digest(self.action.state_dict())
        return self.sha256

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.action.parameters()).device

    @property
    def units(self) -> Units | None:
        """From the coordinates that points are moved in to their own; None for images."""
        return None if isinstance(self.config.data, DataConfig) else recorded_units(self.config.data)

    def outside(self, x: Tensor) -> Tensor:
        """Return what is moved as users know it, on the CPU: uint8 images, or points (B, D) in their own coordinates, float32."""
        units = self.units
        return to_uint8(x).cpu() if units is None else units.outside(x)

    @property
    def run(self) -> Path:
        """The run directory that the checkpoint lies in, its own folder if it was copied out of one, or that of an exported file."""
        if self.source.is_file():
            return self.source.parent
        run = self.source.parent.parent
        return run if (run / "config.yaml").exists() else self.source

    def sample(
        self,
        num: int,
        *,
        solver: str | None = None,
        steps: int | None = None,
        seed: int = 0,
        label: int | str | None = None,
        start: str | None = None,
        **options: Any,
    ) -> Tensor:
        """Draw images that all count the same, uint8 (num, C, H, W), or points, float32 (num, D), on the CPU.

            images = amgen.load("runs/digits").sample(64, solver="heun", steps=20)

        Args:
            num: how many.
            solver: name of the solver; this and other settings are by default those of the run.
            steps: number of steps.
            seed: image i is a function of this seed and i.
            label: class to draw, by number or name, where the model has classes; by default that of the image that each is made from, or
                each class in turn.
            start: images that a model which completes or colours them starts from (a folder, zip or data set), or the table of points that
                a population starts from; by default the training data.
            options: further settings of the section `sampling` of the configuration, such as `guidance` or `step_grid`.

        Raises:
            UserError: for settings that do not exist or do not fit the model, and for unbalanced dynamics, whose images carry weights: see
                `generate`.
        """
        if isinstance(self.kind, Unbalanced):
            raise UserError(
                f"the {self.config.noun} of unbalanced dynamics carry weights, which sample would leave out: call generate, whose result "
                "has images and log_weights"
            )
        return self.generate(num, solver=solver, steps=steps, seed=seed, label=label, start=start, **options).images

    def generate(
        self,
        num: int,
        *,
        solver: str | None = None,
        steps: int | None = None,
        seed: int = 0,
        label: int | str | None = None,
        start: str | None = None,
        **options: Any,
    ) -> "Samples":
        """Draw images or points with all that belongs to them: classes, log-weights, inputs and truths. Arguments as for `sample`.

        The images of unbalanced dynamics are to be averaged by their weights, or drawn by them:

            drawn = amgen.load("runs/digits-unbalanced").generate(64)
            weights = drawn.log_weights.softmax(dim=0)
            images = drawn.images[amgen.sampling.resample(drawn.log_weights, seed=0)]
        """
        if not 1 <= num <= MOST_IMAGES:
            raise UserError(f"num={num}: expected at least 1 and at most {MOST_IMAGES:,}")
        settings = self.options({"solver": solver, "steps": steps, **options})
        request = Request(seed, find_label(self.config, label), settings.guidance, start_images(self, start), settings.noise_level)
        return Samples.join(list(generate_all(self, settings, range(num), request)))

    def options(self, changes: Mapping[str, Any]) -> SamplingConfig:
        """Return the sampling settings of the run with some changed, checked against the model as a whole; None keeps what is there.

        Raises:
            UserError: for settings that do not exist or do not fit the model.
        """
        settings = change(self.config.sampling, changes)
        change(self.config, {"sampling": settings.model_dump(mode="json")})
        return settings

    def describe(self) -> dict[str, Any]:
        """Return what identifies the weights, for reports."""
        return {
            "checkpoint": str(self.source),
            "weights": self.weights,
            "weights_sha256": self.weights_sha256,
            "images_trained": self.images,
        }

    def in_words(self, settings: Mapping[str, Any]) -> str:
        """Return settings in one line for people: checksums are shortened, and classes have their names."""
        return ", ".join(f"{key} {self._in_words(key, value)}" for key, value in settings.items())

    def _in_words(self, key: str, value: Any) -> str:
        if key.endswith("sha256"):
            return str(value)[:12]
        if key == "label" and isinstance(value, int) and class_name(self.config, value) != str(value):
            return f"{value} ({class_name(self.config, value)})"
        return str(value)


@dataclass
class Samples:
    """A batch of generated images.

    Attributes:
        indices: index of each image; image i is a function of (model, solver, seed, i).
        images: uint8, (B, C, H, W); of a population, points at t = 1, float32 (B, D).
        labels: classes asked for, int64 (B,); None for an unconditional model.
        evaluations: gradients of the action evaluated for the batch (NFE).
        log_weights: log of each image's mass, float64 (B,), where the dynamics are unbalanced; None where all count the same.
        inputs: what was given of each image, as a picture, uint8 (B, C, H, W), or the point at t = 0; None where noise is all.
        truths: the images that it was given of, same shape; None for points.
    """

    indices: Sequence[int]
    images: Tensor
    labels: Tensor | None
    evaluations: int
    log_weights: Tensor | None = None
    inputs: Tensor | None = None
    truths: Tensor | None = None

    @classmethod
    def join(cls, batches: Sequence["Samples"]) -> "Samples":
        """Return batches of one model as one; its `evaluations` are those of the batch that needed most."""

        def joined(name: str) -> Tensor | None:
            parts = [getattr(batch, name) for batch in batches]
            return None if parts[0] is None else torch.cat(parts)

        indices = [index for batch in batches for index in batch.indices]
        evaluations = max(batch.evaluations for batch in batches)
        images = torch.cat([batch.images for batch in batches])
        return cls(indices, images, joined("labels"), evaluations, joined("log_weights"), joined("inputs"), joined("truths"))

    def pictures(self) -> list[Tensor]:
        """Return what a picture of the batch shows: inputs, images and truths, or the images alone."""
        return [part for part in (self.inputs, self.images, self.truths) if part is not None]

    def by_index(self, wanted: Container[int]) -> dict[int, list[Tensor]]:
        """Return what a picture of the batch shows of each `wanted` image; copies, not views, which would carry the whole batch along."""
        parts = self.pictures()
        return {index: [part[row].clone() for part in parts] for row, index in enumerate(self.indices) if index in wanted}


def load(source: str | Path, ema: float | None = None, raw: bool = False, device: str = "auto") -> Model:
    """Load a model from a run directory (its newest checkpoint), a checkpoint or an exported file.

    Args:
        source: the folder or file.
        ema: rate of the averaged weights to use; by default the first of the run's.
        raw: use the weights themselves instead of an average.
        device: where to put it: a torch device, or auto for a GPU where there is one.

    Raises:
        UserError: if there is no such checkpoint or average, or it is damaged.
    """
    weights = checkpoints.read_weights(Path(source), ema, raw)
    action = build_action(weights.config)
    checkpoints.load_weights(action, weights.tensors, str(weights.source))
    action.to(device_of(device)).requires_grad_(False).eval()
    return assemble(weights.config, action, weights.name, weights.images, weights.source, weights.sha256)


def assemble(config: Config, action: Action, weights: str, images: int, source: Path, sha256: str | None = None) -> Model:
    """Put a model together around an action; the arguments are its attributes."""
    path = build_path(config)
    return Model(config, action, path, build_kind(config, path), weights, images, source, sha256)


def with_weights(action: Action, weights: Mapping[str, Tensor]) -> Action:
    """Return a frozen copy of an action with other weights, in single precision as all sampling is."""
    copied = copy.deepcopy(action).float().requires_grad_(False).eval()
    copied.load_state_dict(weights)
    return copied


@dataclass(frozen=True)
class Request:
    """What to generate.

    Attributes:
        seed: image i is a function of (model, solver, seed, i).
        label: class to draw; by default that of the image that it is made from, or i modulo the number of classes (`amgen.labels`).
        guidance: strength of classifier-free guidance, 1 for none.
        images: images that a model which completes or colours them starts from, or the population; image i modulo their number.
        noise_level: G of the SDE with g(t) = G sqrt(a_t) and the marginals of balanced dynamics; 0 for the ODE.
        between: indices of two images; the ones drawn then lie between them, their noise turned from one to the other in equal angles.
        count: how many images `between` is divided into.
        starts: points at t = 0 in place of the seed's, float (N, C, H, W), as encoding gives them; image i starts from entry i.
        classes: classes that belong to `starts`, int64 (N,), unless `label` says otherwise.

    Raises:
        UserError: for a seed that is negative or beyond 63 bits.
    """

    seed: int = 0
    label: int | None = None
    guidance: float = 1.0
    images: ImageDataset | SnapshotDataset | None = None
    noise_level: float = 0.0
    between: tuple[int, int] | None = None
    count: int = 0
    starts: Tensor | None = None
    classes: Tensor | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed={self.seed}: expected 0 to 2^63 - 1")


Observer = Callable[[float, Tensor, Dynamics], None]
"""Is shown the time, the points (B, C, H, W) and the dynamics, at the start and after each step."""


@dataclass
class Prepared:
    """A batch ready to be carried.

    Attributes:
        x: points at the start.
        dynamics: the motion, with labels and what is given.
        labels: classes, int64 (B,), or None.
        data: the images that something is given of, in [-1, 1], or None.
    """

    x: Tensor
    dynamics: Dynamics
    labels: Tensor | None
    data: Tensor | None


def prepare(model: Model, indices: Sequence[int], request: Request) -> Prepared:
    """Draw noise and choices on the CPU for (seed, i), and set up the dynamics of a batch.

    Raises:
        UserError: if the request does not fit the model.
    """
    device, path = model.device, model.path
    labels = labels_of(model.config, indices, request.label, request.images, request.classes, request.between)
    data = _start_images(model, request.images, indices)
    choices = uniforms(request.seed, Purpose.SAMPLE_CHOICE, indices, path.choices).to(device) if path.choices else None
    given = Given() if data is None else path.given(data, choices)
    dynamics = Dynamics(
        model.action,
        model.kind,
        path,
        None if labels is None else labels.to(device),
        given,
        request.guidance,
        no_label(model.config),
        MarginalNoise(request.noise_level, path) if request.noise_level else None,
    )
    if request.starts is not None:
        return Prepared(request.starts[torch.as_tensor(indices)].to(device), dynamics, labels, data)
    return Prepared(path.prior(_noise(model, indices, request).to(device), data, given), dynamics, labels, data)


def generate(
    model: Model, solver: ODESolver | SDESolver, indices: Sequence[int], request: Request, observe: Observer | None = None
) -> Samples:
    """Generate the images `indices` in one batch.

    Raises:
        UserError: if the request does not fit the model.
        Diverged: if an image comes out with values that are not finite.
    """
    batch = prepare(model, indices, request)
    dynamics, given = batch.dynamics, batch.dynamics.given
    watch = None if observe is None else lambda t, x: observe(t, x, dynamics)
    log_weights = None
    if isinstance(solver, SDESolver):
        brownian = BrownianMotion(request.seed, indices, model.config.shape, model.device)
        x = solver.solve(dynamics.drift, dynamics.diffusion, brownian, batch.x, watch)
    elif isinstance(model.kind, Unbalanced):
        x, log_weights = _solve_with_weights(solver, dynamics, batch.x, model.path.start_mass(batch.data), watch)
    else:
        x = solver.solve(dynamics.velocity, batch.x, observe=watch)
    finite = torch.isfinite(x).flatten(1).all(dim=1)
    if not finite.all():
        first = indices[int((~finite).nonzero()[0])]
        raise Diverged(f"image {first} has values that are not finite: use more steps or another checkpoint")
    return Samples(
        indices,
        model.outside(model.path.finish(x)),
        batch.labels,
        dynamics.evaluations,
        log_weights,
        None if batch.data is None else model.outside(model.path.shown(batch.data, given)),
        None if batch.data is None or model.units is not None else model.outside(batch.data),
    )


def solver_of(options: SamplingConfig) -> ODESolver | SDESolver:
    """Return the solver that the options name."""
    return make_solver(options.solver, StepGrid(options.steps, options.step_grid, options.rho), options.tolerance)


def evaluate_once(model: Model, indices: Sequence[int], request: Request) -> Tensor:
    """Return dx/dt of the images `indices` at their start: what generating them does again and again, and the memory of a batch goes by."""
    batch = prepare(model, indices, request)
    return batch.dynamics.drift(0.0, batch.x)


def generate_all(
    model: Model,
    options: SamplingConfig,
    indices: Sequence[int],
    request: Request,
    processes: Processes = Processes(),  # noqa: B008 (immutable)
    say: Callable[[str], None] = print,
) -> Iterator[Samples]:
    """Generate this process's part of the images `indices`, `options.batch_size` at a time; `options` name the solver."""
    solver = solver_of(options)
    work, probe = partial(generate, model, solver, request=request), partial(evaluate_once, model, request=request)
    for _, samples in in_batches(work, indices, options.batch_size, probe, model.device, processes, say):
        yield samples


def start_images(
    model: Model, path: str | None, say: Callable[[str], None] | None = None, preparation: Mapping[str, Any] | None = None
) -> ImageDataset | SnapshotDataset | None:
    """Open the images that a model which completes or colours them starts from, or the population: at `path`, by default the training data.

    Args:
        model: the model.
        path: a folder, zip or data set of images, or a table of points.
        say: takes lines that say what of them is not taken as it is; None for no such lines.
        preparation: options of the section `data` that bring them into the model's form, such as `resize`, where they are not the run's.

    Raises:
        UserError: if the model starts from noise alone, or the images cannot be opened.
    """
    if model.path.guided:
        return open_dataset(change(model.config.data, {"path": path, **(preparation or {})}), say)
    if path is not None:
        raise UserError(f"this model starts from noise alone: it has no use for the images {path}")
    return None


def effective_sample_size(log_weights: Sequence[float]) -> float:
    """Return (sum w)^2 / sum w^2: how many equally weighted samples those with `log_weights` are worth (Kish)."""
    weights = _weights(log_weights)
    return float(1 / weights.square().sum())


def resample(log_weights: Sequence[float], seed: int) -> list[int]:
    """Draw as many positions as there are weights, each about in proportion to its weight, by systematic resampling.

    One uniform offset and equal strides through the cumulative weights: a position of normalised weight w is taken floor(n w) or ceil(n w)
    times.
    """
    weights = _weights(log_weights)
    count = len(weights)
    places = (torch.arange(count, dtype=torch.float64) + uniform(seed, Purpose.RESAMPLING, [0])) / count
    return torch.searchsorted(weights.cumsum(0), places).clamp(max=count - 1).tolist()


def _weights(log_weights: Sequence[float]) -> Tensor:
    """Return normalised weights, float64."""
    return torch.tensor(list(log_weights), dtype=torch.float64).softmax(dim=0)


def _noise(model: Model, indices: Sequence[int], request: Request) -> Tensor:
    """Return standard normal noise for each image, (B, C, H, W)."""
    shape = model.config.shape
    if request.between is None:
        return gaussian(request.seed, Purpose.SAMPLE_NOISE, indices, shape)
    first, last = gaussian(request.seed, Purpose.SAMPLE_NOISE, request.between, shape).double()
    angle = torch.arccos((first * last).sum() / (first.norm() * last.norm()))
    share = torch.tensor([index / max(1, request.count - 1) for index in indices], dtype=torch.float64).reshape(-1, *[1] * len(shape))
    return ((((1 - share) * angle).sin() * first + (share * angle).sin() * last) / angle.sin()).float()


def _solve_with_weights(
    solver: ODESolver, dynamics: Dynamics, x: Tensor, mass: Tensor | None, observe: Callable[[float, Tensor], None] | None
) -> tuple[Tensor, Tensor]:
    """Carry points and their log-weights, one more entry of each, from t = 0, where their `mass` (B,) may be given, to t = 1."""
    shape = x.shape
    start = x.new_zeros(len(x), 1) if mass is None else mass.log().to(x)[:, None]

    def velocity(t: float, state: Tensor) -> Tensor:
        motion, growth = dynamics.velocity_and_growth(t, state[:, :-1].reshape(shape))
        return torch.cat([motion.flatten(1), growth[:, None].to(motion.dtype)], dim=1)

    watch = None if observe is None else lambda t, state: observe(t, state[:, :-1].reshape(shape))
    end = solver.solve(velocity, torch.cat([x.flatten(1), start], dim=1), observe=watch)
    return end[:, :-1].reshape(shape), end[:, -1].cpu().double()


def _start_images(model: Model, images: ImageDataset | SnapshotDataset | None, indices: Sequence[int]) -> Tensor | None:
    """Return the images to start from, in [-1, 1], or the chains of a population, on the device, where the model needs some."""
    if not model.path.guided:
        return None
    if images is None:
        raise UserError("this model completes given images: give some (--condition-data)")
    return images.floats([index % len(images) for index in indices]).to(model.device)


def describe_solver(options: SamplingConfig) -> dict[str, Any]:
    """Return the solver's name and the settings it heeds, for reports."""
    if options.solver in ADAPTIVE:
        return {"solver": options.solver, "tolerance": options.tolerance}
    grid: dict[str, dict[str, Any]] = {
        "uniform": {},
        "cosine": {"step_grid": "cosine"},
        "polynomial": {"step_grid": "polynomial", "rho": options.rho},
    }
    noise = {"noise_level": options.noise_level} if options.noise_level else {}
    return {"solver": options.solver, "steps": options.steps, **grid[options.step_grid], **noise}


def device_of(name: str) -> torch.device:
    """Return the device of that name; auto for a GPU where there is one. What is computed there is in full precision, without TF32.

    Raises:
        UserError: if it cannot be used here.
    """
    set_tf32(False)
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        float(torch.zeros(1, device=device))  # which a device that computes nothing, such as meta, refuses
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device
