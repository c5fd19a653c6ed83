"""Where images come from, and the form they are brought into."""

from amgen.data.dataset import Batch, ImageDataset, TrainingStream, open_dataset
from amgen.data.images import make_grid, to_float, to_image, to_uint8
from amgen.data.sources import ImageSource, open_source

__all__ = [
    "Batch",
    "ImageDataset",
    "ImageSource",
    "TrainingStream",
    "make_grid",
    "open_dataset",
    "open_source",
    "to_float",
    "to_image",
    "to_uint8",
]
