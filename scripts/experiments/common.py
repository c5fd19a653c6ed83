"""What the scripts share: options, tables in Markdown with the conditions below them, reports, figures, means with their errors.

A script prints its progress on stderr and its tables on stdout, so that `python scripts/experiments/cells.py ... > table.md` keeps the
tables.
"""

import argparse
import functools
import inspect
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
import torch
from rich.console import Console

from amgen.core.checks import check_plot
from amgen.core.errors import AmgenError
from amgen.core.files import check_output, make_folder, write_json
from amgen.visualization import plots

if TYPE_CHECKING:
    from amgen import sampling
    from amgen.config import Config

ROOT = Path(__file__).resolve().parents[2]
LINES = ("-", "--", ":", "-.", (0, (1, 3)), (0, (6, 2, 1, 2, 1, 2)))
MARKERS = ("o", "s", "^", "x", "D", "+")
"""Styles that can be told apart in gray."""

P = ParamSpec("P")


class Help(argparse.RawDescriptionHelpFormatter, argparse.MetavarTypeHelpFormatter):
    """Keeps the lines of the description, and gives every option a line with its type."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=36)


def new_parser(file: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser without options for the script `file`, whose docstring is the description."""
    return argparse.ArgumentParser(prog=_name(file), description=description, formatter_class=Help)


def add_outputs(parser: argparse.ArgumentParser, figure: bool = True) -> None:
    """Add the options --json and --figure."""
    parser.add_argument("--json", type=Path, help="file for the report")
    if figure:
        parser.add_argument("--figure", type=Path, help="file for the figure: .png, .pdf or .svg")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, and as `command` the command that gives them.

    Args:
        parser: a parser of `new_parser`.
        arguments: the command line after the script's name; None for that of the process.

    Raises:
        UserError: if --json or --figure cannot be written.
    """
    options = parser.parse_args(arguments)
    options.command = shlex.join(["python", parser.prog, *(sys.argv[1:] if arguments is None else arguments)])
    check_output("--json", getattr(options, "json", None))
    check_plot("--figure", getattr(options, "figure", None))
    check_output("--figure", getattr(options, "figure", None))
    return options


def script(main: Callable[P, None]) -> Callable[P, None]:
    """Let errors of amgen end a script, whose `main` this decorates, with one line on stderr and their exit code."""

    @functools.wraps(main)
    def wrapped(*arguments: P.args, **options: P.kwargs) -> None:
        try:
            main(*arguments, **options)
        except AmgenError as error:
            print(f"{_name(inspect.getfile(main))}: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None

    return wrapped


def progress(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print a table in Markdown, aligned so that it also reads well in a terminal.

    Args:
        columns: the headings.
        rows: the cells, as many in each row as there are columns; columns of numbers are aligned to the right, but for the first.
        title: a paragraph above the table.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(columns, *cells, strict=True)]
    right = [number > 0 and all(_is_number(row[number]) for row in cells) for number in range(len(columns))]
    rule = ["-" * (width - 1) + ":" if numbers else "-" * width for width, numbers in zip(widths, right, strict=True)]
    if title:
        print(f"\n{title}\n")
    for row in ([*columns], rule, *cells):
        aligned = (cell.rjust(width) if numbers else cell.ljust(width) for cell, width, numbers in zip(row, widths, right, strict=True))
        print(f"| {' | '.join(aligned)} |")


def print_conditions(options: argparse.Namespace, *conditions: str, device: str | torch.device = "cpu") -> None:
    """Print what the numbers above were measured with: the command, further conditions, the machine and the version of PyTorch.

    Args:
        options: what `parse` returned.
        conditions: such as "5,000 samples", "seeds 0 to 4".
        device: where it was computed.
    """
    print(f"\n`{options.command}`: {'; '.join([*conditions, describe_machine(device)])}", flush=True)


def describe_machine(device: str | torch.device = "cpu") -> str:
    """Return processor, number of cores, threads and version of PyTorch in words; first the GPU where one computes."""
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    gpu = f"{torch.cuda.get_device_name(device)}; " if torch.device(device).type == "cuda" else ""
    return f"{gpu}{processor()}, {counted(cores, 'core')}, {counted(threads, 'thread')}, PyTorch {torch.__version__}"


def processor() -> str:
    """Return the name of the processor, as `lscpu` gives it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def counted(number: int, what: str) -> str:
    """Return a number of things in words: `1 round`, `5,000 samples`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Return which seeds were used, in words."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    successive = list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"seeds {seeds[0]} to {seeds[-1]}" if successive else f"seeds {', '.join(map(str, seeds))}"


def train_and_load(settings: "Config", run: Path) -> "sampling.Model":
    """Train a run unless it is complete, or go on with it, reporting on stderr; return its model."""
    from amgen import sampling  # here, since imports take seconds that most scripts need not wait for
    from amgen.training.main import train

    train(settings, run, console=Console(stderr=True))
    return sampling.load(run)


def seconds(work: Callable[[], object]) -> float:
    """Return how long some work takes, seconds."""
    start = time.perf_counter()
    work()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - start


def mean_and_error(values: Any) -> tuple[float, float]:
    """Return the mean and its standard error, which needs two values and is NaN for one."""
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1) / len(array) ** 0.5) if len(array) > 1 else float("nan")


def with_error(value: float, error: float | None, form: str = ".4g", error_form: str = ".2g") -> str:
    """Return a number with its standard error, where that is known and finite: `0.38 ± 0.01`."""
    known = error is not None and np.isfinite(error)
    return f"{value:{form}}" + (f" ± {error:{error_form}}" if known else "")


def new_figure(rows: int, columns: int, width: float = 3.2, height: float = 3.0) -> tuple[Any, np.ndarray]:
    """Return a figure of matplotlib and its axes (rows, columns), `width` by `height` inches each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, np.asarray(figure.subplots(rows, columns, squeeze=False))


def save_figure(figure: Any, file: Path) -> None:
    """Write a figure and say so."""
    plots.save_figure(file, figure)
    progress(f"wrote {file}")


def save_report(report: dict[str, Any], file: Path) -> None:
    """Write a report as JSON and say so."""
    make_folder(file.parent)
    write_json(file, report)
    progress(f"wrote {file}")


def _name(file: str) -> str:
    """Return the path of a script within the repository."""
    return Path(file).resolve().relative_to(ROOT).as_posix()


def _is_number(cell: str) -> bool:
    return cell == "" or cell.lstrip("*~+-−")[:1].isdigit()
