"""Evaluations of one run with several settings or at several checkpoints: a table and a plot."""

import csv
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from amgen import sampling
from amgen.core.errors import UserError
from amgen.core.files import replacing, write_text
from amgen.evaluation.evaluator import Evaluator
from amgen.evaluation.report import Evaluation
from amgen.model import checkpoints
from amgen.sampling import Request
from amgen.visualization.plots import new_figure


def select_checkpoints(run: Path, text: str | None) -> list[Path]:
    """Return the checkpoints that `--checkpoints` names.

    Args:
        run: a run directory, a checkpoint or a file of weights.
        text: "all", or steps such as "100,200"; None for the checkpoint that `run` itself means, the last one of a run directory.

    Raises:
        UserError: if one does not exist, or `run` is not a run directory.
    """
    if text is None:
        return [run if run.is_file() else checkpoints.find(run)]
    existing = {checkpoints.step_of(path): path for path in checkpoints.all_checkpoints(run)}
    if not existing:
        raise UserError(f"--checkpoints {text}: {run} is not a run directory with checkpoints")
    if text == "all":
        return list(existing.values())
    steps = [part.strip() for part in text.split(",")]
    missing = [step for step in steps if not step.isdigit() or int(step) not in existing]
    if missing:
        raise UserError(
            f"--checkpoints: {run} has no checkpoint of step {missing[0]}: choose all, or some of {', '.join(map(str, existing))}"
        )
    return [existing[int(step)] for step in steps]


def evaluate_all(
    evaluator: Evaluator,
    folders: Sequence[Path],
    combinations: Sequence[Mapping[str, Any]],
    changes: Mapping[str, Any],
    num: int | None,
    request: Request,
    weights: tuple[float | None, bool],
    say: Callable[[str], None] = print,
) -> tuple[list[Evaluation], list[dict[str, Any]]]:
    """Evaluate every checkpoint with every combination of settings.

    Args:
        evaluator: the evaluator.
        folders: the checkpoints.
        combinations: combinations of settings, as `parse_sweep` returns them.
        changes: settings of all evaluations that differ from the run's.
        num: number of images to generate for each evaluation; None for the default of the evaluator.
        request: what to generate.
        weights: rate of the averaged weights (None for the first rate), and whether to use the raw weights instead.
        say: called with a line after each of several evaluations, on the main process.

    Returns:
        The evaluations, and for each the settings that distinguish it.
    """
    evaluations: list[Evaluation] = []
    distinctions: list[dict[str, Any]] = []
    total = len(folders) * len(combinations)
    for folder in folders:
        model = sampling.load(folder, *weights, device=evaluator.processes.device)
        for options, settings in [(model.options({**changes, **settings}), settings) for settings in combinations]:
            evaluations.append(evaluator(model, options, num, request))
            distinctions.append({**({"checkpoint": model.source.name} if len(folders) > 1 else {}), **settings})
            if total > 1 and evaluator.processes.main:
                what = ", ".join(f"{key} {value}" for key, value in distinctions[-1].items())
                say(f"{len(evaluations)}/{total}  {what}  NFE {evaluations[-1].sampling['NFE']}  {evaluations[-1].principal.line()}")
    return evaluations, distinctions


def write_csv(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV. Rows may have different columns."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(file, text.getvalue())


def print_table(rows: Sequence[Mapping[str, Any]], features: str) -> None:
    """Print rows as a table. A star marks the rows of the Pareto front; see `amgen.evaluation.report.table`.

    Args:
        rows: the rows.
        features: the end that the names of scores have in common, which becomes the title of the table.
    """
    from rich.console import Console
    from rich.table import Table

    hidden = {"pareto"} if len({row["images_trained"] for row in rows}) > 1 else {"pareto", "images_trained"}
    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in hidden and not key.endswith("standard error")]
    table = Table(*(column.replace(features, "") if features else column for column in columns), "", title=features.strip() or None)
    for row in rows:
        table.add_row(*(_cell(row, column) for column in columns), "*" if row["pareto"] else "")
    Console(soft_wrap=True).print(table)


def save_plot(file: Path, evaluations: Sequence[Evaluation], settings: Sequence[Mapping[str, Any]]) -> None:
    """Plot the principal score with its standard error over the NFE, or over the images of training if several checkpoints differ in them.

    Args:
        file: the image file; its ending chooses the format.
        evaluations: the evaluations.
        settings: for each evaluation, the settings that distinguish it. They name the lines.
    """
    trained = len({evaluation.model["images_trained"] for evaluation in evaluations}) > 1
    figure, axes = new_figure(6, 4)
    for (name, places), marker in zip(_lines(settings, trained).items(), itertools.cycle("os^Dvx"), strict=False):
        part = [evaluations[place] for place in places]
        x = [evaluation.model["images_trained"] if trained else evaluation.sampling["NFE"] for evaluation in part]
        y = [evaluation.principal.value for evaluation in part]
        errors = [evaluation.principal.standard_error or 0.0 for evaluation in part]
        order = sorted(range(len(x)), key=x.__getitem__)
        axes.errorbar(
            *([values[place] for place in order] for values in (x, y, errors)), marker=marker, markersize=5, capsize=2, label=name
        )
    axes.set(xlabel="images trained on" if trained else "gradient evaluations per image (NFE)", ylabel=evaluations[0].principal.name)
    if not trained:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(frameon=False)
    with replacing(file) as temporary:
        figure.savefig(temporary, dpi=150, format=file.suffix.removeprefix(".").lower())


def _lines(settings: Sequence[Mapping[str, Any]], trained: bool) -> dict[str, list[int]]:
    """Return the lines of a plot: label, and indices of its settings. Settings that differ in steps or tolerance only are one line."""
    found: dict[str, list[int]] = {}
    for place, setting in enumerate(settings):
        kept = {key: value for key, value in setting.items() if trained or key not in ("steps", "tolerance", "checkpoint")}
        kept.pop("checkpoint", None)
        found.setdefault(", ".join(str(value) if key == "solver" else f"{key} {value}" for key, value in kept.items()), []).append(place)
    return found


def _cell(row: Mapping[str, Any], column: str) -> str:
    value, error = row.get(column, ""), row.get(f"{column} standard error")
    text = f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    return text if error is None else f"{text} +- {error:.2g}"
