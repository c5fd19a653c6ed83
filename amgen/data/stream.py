"""Training streams: item n of an endless stream of images, or of points of a population, as a function of (seed, n)."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from amgen.core.randomness import Purpose, derive_seed, gaussian, permutation, uniform
from amgen.data.dataset import ImageDataset
from amgen.data.snapshots import SnapshotDataset


@dataclass
class Batch:
    """The items that a training step uses.

    Attributes:
        indices: global indices in the stream, (B,).
        images: the data: images, float32 in [-1, 1], (B, C, H, W); or multi-marginal tuples of points, (B, K + 1, D + 1), see
            `SnapshotDataset.tuples`.
        noise: standard normal: (B, C, H, W) for images, (B, D) for points.
        labels: classes, int64, (B,).
        skipped: for each item, whether it replaces an unreadable image.
    """

    indices: Sequence[int]
    images: Tensor
    noise: Tensor
    labels: Tensor
    skipped: Sequence[bool] = ()


class TrainingStream(Dataset[Batch]):
    """An endless stream in which item n is a function of (seed, n).

    Shuffled orders, flips and noise are functions of the seed and n alone. So item n does not depend on the batch size or on the number of
    processes or workers, and resuming needs only the number of items seen. A stream can be pickled for DataLoader workers.

    Attributes:
        dataset: the data.
        seed: the seed.
        multi_marginal: whether an item is a tuple of points, one of each time, which a coupling joins in pairs of neighbouring times.
    """

    dataset: ImageDataset | SnapshotDataset
    seed: int
    multi_marginal: ClassVar[bool] = False

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the items `indices` of the stream as one batch."""

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getstate__(self) -> dict[str, object]:
        return {"dataset": self.dataset, "seed": self.seed}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]


class ImageStream(TrainingStream):
    """A stream of images. Each epoch visits every image once, in an order of its own."""

    dataset: ImageDataset

    def __init__(self, dataset: ImageDataset, seed: int):
        self.dataset = dataset
        self.seed = seed
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> Tensor:
        return permutation(self.seed, Purpose.SHUFFLE, epoch, len(self.dataset))

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the items `indices` of the stream as one batch."""
        epochs = (divmod(index, len(self.dataset)) for index in indices)
        chosen = torch.stack([self._order(epoch)[position] for epoch, position in epochs])
        wanted = chosen.tolist()
        found = [self.dataset.readable(index) for index in wanted]
        images = self.dataset.floats(found)
        if self.dataset.options.flip:
            flips = uniform(self.seed, Purpose.FLIP, indices) < 0.5
            images = torch.where(flips[:, None, None, None], images.flip(-1), images)
        noise = gaussian(self.seed, Purpose.NOISE, indices, images.shape[1:])
        skipped = [one != other for one, other in zip(wanted, found, strict=True)]
        return Batch(indices, images, noise, self.dataset.labels[torch.tensor(found)], skipped=skipped)


class SnapshotStream(TrainingStream):
    """A stream of multi-marginal tuples: one point of each time.

    Each time has epochs of its own, which visit its points once, in a shuffled order. Where points are paired, all times share the order.
    """

    dataset: SnapshotDataset
    multi_marginal: ClassVar[bool] = True

    def __init__(self, dataset: SnapshotDataset, seed: int):
        self.dataset = dataset
        self.seed = seed
        self._order = lru_cache(maxsize=2 * len(dataset.source.times))(self._shuffled)

    def _shuffled(self, place: int, epoch: int) -> Tensor:
        return permutation(derive_seed(self.seed, Purpose.SNAPSHOT, place), Purpose.SHUFFLE, epoch, len(self.dataset.source.points[place]))

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the items `indices` of the stream as one batch."""
        source = self.dataset.source
        tuples = self.dataset.tuples([self._rows(place, indices) for place in range(1 if source.paired else len(source.times))])
        noise = gaussian(self.seed, Purpose.NOISE, indices, (tuples.shape[2] - 1,))
        return Batch(indices, tuples, noise, torch.zeros(len(indices), dtype=torch.int64), skipped=[False] * len(indices))

    def _rows(self, place: int, indices: Sequence[int]) -> Tensor:
        """Return the rows of time number `place` that the items use, (B,)."""
        index, count = torch.as_tensor(indices), len(self.dataset.source.points[place])
        epochs = index // count
        rows = torch.empty_like(index)
        for epoch in epochs.unique().tolist():
            here = epochs == epoch
            rows[here] = self._order(place, epoch)[index[here] % count]
        return rows


def training_stream(dataset: ImageDataset | SnapshotDataset, seed: int) -> TrainingStream:
    """Return the training stream of a data set.

    Example:
        >>> from amgen.config import DataConfig
        >>> from amgen.data import open_dataset, training_stream
        >>> stream = training_stream(open_dataset(DataConfig(path="digits")), seed=0)
        >>> batch = stream.__getitems__(range(16))
        >>> batch.images.shape, batch.noise.shape, batch.labels.shape
        (torch.Size([16, 1, 8, 8]), torch.Size([16, 1, 8, 8]), torch.Size([16]))
    """
    return ImageStream(dataset, seed) if isinstance(dataset, ImageDataset) else SnapshotStream(dataset, seed)
