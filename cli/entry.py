"""Start of the `amgen` command: an interrupt is a line, not a traceback, from the first import on."""

import sys


def main() -> None:
    """Run the command line and exit; see `amgen_cli.app.main`."""
    try:
        from .app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("amgen: interrupted\n")
        sys.exit(130)
