"""What the experiment scripts share: figures that can be printed in gray, and reports."""

from pathlib import Path
from typing import Any

import numpy as np

from amgen.core.errors import UserError
from amgen.core.files import make_folder, write_json

LINES = ("-", "--", ":", "-.", (0, (1, 3)), (0, (6, 2, 1, 2, 1, 2)))
MARKERS = ("o", "s", "^", "x", "D", "+")


def new_figure(rows: int, columns: int, width: float = 3.2, height: float = 3.0, **options: Any) -> tuple[Any, np.ndarray]:
    """Return a figure and its axes (rows, columns), `width` by `height` inches each.

    Raises:
        UserError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("--figure needs matplotlib: pip install 'amgen[plots]'") from None
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, np.asarray(figure.subplots(rows, columns, squeeze=False, **options))


def save_figure(figure: Any, file: Path) -> None:
    """Write a figure and say so."""
    make_folder(file.parent)
    figure.savefig(file, dpi=150)
    print(f"wrote {file}")


def save_report(report: dict[str, Any], file: Path) -> None:
    """Write a report as JSON and say so."""
    make_folder(file.parent)
    write_json(file, report)
    print(f"wrote {file}")


def mean_and_error(values: Any) -> tuple[float, float]:
    """Return the mean and its standard error, which needs two values."""
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1) / len(array) ** 0.5) if len(array) > 1 else float("nan")
