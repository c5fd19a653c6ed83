"""Where images and populations of points come from, and the form they are brought into."""

from amgen.data.dataset import Batch, ImageDataset, TrainingStream
from amgen.data.images import make_grid, to_float, to_image, to_uint8
from amgen.data.opening import open_dataset
from amgen.data.pictures import make_picture, make_scatter
from amgen.data.snapshots import SnapshotDataset, SnapshotStream, recorded_units
from amgen.data.sources import ImageSource, open_source
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
    "make_grid",
    "make_picture",
    "make_scatter",
    "open_dataset",
    "open_source",
    "recorded_units",
    "to_float",
    "to_image",
    "to_uint8",
]
