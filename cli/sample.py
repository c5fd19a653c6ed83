"""amgen sample."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .options import (
    BatchSize,
    ConditionData,
    Convert,
    Debug,
    Device,
    Ema,
    Guidance,
    Label,
    NoiseLevel,
    Raw,
    Resize,
    Rho,
    Run,
    Seed,
    Solver,
    StepGrid,
    Steps,
    Tolerance,
    number_or_word,
)


def sample(
    run: Run,
    num: Annotated[
        int, typer.Option("--num", "-n", help="Images to draw. (torchrun takes --num for an option of its own: write -n.)")
    ] = 64,
    seeds: Annotated[str | None, typer.Option(help="Indices to draw instead of 0 to num - 1, such as 5,17-20.", show_default=False)] = None,
    solver: Solver = None,
    steps: Steps = None,
    step_grid: StepGrid = None,
    rho: Rho = None,
    tolerance: Tolerance = None,
    noise_level: NoiseLevel = None,
    seed: Seed = 0,
    label: Label = None,
    guidance: Guidance = None,
    condition_data: ConditionData = None,
    resize: Resize = None,
    convert: Convert = None,
    between: Annotated[
        str | None,
        typer.Option(
            metavar="I,J", help="Draw `num` images between images I and J, turning one's noise into the other's.", show_default=False
        ),
    ] = None,
    noise: Annotated[
        Path | None,
        typer.Option(
            help="Noise to start from, an .npz of amgen encode, with its solver, guidance and classes; all of it unless --seeds choose.",
            show_default=False,
        ),
    ] = None,
    batch_size: BatchSize = None,
    ema: Ema = None,
    raw: Raw = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the images; the same command again goes on where it stopped.", show_default=False)
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", help="png: a file an image; npz: a shard a batch. Default: png, for points npz.", show_default=False),
    ] = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="Also draw indices in proportion to the weights (unbalanced dynamics).")
    ] = False,
    grid: Annotated[
        Path | None,
        typer.Option(help="Picture of all images, at most 400. Default, without another output: samples.png.", show_default=False),
    ] = None,
    gif: Annotated[
        Path | None, typer.Option(help="Animation from noise to data of the first 64 images: .gif, .png or .webp.", show_default=False)
    ] = None,
    strip: Annotated[Path | None, typer.Option(help="Picture from noise to data of the first 8 images.", show_default=False)] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Plot of kinetic energy and speed over time, of the first 64 images.", show_default=False)
    ] = None,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Generate images from a trained model. Under torchrun the processes share the work."""
    from amgen import config
    from amgen.core import checks
    from amgen.core.errors import UserError
    from amgen.core.files import check_output, make_folder

    changes = {
        "solver": solver,
        "steps": steps,
        "step_grid": step_grid,
        "rho": rho,
        "tolerance": tolerance,
        "batch_size": number_or_word(batch_size),
        "guidance": guidance,
        "noise_level": noise_level,
    }
    # Everything that can be wrong is looked at before anything slow is done: first what needs no torch.
    checks.check_number("--num", num)
    config.change(config.SamplingConfig(), changes)
    preparation = {"resize": resize, "convert": convert}
    config.change(config.DataConfig(), preparation)
    checks.check_format(form or "png")
    checks.check_picture("--grid", grid)
    checks.check_picture("--strip", strip)
    checks.check_picture("--gif", gif, checks.MOVING)
    checks.check_plot("--plot", plot)
    indices: Sequence[int] = range(num) if seeds is None else checks.parse_indices(seeds)
    ends = None if between is None else checks.parse_between(between)
    checks.check_input("--noise", noise)
    checks.check_run(run)
    files = {"--grid": grid, "--gif": gif, "--strip": strip, "--plot": plot}
    default = out is None and all(file is None for file in files.values())
    for option, file in {**files, "--grid": Path("samples.png") if default else grid}.items():
        check_output(option, file)
    if out is not None:
        make_folder(out)

    from amgen.core.files import sha256
    from amgen.core.processes import Processes
    from amgen.dynamics import Unbalanced
    from amgen.model.classes import find_label
    from amgen.sampling import Request, describe_solver, load, start_images
    from amgen.sampling.inversion import read_noise, settings_of_codes, starts_of
    from amgen.sampling.job import draw, summary
    from amgen.sampling.trajectory import record
    from amgen.sampling.writer import ImageFolder, check_images, form_of
    from amgen.solvers import ADAPTIVE
    from amgen.visualization.grids import save_animation, save_grid
    from amgen.visualization.plots import save_plot

    processes = Processes.join(device)
    model = load(run, ema, raw, processes.device)
    number = find_label(model.config, label)
    form = form_of(form, model)
    points = model.config.modality == "points"
    check_images(model, {"--gif": gif, "--strip": strip})
    if resample and not isinstance(model.dynamics, Unbalanced):
        raise UserError(f"--resample: the {model.config.modality} of this model carry no weights (its dynamics are not unbalanced)")
    images = start_images(model, condition_data, print if processes.main else None, preparation)
    codes = None if noise is None else read_noise(noise, model.config.shape)
    notes: list[str] = []
    if noise is not None and codes is not None:
        indices = starts_of(codes.noise, None if seeds is None else indices, between)
        changes, notes = settings_of_codes(noise, codes, model, changes, Request(seed, number, images=images))
    options = model.options(changes)
    checks.check_frames(0 if options.solver in ADAPTIVE else options.steps, [gif, strip, plot])
    starts, classes = (None, None) if codes is None else (codes.noise, codes.classes)
    request = Request(seed, number, options.guidance, images, options.noise_level, ends, len(indices), starts, classes)
    settings = {
        **model.describe(),
        **describe_solver(options),
        "seed": seed,
        "label": number,
        "guidance": options.guidance if options.guidance != 1 else None,
        "start": None if images is None else images.source.description,
        "start_sha256": None if images is None else images.source.fingerprint(),
        **({} if images is None else preparation),
        "between": None if between is None else f"{between} in {len(indices)}",
        "noise": None if noise is None else sha256(noise)[:16],
    }
    settings = {key: value for key, value in settings.items() if value is not None}
    if default:
        grid, out = (None, Path("samples")) if points else (Path("samples.png"), None)
    lines: list[str] = notes
    if out is not None or grid is not None:
        folder = None if out is None else ImageFolder(out, form, settings, processes.main, model.config.modality)
        drawn = draw(model, options, request, indices, processes, folder, grid, resample)
        lines += [*(f"wrote {line}" for line in drawn.written), *summary(drawn)]
    if processes.main:
        if gif is not None or strip is not None or plot is not None:
            trajectory = record(model, options, indices[:64], request)
            if gif is not None:
                save_animation(gif, trajectory.frames)
            if strip is not None:
                columns = min(9, len(trajectory.times))
                save_grid(strip, [trajectory.strip(columns)[: 8 * columns]], columns)
            if plot is not None:
                save_plot(plot, trajectory.times, trajectory.energy, trajectory.speeds)
            lines += [f"wrote {file}" for file in (gif, strip, plot) if file is not None]
        print("\n".join(lines))
        print(model.in_words(settings))
    processes.wait()
