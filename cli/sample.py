"""amgen sample."""

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    BatchSize,
    ConditionData,
    Debug,
    Device,
    Ema,
    Guidance,
    Label,
    NoiseLevel,
    Raw,
    Rho,
    Run,
    Seed,
    Solver,
    StepGrid,
    Steps,
    Tolerance,
    number_or_word,
    pair,
    positive,
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
    between: Annotated[
        str | None,
        typer.Option(
            metavar="I,J", help="Draw `num` images between images I and J, turning one's noise into the other's.", show_default=False
        ),
    ] = None,
    noise: Annotated[
        Path | None, typer.Option(help="Noise to start from, an .npz of amgen encode; all of it unless --seeds choose.", show_default=False)
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
    from amgen import config, output
    from amgen.drawing import draw, parse_indices, starts_of, summary
    from amgen.files import sha256
    from amgen.processes import Processes
    from amgen.sampling import Request, describe_solver, load, start_images
    from amgen.trajectory import record

    positive("--num", num)
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
    # Everything that can be wrong is looked at before anything slow is done.
    config.change(config.SamplingConfig(), changes)
    output.check_format(form or "png")
    output.check_picture("--grid", grid)
    output.check_picture("--strip", strip)
    output.check_picture("--gif", gif, output.MOVING)
    output.check_picture("--plot", plot, (".png", ".pdf", ".svg"))
    indices = list(range(num)) if seeds is None else parse_indices(seeds)
    ends = None if between is None else pair("--between", between)

    processes = Processes.join(device)
    model = load(run, ema, raw, processes.device)
    options = model.options(changes)
    images = start_images(model, condition_data)
    form = output.form_of(form, model)
    points = model.config.noun == "points"
    output.check_images(model, {"--gif": gif, "--strip": strip})
    codes = None if noise is None else output.read_noise(noise, model.config.shape)
    if codes is not None:
        indices = starts_of(codes, None if seeds is None else indices, between)
    request = Request(seed, label, options.guidance, images, options.noise_level, ends, len(indices), codes)
    settings = {
        **model.describe(),
        **describe_solver(options),
        "seed": seed,
        "label": label,
        "guidance": options.guidance if options.guidance != 1 else None,
        "start": None if images is None else images.source.description,
        "between": None if between is None else f"{between} in {len(indices)}",
        "noise": None if noise is None else sha256(noise)[:16],
    }
    settings = {key: value for key, value in settings.items() if value is not None}
    if out is None and grid is None and gif is None and strip is None and plot is None:
        grid, out = (None, Path("samples")) if points else (Path("samples.png"), None)
    lines: list[str] = []
    if out is not None or grid is not None:
        folder = None if out is None else output.ImageFolder(out, form, settings, processes.main, model.config.noun)
        drawn = draw(model, options, request, indices, processes, folder, grid, resample)
        lines = [*(f"wrote {line}" for line in drawn.written), *summary(drawn)]
    if processes.main:
        if gif is not None or strip is not None or plot is not None:
            trajectory = record(model, options, indices[:64], request)
            if gif is not None:
                output.save_animation(gif, trajectory.frames)
            if strip is not None:
                columns = min(9, len(trajectory.times))
                output.save_grid(strip, [trajectory.strip(columns)[: 8 * columns]], columns)
            if plot is not None:
                output.save_plot(plot, trajectory.times, trajectory.energy, trajectory.speeds)
            lines += [f"wrote {file}" for file in (gif, strip, plot) if file is not None]
        print("\n".join(lines))
        print(", ".join(f"{key} {value}" for key, value in settings.items()))
    processes.wait()
