"""The training stream: which image comes when, an item a sample."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset

from amgen.core.randomness import Purpose, gaussian, permutation, uniform

if TYPE_CHECKING:
    from amgen.data.dataset import ImageDataset


@dataclass
class Batch:
    """Items of a stream: pairs of noise and data.

    Attributes:
        indices: global indices of the stream, one for each item.
        images: data, float32 in [-1, 1], (B, C, H, W); of a population, tuples (B, K + 1, D + 1): a point of each time, and its mass.
        noise: standard normal, of the shape of what moves: (B, C, H, W) or (B, D).
        labels: classes, int64, (B,).
        skipped: for each image, whether it stands in for one that cannot be read.
    """

    indices: Sequence[int]
    images: Tensor
    noise: Tensor
    labels: Tensor
    skipped: Sequence[bool] = ()


class TrainingStream(Dataset[Batch]):
    """An endless stream of shuffled epochs in which item n is a function of (seed, n).

    Each epoch visits every image once, in an order of its own. Flips and noise are drawn for n, so that neither the batch size
    nor the number of processes or workers changes what item n is, and resuming needs only a count.
    """

    linked = False
    """Whether an item is a chain of points, whose neighbours a coupling joins."""

    def __init__(self, dataset: "ImageDataset", seed: int):
        self.dataset = dataset
        self.seed = seed
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> Tensor:
        return permutation(self.seed, Purpose.SHUFFLE, epoch, len(self.dataset))

    def __getstate__(self) -> dict[str, object]:
        return {"dataset": self.dataset, "seed": self.seed}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return items `indices` of the stream as one batch."""
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

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])
