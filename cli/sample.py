"""amgen sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    ConditionData,
    Label,
    PreparationOptions,
    Run,
    RuntimeOptions,
    SamplerOptions,
    Seed,
    WeightsOptions,
    check_outputs,
    grouped,
)

if TYPE_CHECKING:
    from amgen.config import SamplingConfig
    from amgen.core.processes import Processes
    from amgen.data import ImageDataset, SnapshotDataset
    from amgen.sampling import Model, Request

TRAJECTORIES = 64
"""Most images of an animation and of a plot."""

STRIPS = 8
"""Most images of a strip."""


@dataclass(frozen=True)
class ImageOptions:
    """Which images are generated."""

    num: Annotated[
        int, typer.Option("--num", "-n", help="Number of images. (torchrun takes --num for an option of its own: write -n.)")
    ] = 64
    seeds: Annotated[
        str | None, typer.Option(help="Indices of the images instead of 0 to num - 1, such as 5,17-20.", show_default=False)
    ] = None
    seed: Seed = 0
    label: Label = None
    condition_data: ConditionData = None
    between: Annotated[
        str | None,
        typer.Option(
            metavar="I,J", help="Generate `num` images between images I and J: an interpolation of their noise.", show_default=False
        ),
    ] = None
    noise: Annotated[
        Path | None,
        typer.Option(
            help="File of amgen encode (.npz): the noise to start from, with its solver, guidance and classes. --seeds selects some of it.",
            show_default=False,
        ),
    ] = None

    def indices(self) -> Sequence[int]:
        """Return the indices of the images."""
        from amgen.core import checks

        return range(self.num) if self.seeds is None else checks.parse_indices(self.seeds)

    def ends(self) -> tuple[int, int] | None:
        """Return the indices of the two images that the others lie between."""
        from amgen.core import checks

        return None if self.between is None else checks.parse_between(self.between)

    def check(self) -> None:
        """Refuse what can be refused before the model is known."""
        from amgen.core import checks

        checks.check_number("--num", self.num)
        self.indices()
        self.ends()
        checks.check_input("--noise", self.noise)


@dataclass(frozen=True)
class OutputOptions:
    """The outputs."""

    out: Annotated[
        Path | None, typer.Option(help="Folder for the images; the same command again continues where it stopped.", show_default=False)
    ] = None
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="png: one file for each image; npz: one file for each batch. Default: png, or npz for points.",
            show_default=False,
        ),
    ] = None
    resample: Annotated[
        bool, typer.Option("--resample", help="Also resample the images in proportion to their weights (unbalanced dynamics).")
    ] = False
    grid: Annotated[
        Path | None,
        typer.Option(help="Grid of all images, at most 400. Default, without another output: samples.png.", show_default=False),
    ] = None
    gif: Annotated[
        Path | None, typer.Option(help="Animation from noise to data of the first 64 images: .gif, .png or .webp.", show_default=False)
    ] = None
    strip: Annotated[Path | None, typer.Option(help="Steps from noise to data of the first 8 images, as a grid.", show_default=False)] = (
        None
    )
    plot: Annotated[
        Path | None, typer.Option(help="Plot of kinetic energy and speed over time, of the first 64 images.", show_default=False)
    ] = None

    @property
    def nothing(self) -> bool:
        """Whether no output was asked for."""
        return all(file is None for file in (self.out, self.grid, self.gif, self.strip, self.plot))

    def check_names(self) -> None:
        """Refuse names and formats of files that do not exist."""
        from amgen.core import checks

        checks.check_format(self.form or "png")
        checks.check_image_file("--grid", self.grid)
        checks.check_image_file("--strip", self.strip)
        checks.check_image_file("--gif", self.gif, checks.ANIMATION_ENDINGS)
        checks.check_plot("--plot", self.plot)

    def check_places(self) -> None:
        """Refuse files that cannot be written, and make the folder."""
        from amgen.core.files import make_folder

        grid = Path("samples.png") if self.nothing else self.grid
        check_outputs({"--grid": grid, "--gif": self.gif, "--strip": self.strip, "--plot": self.plot})
        if self.out is not None:
            make_folder(self.out)

    def check_model(self, model: "Model") -> None:
        """Refuse outputs that do not fit the model."""
        from amgen.core.errors import UserError
        from amgen.dynamics import Unbalanced
        from amgen.sampling.writer import check_images

        check_images(model, {"--gif": self.gif, "--strip": self.strip})
        if self.resample and not isinstance(model.dynamics, Unbalanced):
            raise UserError(f"--resample: the {model.config.modality} of this model carry no weights (its dynamics are not unbalanced)")

    def check_frames(self, options: "SamplingConfig") -> None:
        """Refuse outputs that show each step if there are too many steps to keep in memory."""
        from amgen.core import checks
        from amgen.solvers import ADAPTIVE

        checks.check_frames(0 if options.solver in ADAPTIVE else options.steps, [self.gif, self.strip, self.plot])

    def completed(self, model: "Model") -> "OutputOptions":
        """Return the outputs with the default format, and with the default output if none was asked for."""
        from amgen.sampling.writer import form_of

        form = form_of(self.form, model)
        if not self.nothing:
            return replace(self, form=form)
        points = model.config.modality == "points"
        return replace(self, form=form, out=Path("samples")) if points else replace(self, form=form, grid=Path("samples.png"))


@dataclass
class Task:
    """Everything that is known before the first image is generated.

    Attributes:
        model: the model.
        options: how to generate.
        indices: indices of the images.
        request: what to generate.
        settings: everything that the images depend on, for reports.
        notes: lines for the user.
    """

    model: "Model"
    options: "SamplingConfig"
    indices: Sequence[int]
    request: "Request"
    settings: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@grouped
def sample(
    run: Run,
    *,
    images: ImageOptions,
    outputs: OutputOptions,
    sampler: SamplerOptions,
    preparation: PreparationOptions,
    weights: WeightsOptions,
    runtime: RuntimeOptions,
) -> None:
    """Generate images from a trained model. Under torchrun the processes share the work."""
    from amgen.core import checks

    # Options are checked before torch is loaded, which takes seconds.
    sampler.check()
    preparation.check()
    outputs.check_names()
    images.check()
    checks.check_run(run)
    outputs.check_places()

    from amgen.core.processes import Processes

    processes = Processes.join(runtime.device)
    model = weights.load(run, processes.device)
    outputs = outputs.completed(model)
    outputs.check_model(model)
    task = _prepare(model, images, sampler, preparation, print if processes.main else None)
    outputs.check_frames(task.options)
    lines = task.notes + _generate(task, outputs, processes)
    if processes.main:
        lines += _record(task, outputs)
        print("\n".join(lines))
        print(model.in_words(task.settings))
    processes.wait()


def _prepare(
    model: "Model",
    images: ImageOptions,
    sampler: SamplerOptions,
    preparation: PreparationOptions,
    say: Callable[[str], None] | None,
) -> Task:
    """Open the files that the images start from, and put the task together."""
    from amgen.evaluation.arguments import check_settings
    from amgen.model.classes import find_label
    from amgen.sampling import Request, start_images
    from amgen.sampling.codes import chosen_codes, decoding_settings, read_codes

    indices, changes = images.indices(), sampler.changes()
    notes: list[str] = []
    data = start_images(model, images.condition_data, say, preparation.changes())
    request = Request(images.seed, find_label(model.config, images.label), data, images.ends(), len(indices))
    if images.noise is not None:
        codes = read_codes(images.noise, model.config.shape)
        indices = chosen_codes(codes.noise, None if images.seeds is None else indices, images.between)
        changes, notes = decoding_settings(images.noise, codes, model, changes, request)
        request = replace(request, starts=codes.noise, classes=codes.classes)
    check_settings(changes, run=model.config.sampling)
    options = model.options(changes)
    return Task(model, options, indices, request, _describe(model, options, request, images, preparation, data), notes)


def _describe(
    model: "Model",
    options: "SamplingConfig",
    request: "Request",
    images: ImageOptions,
    preparation: PreparationOptions,
    data: "ImageDataset | SnapshotDataset | None",
) -> dict[str, Any]:
    """Return everything that the images depend on, for their folder and for the last line."""
    from amgen.core.files import sha256
    from amgen.sampling import describe_solver

    settings = {
        **model.describe(),
        **describe_solver(options),
        "seed": request.seed,
        "label": request.label,
        "guidance": options.guidance if options.guidance != 1 else None,
        "start": None if data is None else data.source.description,
        "start_sha256": None if data is None else data.source.fingerprint(),
        **({} if data is None else preparation.changes()),
        "between": None if images.between is None else f"{images.between} in {request.count}",
        "noise": None if images.noise is None else sha256(images.noise)[:16],
    }
    return {key: value for key, value in settings.items() if value is not None}


def _generate(task: Task, outputs: OutputOptions, processes: "Processes") -> list[str]:
    """Write the folder and the grid; return lines about them."""
    if outputs.out is None and outputs.grid is None:
        return []
    from amgen.sampling.job import run_job
    from amgen.sampling.writer import ImageFolder

    model, form = task.model, outputs.form or "png"
    folder = None if outputs.out is None else ImageFolder(outputs.out, form, task.settings, processes.main, model.config.modality)
    result = run_job(model, task.options, task.indices, task.request, processes, folder, outputs.grid, outputs.resample)
    return [*(f"wrote {line}" for line in result.written), *result.summary()]


def _record(task: Task, outputs: OutputOptions) -> list[str]:
    """Write the animation, the strip and the plot; return lines about them."""
    files = [file for file in (outputs.gif, outputs.strip, outputs.plot) if file is not None]
    if not files:
        return []
    from amgen.sampling.trajectory import record
    from amgen.visualization.grids import save_animation, save_grid
    from amgen.visualization.plots import save_trajectory_plot

    trajectory = record(task.model, task.options, task.indices[:TRAJECTORIES], task.request)
    if outputs.gif is not None:
        save_animation(outputs.gif, trajectory.frames)
    if outputs.strip is not None:
        columns = min(9, len(trajectory.times))
        save_grid(outputs.strip, [trajectory.strip(columns)[: STRIPS * columns]], columns)
    if outputs.plot is not None:
        save_trajectory_plot(outputs.plot, trajectory.times, trajectory.energy, trajectory.speeds)
    return [f"wrote {file}" for file in files]
