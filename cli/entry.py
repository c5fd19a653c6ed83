"""Where the `amgen` command starts: nothing is imported before interrupts are met with a line."""

import sys


def main() -> None:
    """Run the command line and exit, see `amgen_cli.app.main`."""
    try:
        from .app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("amgen: interrupted\n")
        sys.exit(130)
