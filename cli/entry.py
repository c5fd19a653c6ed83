"""Start of the `amgen` command: an interrupt prints a line instead of a traceback, even during the first import."""

import sys


def main() -> None:
    """Run the command line and exit; see `amgen_cli.app.main`."""
    try:
        from .app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("amgen: interrupted\n")
        sys.exit(130)
