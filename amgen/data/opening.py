"""From the options to a data set."""

from collections.abc import Callable
from typing import overload

from amgen.config import DataConfig, SimulatedConfig, SnapshotsConfig
from amgen.data.dataset import ImageDataset
from amgen.data.snapshots import SnapshotDataset
from amgen.data.sources import open_source
from amgen.data.systems.simulation import simulate
from amgen.data.tables import read_table


@overload
def open_dataset(options: DataConfig, say: Callable[[str], None] | None = None) -> ImageDataset: ...
@overload
def open_dataset(options: SnapshotsConfig | SimulatedConfig, say: Callable[[str], None] | None = None) -> SnapshotDataset: ...
@overload
def open_dataset(
    options: DataConfig | SnapshotsConfig | SimulatedConfig, say: Callable[[str], None] | None = None
) -> ImageDataset | SnapshotDataset: ...
def open_dataset(
    options: DataConfig | SnapshotsConfig | SimulatedConfig, say: Callable[[str], None] | None = None
) -> ImageDataset | SnapshotDataset:
    """Open the images, read the table or simulate the population that the options describe.

    Of several processes let one have `say`, which takes lines: how far reading is, and what of the data is left out or was turned.
    """
    if isinstance(options, DataConfig):
        return ImageDataset(open_source(options, say), options, say)
    return SnapshotDataset(read_table(options) if isinstance(options, SnapshotsConfig) else simulate(options), options)
