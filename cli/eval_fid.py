"""amgen eval-fid."""

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    FEWER,
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
    positive,
)


def eval_fid(
    run: Run,
    num: Annotated[
        int | None,
        typer.Option("--num", "-n", help="Images to generate. Default: as many as real ones, at most 10,000.", show_default=False),
    ] = None,
    features: Annotated[
        str, typer.Option(help="inception (FID), efficientnet-lite0, digits, pixels, or a function of your own as module:callable.")
    ] = "inception",
    weights: Annotated[
        Path | None, typer.Option(help="File with the weights of the features, where they are not installed.", show_default=False)
    ] = None,
    metrics: Annotated[str, typer.Option(help="Some of fid,kid,is,prc,nearest (prc: precision and recall), or all.")] = "fid",
    kid_subsets: Annotated[int, typer.Option(help="Random subsets that KID is averaged over.")] = 100,
    kid_subset_size: Annotated[int, typer.Option(help="Images in each of them.")] = 1_000,
    data: Annotated[
        str | None,
        typer.Option(help="Real images to compare with, or an .npz of their statistics. Default: the training images.", show_default=False),
    ] = None,
    real: Annotated[int | None, typer.Option(help="How many of the real images to take. Default: all.", show_default=False)] = None,
    resize: Resize = None,
    convert: Convert = None,
    held_out: Annotated[
        str | None,
        typer.Option(help="Real images that the model was not trained on, for the metric nearest.", show_default=False),
    ] = None,
    cache: Annotated[bool, typer.Option(help="Keep the features of real images in the user's cache folder or $AMGEN_CACHE.")] = True,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for the report. Default: in the run's eval/.", show_default=False)
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=A,B", help="Evaluate every combination of sampling settings; may be repeated.", show_default=False),
    ] = None,
    checkpoints: Annotated[
        str | None, typer.Option(help="Evaluate several checkpoints: all, or steps such as 100,200.", show_default=False)
    ] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="File for a table of all evaluations.", show_default=False)] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Plot of the first figure over the NFE or the images trained on (needs matplotlib: pip install 'amgen\\[plots]').",
            show_default=False,
        ),
    ] = None,
    neighbours: Annotated[
        Path | None,
        typer.Option(help="Picture of generated images above the training images nearest to them (metric nearest).", show_default=False),
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
    """Score a trained model: distances of generated from real images, with their errors, beside that of real from real.

    Under torchrun the processes share the work.
    """
    from amgen import config
    from amgen.core import checks
    from amgen.core.files import check_output
    from amgen.evaluation import arguments

    # Everything that can be wrong is looked at before anything slow is done, and before torch is loaded, which takes seconds.
    for option, value in {"--num": num, "--kid-subsets": kid_subsets, "--kid-subset-size": kid_subset_size, "--real": real}.items():
        if value is not None:
            positive(option, value)
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
    combinations = arguments.parse_sweep(sweep or [])
    arguments.check_settings(changes, combinations)
    preparation = {"resize": resize, "convert": convert}
    config.change(config.DataConfig(), preparation)
    if data is not None and data.endswith(".npz") and held_out is None:
        arguments.check_unprepared(data, preparation)
    arguments.check_features(features)
    wanted = () if metrics == "all" else arguments.parse_metrics(metrics)
    if num is not None:
        arguments.check_counts(wanted, num, real, kid_subset_size)
    checks.check_plot("--plot", plot)
    checks.check_picture("--neighbours", neighbours)
    checks.check_run(run)
    for option, file in {"--json": json_file, "--csv": csv_file, "--plot": plot, "--neighbours": neighbours}.items():
        check_output(option, file)

    from amgen.core.processes import Processes
    from amgen.dynamics import Unbalanced
    from amgen.evaluation import sweep as sweeps
    from amgen.evaluation.evaluator import Evaluator
    from amgen.evaluation.features import make_extractor
    from amgen.evaluation.metric_options import MetricOptions, select_metrics
    from amgen.evaluation.neighbours import check_neighbours, save_neighbours
    from amgen.evaluation.reference import open_reference
    from amgen.evaluation.report import save_report, table
    from amgen.model.classes import class_names, find_label
    from amgen.sampling import Request, load, prepare, start_images

    processes = Processes.join(device)
    folders = sweeps.select_checkpoints(run, checkpoints)
    model = load(folders[-1], ema, raw, processes.device)
    options = model.options(changes)
    arguments.check_settings(changes, combinations, model.config.sampling)
    for combination in combinations:
        model.options({**changes, **combination})
    number = find_label(model.config, label)
    request = Request(seed, number, images=start_images(model, condition_data, print if processes.main else None, preparation))
    prepare(model, [0], request)  # which refuses what does not fit the model
    channels, size, _ = model.config.image_shape
    extractor = make_extractor(features, channels, size, weights, model.device)
    together = {} if options.batch_size == "auto" else {"batch_size": options.batch_size}
    prepared, classes = config.change(model.config.images, preparation), model.config.action.classes
    opened = [
        open_reference(
            path,
            prepared,
            extractor,
            processes,
            count,
            cache=cache,
            label=number,
            classes=classes,
            advice=advice,
            class_names=class_names(model.config),
            say=print,
            **together,
        )
        for path, count, advice in [(data, real, FEWER)] + ([(held_out, None, "")] if held_out is not None else [])
    ]
    metric_options = MetricOptions(
        select_metrics(metrics, extractor, opened[0], isinstance(model.dynamics, Unbalanced)), kid_subsets, kid_subset_size
    )
    if neighbours is not None:
        check_neighbours(neighbours, metric_options.metrics, opened[0])
    evaluator = Evaluator(extractor, opened[0], metric_options, processes, *opened[1:])
    evaluations, settings = sweeps.evaluate_all(evaluator, folders, combinations, changes, num, request, (ema, raw))
    if not processes.main:
        return
    rows = table(evaluations, settings)
    try:
        print(save_report(evaluations, model.run / "eval", json_file))
        if csv_file is not None:
            sweeps.write_csv(csv_file, rows)
            print(f"wrote {csv_file}")
        if plot is not None:
            sweeps.save_plot(plot, evaluations, settings)
            print(f"wrote {plot}")
        if neighbours is not None:
            last = model.options({**changes, **combinations[-1]})
            save_neighbours(neighbours, model, last, sweeps.request_of(request, last), evaluations[-1], opened[0])
            print(f"wrote {neighbours}")
    finally:  # the scores are printed even if a file cannot be written
        if len(evaluations) > 1:
            sweeps.print_table(rows, extractor.suffix)
        else:
            print("\n".join(evaluations[0].lines()))
