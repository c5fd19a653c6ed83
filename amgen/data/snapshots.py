"""Snapshots of a population in the form that training consumes: an endless stream of chains, one point of each time."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from amgen.config import PopulationConfig, SimulatedConfig, SnapshotsConfig
from amgen.core.errors import UserError
from amgen.core.randomness import Purpose, derive_seed, gaussian, permutation
from amgen.data.stream import Batch
from amgen.data.tables import Snapshots
from amgen.data.units import Units


class SnapshotDataset:
    """Points of a population at several times, in whitened coordinates.

    Attributes:
        source: the points to train on, in their own coordinates.
        whole: the same with the time that is held out.
        units: from whitened to their own coordinates.
        labels: zeros; points have no classes.
    """

    def __init__(self, whole: Snapshots, options: SnapshotsConfig | SimulatedConfig):
        self.whole = whole
        self.options = options
        self.source = whole.select(_training_times(whole, options))
        dimension = self.source.points[0].shape[1]
        if dimension != options.dimension:
            raise UserError(f"{whole.description} has {dimension} dimensions: expected {options.dimension}")
        self.units = recorded_units(options) or Units.measure(np.concatenate(self.source.points), options.whiten)
        if len(self.units.origin) != dimension:
            raise UserError(f"data.origin has {len(self.units.origin)} numbers: expected data.dimension={dimension}")
        self.labels = torch.zeros(len(self), dtype=torch.int64)
        weighed = zip(self.source.points, self.source.masses, strict=True)
        # For each time a table (N_k, D + 1): the point and its mass. Where rows are paired, whole chains lie together.
        self._tables = [
            torch.cat([self.units.transform(torch.as_tensor(points)), torch.as_tensor(masses)[:, None].float()], dim=1)
            for points, masses in weighed
        ]
        if not all(table.isfinite().all() and (table[:, -1] > 0).all() for table in self._tables):
            raise UserError(
                f"{whole.description} holds points or masses that are infinite in single precision, or masses that are zero: "
                "rescale the columns"
            )
        self._chains = torch.stack(self._tables, dim=1) if self.source.paired else None

    def __len__(self) -> int:
        """Return the number of points of the first time, where generation starts."""
        return len(self.source.points[0])

    def summary(self) -> str:
        """Return how many points of what these are, for a message."""
        counts = [len(points) for points in self.source.points]
        return f"{sum(counts):,} points at {len(counts)} times of {self.source.description} ({counts[0]:,} at the first)"

    def class_counts(self) -> list[int]:
        """Return the number of points of the first time, all of one class."""
        return [len(self)]

    def record(self) -> dict[str, Any]:
        """Return the options that the data decided, for the configuration of the run."""
        return {"times": list(self.source.times), "origin": self.units.origin.tolist(), "axes": self.units.axes.tolist()}

    def chains(self, rows: Sequence[Tensor]) -> Tensor:
        """Return chains (B, K + 1, D + 1), a point of each time and its mass, of the `rows` (B,) of each time, or of all where paired."""
        if self._chains is not None:
            return self._chains[rows[0]]
        return torch.stack([table[chosen] for table, chosen in zip(self._tables, rows, strict=True)], dim=1)

    def floats(self, indices: Sequence[int]) -> Tensor:
        """Return the chains of row i (modulo the number of rows) of every time, (B, K + 1, D + 1)."""
        index = torch.as_tensor(indices)
        return self.chains([index % len(table) for table in self._tables])

    def stream(self, seed: int) -> "SnapshotStream":
        """Return the training stream of a seed."""
        return SnapshotStream(self, seed)


class SnapshotStream(Dataset[Batch]):
    """An endless stream of chains in which item n is a function of (seed, n).

    For each time the points are visited in shuffled epochs, in orders of their own, or in the same one where points are paired.
    """

    linked = True

    def __init__(self, dataset: SnapshotDataset, seed: int):
        self.dataset = dataset
        self.seed = seed
        self._order = lru_cache(maxsize=2 * len(dataset.source.times))(self._shuffled)

    def _shuffled(self, place: int, epoch: int) -> Tensor:
        return permutation(derive_seed(self.seed, Purpose.SNAPSHOT, place), Purpose.SHUFFLE, epoch, len(self.dataset.source.points[place]))

    def __getstate__(self) -> dict[str, object]:
        return {"dataset": self.dataset, "seed": self.seed}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return items `indices` of the stream as one batch; its `images` are chains, its noise (B, D)."""
        source = self.dataset.source
        chains = self.dataset.chains([self._rows(place, indices) for place in range(1 if source.paired else len(source.times))])
        noise = gaussian(self.seed, Purpose.NOISE, indices, (chains.shape[2] - 1,))
        return Batch(indices, chains, noise, torch.zeros(len(indices), dtype=torch.int64), skipped=[False] * len(indices))

    def _rows(self, place: int, indices: Sequence[int]) -> Tensor:
        """Return the rows of a time that the items take."""
        index, count = torch.as_tensor(indices), len(self.dataset.source.points[place])
        epochs = index // count
        rows = torch.empty_like(index)
        for epoch in epochs.unique().tolist():
            here = epochs == epoch
            rows[here] = self._order(place, epoch)[index[here] % count]
        return rows

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])


def recorded_units(options: PopulationConfig) -> Units | None:
    """Return the units that the options record, or None if there are none yet.

    Raises:
        UserError: if they record half of them.
    """
    if (options.origin is None) != (options.axes is None):
        raise UserError("data.origin and data.axes go together: give both or neither")
    if options.origin is None or options.axes is None:
        return None
    if len({len(row) for row in options.axes}) > 1:
        raise UserError(f"data.axes has rows of {', '.join(str(len(row)) for row in options.axes[:10])} numbers: expected as many in each")
    return Units(np.asarray(options.origin), np.asarray(options.axes))


def _training_times(whole: Snapshots, options: SnapshotsConfig | SimulatedConfig) -> Sequence[float]:
    """Return the times to train on: those given, or all but the one held out."""
    held_out = options.hold_out if isinstance(options, SnapshotsConfig) else None
    if held_out is not None and whole.place(held_out, "data.hold_out") in (0, len(whole.times) - 1):
        raise UserError(f"data.hold_out={held_out:g} is the first or the last time: hold out one between others")
    if options.times is None:
        return [time for time in whole.times if time != held_out]
    if held_out in options.times:
        raise UserError(f"data.hold_out={held_out:g} is among data.times: leave it out of them")
    return options.times
