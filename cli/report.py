"""amgen report."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Debug


def report(
    run: Annotated[Path, typer.Argument(help="Run directory.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write. Default: report.html in the run directory.", show_default=False)
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a run's curves, samples, evaluations and options on one HTML page, which needs no other file and no network."""
    from amgen.core.files import check_output, write_text
    from amgen.reporting import check_run

    check_run(run)
    file = out or run / "report.html"
    check_output("--out", file)

    from amgen.core.processes import require_single
    from amgen.reporting.collect import Environment, collect
    from amgen.reporting.page import render

    require_single("amgen report")
    write_text(file, render(collect(run), Environment.here()))
    print(f"wrote {file} ({file.stat().st_size / 1000:,.0f} kB)")
