"""amgen sample."""

import time
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
    Raw,
    Run,
    Seed,
    Solver,
    Steps,
    Tolerance,
    positive,
    resolve,
)


def sample(
    run: Run,
    num: Annotated[int, typer.Option(help="Images to draw.")] = 64,
    solver: Solver = None,
    steps: Steps = None,
    tolerance: Tolerance = None,
    seed: Seed = 0,
    label: Label = None,
    guidance: Guidance = None,
    condition_data: ConditionData = None,
    batch_size: BatchSize = None,
    ema: Ema = None,
    raw: Raw = False,
    out: Annotated[Path | None, typer.Option(help="Folder for 000000.png ... or images.npz.", show_default=False)] = None,
    form: Annotated[str, typer.Option("--format", help="png: a file an image; npz: one array `images`, uint8 (N, H, W, C).")] = "png",
    grid: Annotated[
        Path | None,
        typer.Option(help="File for a grid of all images. Default, without --out: samples.png.", show_default=False),
    ] = None,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Generate images from a trained model."""
    from amgen import config
    from amgen.output import ImageWriter
    from amgen.processes import require_single
    from amgen.sampling import Request, describe_solver, effective_sample_size, generate_all, load, start_images

    require_single("amgen sample")
    positive("--num", num)
    changes = {"solver": solver, "steps": steps, "tolerance": tolerance, "batch_size": batch_size, "guidance": guidance}
    config.change(config.SamplingConfig(), changes)  # before anything slow
    model = load(run, ema, raw, device)
    options = resolve(model, changes)
    if out is None and grid is None:
        grid = Path("samples.png")
    images = start_images(model, condition_data)
    start = None if images is None else images.source.description
    settings = {**model.describe(), **describe_solver(options), "seed": seed, "label": label, "start": start}
    if options.guidance != 1:
        settings["guidance"] = options.guidance
    writer = ImageWriter(out, form, grid, settings)

    clock, evaluations, log_weights = time.perf_counter(), [], []
    for batch in generate_all(model, options, range(num), Request(seed, label, options.guidance, images)):
        writer.write(batch)
        evaluations.append(batch.evaluations)
        log_weights.extend([] if batch.log_weights is None else batch.log_weights.tolist())
    seconds = time.perf_counter() - clock
    for line in writer.close():
        print(f"wrote {line}")
    print(
        f"{num} images in {seconds:.1f} s, {num / seconds:,.1f} images/s, NFE {max(evaluations)} "
        f"({', '.join(f'{key} {value}' for key, value in settings.items() if value is not None)})"
    )
    if log_weights:
        print(f"effective sample size {effective_sample_size(log_weights):,.1f} of {num} weighted images")
