"""amgen eval-bpd."""

from typing import Annotated

import typer

from .options import (
    AccurateSolverOptions,
    Json,
    PreparationOptions,
    Run,
    RuntimeOptions,
    Seed,
    WeightsOptions,
    check_outputs,
    check_positive,
    grouped,
)


@grouped
def eval_bpd(
    run: Run,
    *,
    num: Annotated[
        int | None,
        typer.Option(
            "--num",
            "-n",
            help="Number of images to measure, chosen by the seed. Default: all, at most 1,000. (Under torchrun write -n.)",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Images to measure, such as a test set. Default: the training images.", show_default=False),
    ] = None,
    probes: Annotated[
        int | None, typer.Option(help="Random signs for each image that estimate the divergence. Default: 4.", show_default=False)
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compute the divergence exactly, one product for each dimension: for small images.")
    ] = False,
    json_file: Json = None,
    seed: Seed = 0,
    solver: AccurateSolverOptions,
    preparation: PreparationOptions,
    weights: WeightsOptions,
    runtime: RuntimeOptions,
) -> None:
    """Measure the likelihood that a model gives to images, in bits per dimension. Under torchrun the processes share the work."""
    from amgen.core import checks
    from amgen.core.errors import UserError

    # Options are checked before torch is loaded, which takes seconds.
    check_positive({"--num": num, "--probes": probes})
    if exact and probes is not None:
        raise UserError(f"--exact needs no --probes {probes}: leave one out")
    solver.check()
    preparation.check()
    checks.check_run(run)
    check_outputs({"--json": json_file})

    from amgen.core.processes import Processes
    from amgen.evaluation.likelihood import DEFAULT_PROBES, evaluate, ode_options
    from amgen.evaluation.report import save_report

    processes = Processes.join(runtime.device)
    model = weights.load(run, processes.device)
    options = ode_options(model, solver.changes())
    solver.check(model=model)
    images = {"path": data, **preparation.changes()}
    report = evaluate(model, options, num, seed, 0 if exact else probes or DEFAULT_PROBES, images, processes)
    if processes.main:
        try:
            print(save_report([report], model.run / "eval", json_file))
        finally:  # the result is printed even if no file can be written
            print("\n".join(report.lines()))
    processes.wait()
