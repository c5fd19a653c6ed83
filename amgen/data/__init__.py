"""Images and populations of points: where they come from, the form that training needs, and the training streams."""

from amgen.data.dataset import ImageDataset
from amgen.data.images import to_float, to_image, to_uint8
from amgen.data.opening import open_dataset, open_source
from amgen.data.snapshots import SnapshotDataset, recorded_units
from amgen.data.sources import ImageSource
from amgen.data.stream import Batch, ImageStream, SnapshotStream, TrainingStream, training_stream
from amgen.data.tables import Snapshots
from amgen.data.units import Units

__all__ = [
    "Batch",
    "ImageDataset",
    "ImageSource",
    "ImageStream",
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
    "training_stream",
]
