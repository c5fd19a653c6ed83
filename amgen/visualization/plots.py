"""Plots with matplotlib, which is an optional package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amgen.core.errors import UserError
from amgen.core.files import make_folder, replacing


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    """Return an empty figure, `width` by `height` inches, and its axes (an array of them for several columns).

    Raises:
        UserError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("--plot needs matplotlib: pip install 'amgen[plots]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns)


def save_trajectory_plot(file: Path, times: Sequence[float], energy: Tensor, speeds: Tensor) -> None:
    """Plot the mean kinetic energy and the quantiles of the speed of N images over time.

    Args:
        file: .png, .pdf or .svg.
        times: T times.
        energy: kinetic energies 1/2 |v|^2, (T, N).
        speeds: speeds |v|, (T, N).

    Raises:
        UserError: if matplotlib is not installed, or the file cannot be written.
    """
    figure, (left, right) = new_figure(8, 3.2, columns=2)
    left.plot(times, energy.mean(dim=1), color="black")
    left.set(xlabel="time t", ylabel="kinetic energy, mean of ½ |v|²", ylim=(0, None))
    low, middle, high = speeds.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=speeds.dtype), dim=1)
    right.fill_between(times, low, high, color="0.8", label="10 to 90 %")
    right.plot(times, middle, color="black", label="median")
    right.set(xlabel="time t", ylabel="speed |v| of the images", ylim=(0, None))
    right.legend(frameon=False)
    save_figure(file, figure)


def save_figure(file: Path, figure: Any) -> None:
    """Write a figure of matplotlib, whole or not at all.

    Raises:
        UserError: if the file cannot be written; an existing file stays as it is.
    """
    make_folder(file.parent)
    with replacing(file) as temporary:
        figure.savefig(temporary, format=file.suffix[1:].lower(), dpi=150)
