"""Where images and populations of points come from, and the form they are brought into."""

from amgen.data.dataset import ImageDataset
from amgen.data.images import to_float, to_image, to_uint8
from amgen.data.opening import open_dataset
from amgen.data.snapshots import SnapshotDataset, SnapshotStream, recorded_units
from amgen.data.sources import ImageSource, open_source
from amgen.data.stream import Batch, TrainingStream
from amgen.data.tables import Snapshots
from amgen.data.units import Units

__all__ = [
    "Batch",
    "ImageDataset",
    "ImageSource",
    "SnapshotDataset",
    "SnapshotStream",
    "Snapshots",
    "TrainingStream",
    "Units",
    "open_dataset",
    "open_source",
    "recorded_units",
    "to_float",
    "to_image",
    "to_uint8",
]
