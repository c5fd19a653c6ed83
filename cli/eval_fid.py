"""amgen eval-fid."""

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
    positive,
)


def eval_fid(
    run: Run,
    num: Annotated[
        int | None, typer.Option(help="Images to generate. Default: as many as real ones, at most 10,000.", show_default=False)
    ] = None,
    features: Annotated[str, typer.Option(help="inception (FID), efficientnet-lite0, digits or pixels.")] = "inception",
    weights: Annotated[
        Path | None, typer.Option(help="File with the weights of the features, where they are not installed.", show_default=False)
    ] = None,
    data: Annotated[str | None, typer.Option(help="Real images to compare with. Default: the training images.", show_default=False)] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for the report. Default: in the run's eval/.", show_default=False)
    ] = None,
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
    batch_size: BatchSize = None,
    ema: Ema = None,
    raw: Raw = False,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Score a trained model: the Fréchet distance of generated from real images, beside that of real from real."""
    from amgen import config
    from amgen.evaluation.fid import evaluate
    from amgen.files import make_folder, write_json
    from amgen.processes import require_single
    from amgen.sampling import Request, load, start_images

    require_single("amgen eval-fid")
    if num is not None:
        positive("--num", num)
    changes = {
        "solver": solver,
        "steps": steps,
        "step_grid": step_grid,
        "rho": rho,
        "tolerance": tolerance,
        "batch_size": batch_size,
        "guidance": guidance,
        "noise_level": noise_level,
    }
    config.change(config.SamplingConfig(), changes)  # before anything slow
    model = load(run, ema, raw, device)
    options = model.options(changes)
    request = Request(seed, label, options.guidance, start_images(model, condition_data), options.noise_level)
    report = evaluate(model, options, features, num, request, weights, data)
    file = json_file or model.run / "eval" / f"{features}-{model.images:09d}.json"
    make_folder(file.parent)
    write_json(file, report.to_dict())
    print(f"wrote {file}")
    print("\n".join(report.lines()))
