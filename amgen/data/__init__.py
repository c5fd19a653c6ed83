"""Images and populations of points.

- `opening`: open_dataset: from the options of the section `data` to a data set
- `dataset`, `images`: images in the size and colour mode of a run
- `snapshots`, `units`: snapshots of a population as multi-marginal tuples of standardized points
- `stream`: training streams: item n as a function of (seed, n)
- `sources`, `files`, `listing`, `named`, `locating`: image files in folders and zips, and data sets known by name
- `tables`, `annotated`, `loadings`, `checking`: snapshots from .csv, .npz and AnnData files, and their principal components
- `systems`: simulated populations
"""

from amgen.data.dataset import ImageDataset
from amgen.data.images import to_float, to_image, to_uint8
from amgen.data.loadings import Loadings
from amgen.data.opening import open_dataset, open_source
from amgen.data.pairs import PairStream, growth_scale, neighbour_plans
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
    "Loadings",
    "PairStream",
    "SnapshotDataset",
    "SnapshotStream",
    "Snapshots",
    "TrainingStream",
    "Units",
    "growth_scale",
    "neighbour_plans",
    "open_dataset",
    "open_source",
    "recorded_units",
    "to_float",
    "to_image",
    "to_uint8",
    "training_stream",
]
