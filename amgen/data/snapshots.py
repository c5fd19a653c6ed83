"""Snapshots of a population in the form that training needs: standardized points, in multi-marginal tuples with one point of each time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amgen.config import SimulatedConfig, SnapshotsConfig
from amgen.core.errors import UserError
from amgen.data.tables import Snapshots
from amgen.data.units import Units, recorded_units


class SnapshotDataset:
    """Points of a population at several times, in standardized coordinates.

    Args:
        whole: the points at all times, in their own coordinates.
        options: which times to train on, and the form of the points.

    Attributes:
        source: the points of the times to train on, in their own coordinates.
        whole: the same with the time that is held out.
        units: the map between the points' own coordinates and the standardized ones.
        labels: zeros, int64 (N,), since points have no classes.
        tables: for each time to train on the standardized points and their masses, float32 (N_k, D + 1).

    Raises:
        UserError: if the points do not fit the options.
    """

    def __init__(self, whole: Snapshots, options: SnapshotsConfig | SimulatedConfig):
        self.whole = whole
        self.options = options
        self.source = whole.select(_training_times(whole, options))
        dimension = self.source.points[0].shape[1]
        if dimension != options.dimension:
            raise UserError(f"{whole.description} has {dimension} dimensions: expected {options.dimension}")
        self.units = recorded_units(options) or Units.measure(np.concatenate(self.source.points), options.standardize)
        if len(self.units.origin) != dimension:
            raise UserError(f"data.origin has {len(self.units.origin)} numbers: expected data.dimension={dimension}")
        self.labels = torch.zeros(len(self), dtype=torch.int64)
        weighted = zip(self.source.points, self.source.masses, strict=True)
        # Where points are paired, also one tensor (N, K + 1, D + 1) of all tuples.
        self.tables = [
            torch.cat([self.units.transform(torch.as_tensor(points)), torch.as_tensor(masses)[:, None].float()], dim=1)
            for points, masses in weighted
        ]
        if not all(table.isfinite().all() and (table[:, -1] > 0).all() for table in self.tables):
            raise UserError(
                f"{whole.description} holds points or masses that are infinite in single precision, or masses that are zero: "
                "rescale the columns"
            )
        self._tuples = torch.stack(self.tables, dim=1) if self.source.paired else None

    def __len__(self) -> int:
        """Return the number of points at the first time, where generation starts."""
        return len(self.source.points[0])

    def summary(self) -> str:
        """Return the number and the source of the points, for a message."""
        counts = [len(points) for points in self.source.points]
        return f"{sum(counts):,} points at {len(counts)} times of {self.source.description} ({counts[0]:,} at the first)"

    def class_counts(self) -> list[int]:
        """Return the number of points at the first time, which are all of one class."""
        return [len(self)]

    def tuples(self, rows: Sequence[Tensor]) -> Tensor:
        """Return multi-marginal tuples, float32 (B, K + 1, D + 1): of each of the K + 1 times a point (D) and its mass (1).

        Args:
            rows: for each time the rows of the points, int64 (B,); where points are paired, those of the first time are used for all.
        """
        if self._tuples is not None:
            return self._tuples[rows[0]]
        return torch.stack([table[chosen] for table, chosen in zip(self.tables, rows, strict=True)], dim=1)

    def floats(self, indices: Sequence[int]) -> Tensor:
        """Return tuple i, made of row i (modulo the number of rows) of every time, for each of `indices`, (B, K + 1, D + 1)."""
        index = torch.as_tensor(indices)
        return self.tuples([index % len(table) for table in self.tables])

    def record(self) -> dict[str, Any]:
        """Return the options that the data decides, for the configuration of the run: `times`, `origin` and `axes`."""
        return {"times": list(self.source.times), "origin": self.units.origin.tolist(), "axes": self.units.axes.tolist()}


def _training_times(whole: Snapshots, options: SnapshotsConfig | SimulatedConfig) -> Sequence[float]:
    """Return the times to train on: those in the options, or all but the one that is held out."""
    held_out = options.hold_out if isinstance(options, SnapshotsConfig) else None
    if held_out is not None and whole.place(held_out, "data.hold_out") in (0, len(whole.times) - 1):
        raise UserError(f"data.hold_out={held_out:g} is the first or the last time: hold out a time between others")
    if options.times is None:
        return [time for time in whole.times if time != held_out]
    if held_out in options.times:
        raise UserError(f"data.hold_out={held_out:g} is among data.times: remove it from data.times")
    return options.times
