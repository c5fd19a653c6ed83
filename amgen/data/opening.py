"""From the options of the section `data` to a data set."""

import stat
from collections.abc import Callable
from typing import overload

from amgen.config import DataConfig, SimulatedConfig, SnapshotsConfig
from amgen.core.errors import UserError, nearest
from amgen.data.dataset import ImageDataset
from amgen.data.files import FolderSource, ZipSource
from amgen.data.loadings import Loadings
from amgen.data.locating import locate
from amgen.data.named import NAMED
from amgen.data.snapshots import SnapshotDataset
from amgen.data.sources import ImageSource
from amgen.data.systems.simulation import simulate
from amgen.data.tables import read_table


@overload
def open_dataset(options: DataConfig, say: Callable[[str], None] | None = None, loadings: Loadings | None = None) -> ImageDataset: ...
@overload
def open_dataset(
    options: SnapshotsConfig | SimulatedConfig, say: Callable[[str], None] | None = None, loadings: Loadings | None = None
) -> SnapshotDataset: ...
@overload
def open_dataset(
    options: DataConfig | SnapshotsConfig | SimulatedConfig, say: Callable[[str], None] | None = None, loadings: Loadings | None = None
) -> ImageDataset | SnapshotDataset: ...
def open_dataset(
    options: DataConfig | SnapshotsConfig | SimulatedConfig, say: Callable[[str], None] | None = None, loadings: Loadings | None = None
) -> ImageDataset | SnapshotDataset:
    """Open the images, read the table or simulate the population that the options describe.

    Args:
        options: the section `data` of a configuration.
        say: takes lines about the progress of reading, and about data that is left out or changed. In a job with several processes give it
            to one of them only.
        loadings: those of a run whose coordinates are principal components; computed from the data otherwise.

    Raises:
        UserError: if the data is missing or damaged, or does not fit the options.

    Example:
        >>> from amgen.config import DataConfig, SimulatedConfig
        >>> digits = open_dataset(DataConfig(path="digits"))
        >>> digits.images([0, 1]).shape, digits.images([0, 1]).dtype
        (torch.Size([2, 1, 8, 8]), torch.uint8)
        >>> population = open_dataset(SimulatedConfig(system="mixture", particles=100, snapshots=3))
        >>> population.summary()
        '300 points at 3 times of 100 simulated particles (mixture, seed 0) (100 at the first)'
    """
    if isinstance(options, DataConfig):
        return ImageDataset(open_source(options, say), options, say)
    return SnapshotDataset(read_table(options, say, loadings) if isinstance(options, SnapshotsConfig) else simulate(options), options)


def open_source(options: DataConfig, say: Callable[[str], None] | None = None) -> ImageSource:
    """Open the images that `options.path` names: a known data set, a folder or a zip.

    Args:
        options: the section `data` of a configuration.
        say: takes a line before a download.

    Raises:
        UserError: if there is nothing of that name, or it holds no images.
    """
    if options.path in NAMED:
        return NAMED[options.path](options, say)
    advice = f"{nearest(options.path, NAMED)}: give a folder or .zip of images, or one of {', '.join(NAMED)}"
    path, mode = locate(options.path, advice)
    if stat.S_ISDIR(mode):
        return FolderSource(path)
    if stat.S_ISREG(mode):
        return ZipSource(path)
    raise UserError(f"data.path={options.path!r} is a pipe or a device: give a folder or .zip of images")
