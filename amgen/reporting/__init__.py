"""The report of a training run: one HTML page.

- `collect`: read the contents of a run directory
- `evaluations`: tables of evaluations that can be compared
- `axes`, `charts`, `page`: the charts and the page
"""

from pathlib import Path

from amgen.core.errors import UserError

CONFIG = "config.yaml"


def check_run(run: Path) -> None:
    """Check that `run` is a run directory, without loading torch.

    Raises:
        UserError: if it is not.
    """
    advice = "give the folder of a run that `amgen train` has written"
    if not run.is_dir():
        raise UserError(f"{run} is not a folder: {advice}")
    if not (run / CONFIG).is_file():
        raise UserError(f"{run} is not a run directory: it holds no {CONFIG}: {advice}")
