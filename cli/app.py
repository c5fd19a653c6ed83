"""Entry point: the Typer application and the one place where errors become a line and an exit code."""

import os
import sys
from collections.abc import Sequence

import typer

from . import encode, eval_bpd, eval_fid, export, reference_stats, report, sample, train
from .options import debug_requested

app = typer.Typer(
    name="amgen",
    help="Train image generators by Action Matching, sample from them and score them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("train")(train.train)
app.command("sample")(sample.sample)
app.command("encode")(encode.encode)
app.command("eval-fid")(eval_fid.eval_fid)
app.command("eval-bpd")(eval_bpd.eval_bpd)
app.command("reference-stats")(reference_stats.reference_stats)
app.command("report")(report.report)
app.command("export")(export.export)


@app.callback(invoke_without_command=True)
def root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    """Train image generators by Action Matching, sample from them and score them."""
    if version:
        from amgen import __version__

        print(__version__)
        raise typer.Exit()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Exit codes: 0 done, 1 the computation failed, 2 a mistake in the input, 75 stopped by a signal and saved, 76 another process of the run
    is lost, 130 interrupted at once.
    """
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def _leave() -> None:
    """Part from the other processes of a torchrun; torch is not loaded for it."""
    if "torch" in sys.modules:
        from amgen.processes import leave

        leave()


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code."""
    from amgen.errors import AmgenError

    command = typer.main.get_command(app)
    try:
        code = int(command.main(args=list(arguments), prog_name="amgen", standalone_mode=False) or 0)
        _leave()
        return code
    except AmgenError as error:
        if debug_requested():
            raise
        if not (error.collective and os.environ.get("RANK", "0") != "0"):
            print(f"amgen: {error}", file=sys.stderr)
        if error.collective:  # all processes end alike
            _leave()
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("amgen: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        # Typer's own usage errors; their class moved between releases, what they can do did not.
        if not hasattr(error, "format_message"):
            raise
        print(f"amgen: {error.format_message()} (see amgen --help)", file=sys.stderr)
        return 2
