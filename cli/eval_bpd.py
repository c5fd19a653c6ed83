"""amgen eval-bpd."""

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    BatchSize,
    Convert,
    Debug,
    Device,
    Ema,
    Raw,
    Resize,
    Rho,
    Run,
    Seed,
    Solver,
    StepGrid,
    Steps,
    number_or_word,
    positive,
)

DEFAULT_TOLERANCE = 1e-5


def eval_bpd(
    run: Run,
    num: Annotated[
        int | None,
        typer.Option(
            "--num",
            "-n",
            help="Images to measure, drawn from the data by the seed. Default: all, at most 1,000. (Under torchrun write -n.)",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Images to measure, such as a test set. Default: the training images.", show_default=False),
    ] = None,
    resize: Resize = None,
    convert: Convert = None,
    probes: Annotated[
        int | None, typer.Option(help="Random signs for each image that estimate the divergence. Default: 4.", show_default=False)
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compute the divergence exactly, one product for each dimension: for small images.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for the report. Default: in the run's eval/.", show_default=False)
    ] = None,
    solver: Solver = "dopri5",
    steps: Steps = None,
    step_grid: StepGrid = None,
    rho: Rho = None,
    tolerance: Annotated[
        float | None, typer.Option(help=f"Tolerance of an adaptive solver. Default: {DEFAULT_TOLERANCE:g}.", show_default=False)
    ] = None,
    seed: Seed = 0,
    batch_size: BatchSize = None,
    ema: Ema = None,
    raw: Raw = False,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Measure the likelihood that a model gives to images, in bits per dimension. Under torchrun the processes share the work."""
    from amgen import config
    from amgen.core import checks
    from amgen.core.errors import UserError
    from amgen.core.files import check_output
    from amgen.evaluation import arguments

    # Everything that can be wrong is looked at before anything slow is done, and before torch is loaded, which takes seconds.
    for option, count in (("--num", num), ("--probes", probes)):
        if count is not None:
            positive(option, count)
    if exact and probes is not None:
        raise UserError(f"--exact needs no --probes {probes}: leave one out")
    changes = {
        "solver": solver,
        "steps": steps,
        "step_grid": step_grid,
        "rho": rho,
        "tolerance": tolerance,
        "batch_size": number_or_word(batch_size),
    }
    arguments.check_settings(changes)
    preparation = {"path": data, "resize": resize, "convert": convert}
    config.change(config.DataConfig(), preparation)
    checks.check_run(run)
    check_output("--json", json_file)

    from amgen.core.processes import Processes
    from amgen.evaluation.likelihood import DEFAULT_PROBES, evaluate, ode_options
    from amgen.evaluation.report import save_report
    from amgen.sampling import load

    processes = Processes.join(device)
    model = load(run, ema, raw, processes.device)
    options = ode_options(model, {**changes, "tolerance": tolerance or DEFAULT_TOLERANCE})
    arguments.check_settings(changes, run=model.config.sampling)
    report = evaluate(model, options, num, seed, 0 if exact else probes or DEFAULT_PROBES, preparation, processes)
    if processes.main:
        try:
            print(save_report([report], model.run / "eval", json_file))
        finally:  # the scores are printed even if the file cannot be written
            print("\n".join(report.lines()))
    processes.wait()
