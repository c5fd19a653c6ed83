"""From the options to a data set."""

from typing import overload

from amgen.config import DataConfig, SimulatedConfig, SnapshotsConfig
from amgen.data.dataset import ImageDataset
from amgen.data.simulated import simulate
from amgen.data.snapshots import SnapshotDataset
from amgen.data.sources import open_source
from amgen.data.tables import read_table


@overload
def open_dataset(options: DataConfig) -> ImageDataset: ...
@overload
def open_dataset(options: SnapshotsConfig | SimulatedConfig) -> SnapshotDataset: ...
@overload
def open_dataset(options: DataConfig | SnapshotsConfig | SimulatedConfig) -> ImageDataset | SnapshotDataset: ...
def open_dataset(options: DataConfig | SnapshotsConfig | SimulatedConfig) -> ImageDataset | SnapshotDataset:
    """Open the images, read the table or simulate the population that the options describe."""
    if isinstance(options, DataConfig):
        return ImageDataset(open_source(options), options)
    return SnapshotDataset(read_table(options) if isinstance(options, SnapshotsConfig) else simulate(options), options)
