"""amgen eval-fid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    FEWER,
    ConditionData,
    FeatureOptions,
    Json,
    Label,
    PreparationOptions,
    Run,
    RuntimeOptions,
    SamplerOptions,
    Seed,
    WeightsOptions,
    check_outputs,
    check_positive,
    grouped,
)

if TYPE_CHECKING:
    from amgen.config import SamplingConfig
    from amgen.core.processes import Processes
    from amgen.evaluation.evaluator import Evaluator
    from amgen.evaluation.report import Evaluation
    from amgen.sampling import Model, Request


@dataclass(frozen=True)
class ScoreOptions:
    """The metrics and the number of images."""

    num: Annotated[
        int | None,
        typer.Option(
            "--num", "-n", help="Number of images to generate. Default: as many as real ones, at most 10,000.", show_default=False
        ),
    ] = None
    metrics: Annotated[str, typer.Option(help="Some of fid,kid,is,prc,nearest (prc: precision and recall), or all.")] = "fid"
    kid_subsets: Annotated[int, typer.Option(help="Random subsets that KID is averaged over.")] = 100
    kid_subset_size: Annotated[int, typer.Option(help="Images in each random subset.")] = 1_000

    def check(self, real: int | None) -> None:
        """Refuse metrics that do not exist, and numbers of images that are too small for them."""
        from amgen.evaluation import arguments

        check_positive({"--num": self.num, "--kid-subsets": self.kid_subsets, "--kid-subset-size": self.kid_subset_size})
        wanted = () if self.metrics == "all" else arguments.parse_metrics(self.metrics)
        if self.num is not None:
            arguments.check_counts(wanted, self.num, real, self.kid_subset_size)


@dataclass(frozen=True)
class RealImageOptions:
    """The real images."""

    data: Annotated[
        str | None,
        typer.Option(help="Real images to compare with, or an .npz of their statistics. Default: the training images.", show_default=False),
    ] = None
    real: Annotated[int | None, typer.Option(help="Number of real images to take. Default: all.", show_default=False)] = None
    held_out: Annotated[
        str | None,
        typer.Option(help="Real images that the model was not trained on, for the metric nearest.", show_default=False),
    ] = None
    cache: Annotated[bool, typer.Option(help="Keep the features of real images in the user's cache folder or $AMGEN_CACHE.")] = True

    def check(self, preparation: PreparationOptions) -> None:
        """Refuse a preparation of images beside statistics, whose images are prepared already."""
        from amgen.evaluation import arguments

        check_positive({"--real": self.real})
        if self.data is not None and self.data.endswith(".npz") and self.held_out is None:
            arguments.check_unprepared(self.data, preparation.changes())


@dataclass(frozen=True)
class SweepOptions:
    """Settings and checkpoints that are evaluated in turn."""

    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=A,B", help="Evaluate every combination of sampling settings. Repeatable.", show_default=False),
    ] = None
    checkpoints: Annotated[
        str | None, typer.Option(help="Evaluate several checkpoints: all, or steps such as 100,200.", show_default=False)
    ] = None

    def combinations(self) -> list[dict[str, Any]]:
        """Return the settings of each evaluation of a checkpoint."""
        from amgen.evaluation import arguments

        return arguments.parse_sweep(self.sweep or [])


@dataclass(frozen=True)
class ReportOptions:
    """The files that are written."""

    json_file: Json = None
    csv_file: Annotated[Path | None, typer.Option("--csv", help="File for a table of all evaluations.", show_default=False)] = None
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Plot of the first score over the NFE or the images trained on (needs matplotlib: pip install 'amgen\\[plots]').",
            show_default=False,
        ),
    ] = None
    neighbours: Annotated[
        Path | None,
        typer.Option(help="Grid of generated images above the training images nearest to them (metric nearest).", show_default=False),
    ] = None

    def check(self) -> None:
        """Refuse names of files that do not exist."""
        from amgen.core import checks

        checks.check_plot("--plot", self.plot)
        checks.check_image_file("--neighbours", self.neighbours)

    def check_places(self) -> None:
        """Refuse files that cannot be written."""
        check_outputs({"--json": self.json_file, "--csv": self.csv_file, "--plot": self.plot, "--neighbours": self.neighbours})


@grouped
def eval_fid(
    run: Run,
    *,
    scores: ScoreOptions,
    features: FeatureOptions,
    real: RealImageOptions,
    sweep: SweepOptions,
    reports: ReportOptions,
    seed: Seed = 0,
    label: Label = None,
    condition_data: ConditionData = None,
    sampler: SamplerOptions,
    preparation: PreparationOptions,
    weights: WeightsOptions,
    runtime: RuntimeOptions,
) -> None:
    """Score a trained model: distances of generated from real images, with their errors, beside that of real from real.

    Under torchrun the processes share the work.
    """
    from amgen.core import checks

    # Options are checked before torch is loaded, which takes seconds.
    combinations = sweep.combinations()
    sampler.check(combinations)
    preparation.check()
    real.check(preparation)
    features.check()
    scores.check(real.real)
    reports.check()
    checks.check_run(run)
    reports.check_places()

    from amgen.core.processes import Processes
    from amgen.evaluation import sweep as sweeps
    from amgen.evaluation.neighbours import check_neighbours
    from amgen.model.classes import find_label
    from amgen.sampling import Request, initial_state, start_images

    processes = Processes.join(runtime.device)
    folders = sweeps.select_checkpoints(run, sweep.checkpoints)
    model, changes = weights.load(folders[-1], processes.device), sampler.changes()
    sampler.check(combinations, model)
    options = [model.options({**changes, **combination}) for combination in combinations]
    images = start_images(model, condition_data, print if processes.main else None, preparation.changes())
    request = Request(seed, find_label(model.config, label), images)
    initial_state(model, options[0], [0], request)  # refuses what does not fit the model
    evaluator = _evaluator(model, scores, features, real, preparation, request.label, options[0].batch_size, processes)
    if reports.neighbours is not None:
        check_neighbours(reports.neighbours, evaluator.metric_options.metrics, evaluator.reference)
    evaluations, settings = sweeps.evaluate_all(evaluator, folders, combinations, changes, scores.num, request, (weights.ema, weights.raw))
    if processes.main:
        _report(evaluations, settings, reports, evaluator, model, options[-1], request)


def _evaluator(
    model: "Model",
    scores: ScoreOptions,
    features: FeatureOptions,
    real: RealImageOptions,
    preparation: PreparationOptions,
    label: int | None,
    batch_size: int | str,
    processes: "Processes",
) -> "Evaluator":
    """Open the real images, extract their features, and return an evaluator that compares models with them."""
    from amgen import config
    from amgen.dynamics import Unbalanced
    from amgen.evaluation.evaluator import Evaluator
    from amgen.evaluation.metric_options import MetricOptions, select_metrics
    from amgen.evaluation.reference import open_reference
    from amgen.model.classes import class_names

    channels, size, _ = model.config.image_shape
    extractor = features.extractor(channels, size, model.device)
    prepared = config.change(model.config.images, preparation.changes())
    shared: dict[str, Any] = {
        "cache": real.cache,
        "label": label,
        "classes": model.config.action.classes,
        "class_names": class_names(model.config),
        "say": print,
        **({} if batch_size == "auto" else {"batch_size": batch_size}),
    }
    reference = open_reference(real.data, prepared, extractor, processes, real.real, advice=FEWER, **shared)
    held_out = None if real.held_out is None else open_reference(real.held_out, prepared, extractor, processes, **shared)
    metrics = select_metrics(scores.metrics, extractor, reference, isinstance(model.dynamics, Unbalanced))
    options = MetricOptions(metrics, scores.kid_subsets, scores.kid_subset_size)
    return Evaluator(extractor, reference, options, processes, held_out)


def _report(
    evaluations: "list[Evaluation]",
    settings: Sequence[Mapping[str, Any]],
    reports: ReportOptions,
    evaluator: "Evaluator",
    model: "Model",
    options: "SamplingConfig",
    request: "Request",
) -> None:
    """Write the files, and print the scores even if a file cannot be written.

    Args:
        evaluations: the evaluations.
        settings: the settings that distinguish each of them.
        reports: the files.
        evaluator: the evaluator that made the evaluations.
        model: the last model that was evaluated.
        options: its sampling settings in the last evaluation.
        request: the request that was generated.
    """
    from amgen.evaluation import sweep as sweeps
    from amgen.evaluation.neighbours import save_neighbours
    from amgen.evaluation.report import save_report, table

    rows = table(evaluations, settings)
    try:
        print(save_report(evaluations, model.run / "eval", reports.json_file))
        if reports.csv_file is not None:
            sweeps.write_csv(reports.csv_file, rows)
            print(f"wrote {reports.csv_file}")
        if reports.plot is not None:
            sweeps.save_plot(reports.plot, evaluations, settings)
            print(f"wrote {reports.plot}")
        if reports.neighbours is not None:
            save_neighbours(reports.neighbours, model, options, request, evaluations[-1], evaluator.reference)
            print(f"wrote {reports.neighbours}")
    finally:
        if len(evaluations) > 1:
            sweeps.print_table(rows, evaluator.extractor.suffix)
        else:
            print("\n".join(evaluations[0].lines()))
