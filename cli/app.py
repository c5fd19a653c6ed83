"""Entry point: the Typer application, and the one place where an error becomes a line and an exit code."""

import os
import sys
import time
from collections.abc import Sequence

import typer

from . import cells, encode, eval_bpd, eval_fid, export, reference_stats, report, sample, schema, terminal, train
from .options import debug_requested

app = typer.Typer(
    name="amgen",
    help="Train image generators by Action Matching, sample from them and score them.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command("train")(train.train)
app.command("sample")(sample.sample)
app.command("encode")(encode.encode)
app.command("eval-fid")(eval_fid.eval_fid)
app.command("eval-bpd")(eval_bpd.eval_bpd)
app.command("reference-stats")(reference_stats.reference_stats)
app.command("report")(report.report)
app.command("export")(export.export)
app.add_typer(cells.cells, name="cells", no_args_is_help=True)
app.command("presets")(schema.presets)
app.command("config")(schema.config)

PATIENCE = 5.0
"""Seconds that a process waits before it prints an error that the first process may print as well."""


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

    Exit codes: 0 done, 1 the computation failed, 2 a mistake in the input or the environment, 75 stopped by a signal and saved, 76 another
    process of the command is lost, 130 interrupted at once, 141 done, but nobody read the output to its end.
    """
    from amgen.core.errors import UserError

    try:
        terminal.prepare()
    except UserError as error:
        terminal.complain(str(error))
        sys.exit(error.exit_code)
    code = run(sys.argv[1:] if arguments is None else arguments)
    lost = terminal.finish()
    sys.exit(code or lost)


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code."""
    from amgen.core.errors import AmgenError, PeerLost
    from amgen.core.launch import world_size

    command = typer.main.get_command(app)
    try:
        world_size()
        # Not `command.main`, which takes an end of file for an interrupt and ends with code 1 or 130 without a word.
        with command.make_context("amgen", list(arguments) or ["--help"]) as context:
            command.invoke(context)
        _leave()
        return 0
    except typer.Exit as end:
        return end.exit_code
    except AmgenError as error:
        if debug_requested():
            raise
        _report(str(error), collective=error.collective, certain=isinstance(error, PeerLost))
        if error.collective:  # all processes end alike
            _leave(quietly=True)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        terminal.complain("interrupted")
        return 130
    except Exception as error:
        found = _explain(error)
        if found is None or debug_requested():
            raise
        message, code = found
        _report(message, certain=code == PeerLost.exit_code)
        return code


def _explain(error: Exception) -> tuple[str, int] | None:
    """Return a line and an exit code for an exception that a user can understand; None for a bug of amgen, whose traceback is needed."""
    from amgen.config.wording import first_error
    from amgen.core.errors import PeerLost, out_of_memory, short
    from amgen.core.launch import rank, world_size

    # Typer's own usage errors; their class moved between releases, their methods did not.
    if hasattr(error, "format_message"):
        path = getattr(getattr(error, "ctx", None), "command_path", "amgen")
        if (problem := first_error(error.__cause__)) and hasattr(error, "message"):
            error.message = problem
        return f"{' '.join(error.format_message().split())} (see {path} --help)", 2
    if isinstance(error, RuntimeError) and "torch" in sys.modules and world_size() > 1:
        from amgen.core.processes import lost, of_a_peer

        if of_a_peer(error):  # outside of the operations of `Processes`, such as before the processes have met
            return str(lost(error, world_size(), rank())), PeerLost.exit_code
    if out_of_memory(error):
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        return f"out of memory ({reason}): try a smaller --batch-size or -n, a smaller training.micro_batch, or another device", 1
    if isinstance(error, ImportError) and "but the source tree" in str(error):  # of the file beside the folders amgen and cli
        return str(error), 2
    if isinstance(error, RecursionError):
        return "out of depth: something in the input is nested too deeply (--debug shows where)", 2
    if isinstance(error, EOFError):
        return f"a file ends too early: it is empty or was cut off ({str(error) or 'end of file'}; --debug shows where)", 2
    if isinstance(error, OSError):
        names = " and ".join(
            short(os.fspath(name), 200) for name in (error.filename, error.filename2) if isinstance(name, str | os.PathLike)
        )
        return f"{names + ': ' if names else ''}{error.strerror or error}", 2
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return "there is no home folder, which caches and data sets are kept in: set HOME", 2
    return None


def _report(message: str, collective: bool = False, certain: bool = False) -> None:
    """Print an error once, although every process of a torchrun may have it.

    If one process fails, torchrun ends the others. So the first process prints at once. The others wait before they print: torchrun ends
    them in this time if the first one has failed as well.

    Args:
        message: what went wrong.
        collective: whether all processes have the error, so that the line of the first one is enough.
        certain: whether this process alone has the error.
    """
    from amgen.core.errors import UserError
    from amgen.core.launch import rank

    try:
        first = rank() == 0
    except UserError:
        first = True
    if not first and collective:
        return
    if not first and not certain:
        time.sleep(PATIENCE)
    terminal.complain(message)


def _leave(quietly: bool = False) -> None:
    """Leave the process group of a torchrun. Torch is not loaded for it."""
    from amgen.core.errors import PeerLost

    if "torch" in sys.modules:
        from amgen.core.processes import leave

        try:
            leave()
        except PeerLost:
            if not quietly:
                raise
