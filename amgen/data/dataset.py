"""Images in the form a run asks for, and the endless stream of them that training consumes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from amgen.config import DataConfig
from amgen.data.images import prepare, to_float
from amgen.data.sources import ImageSource
from amgen.randomness import Purpose, gaussian, permutation, uniform


class ImageDataset:
    """Images of one size and mode, uint8 (C, H, W); decoded once and kept in memory where they are small enough."""

    def __init__(self, source: ImageSource, options: DataConfig):
        self.source = source
        self.options = options
        self.labels = torch.tensor(list(source.labels))
        self._memory: Tensor | None = None
        if len(source) * options.channels * options.size**2 <= options.memory_mb * 2**20:
            self._memory = torch.stack([self._decode(index) for index in range(len(source))])

    def __len__(self) -> int:
        return len(self.source)

    def class_counts(self) -> list[int]:
        """Return how many images each class has."""
        return torch.bincount(self.labels, minlength=len(self.source.classes)).tolist()

    def _decode(self, index: int) -> Tensor:
        return prepare(self.source.image(index), self.options, self.source.name(index))

    def images(self, indices: Sequence[int]) -> Tensor:
        """Return the images at `indices`, uint8 (len(indices), C, H, W)."""
        if self._memory is not None:
            return self._memory[torch.as_tensor(indices)]
        return torch.stack([self._decode(int(index)) for index in indices])

    def floats(self, indices: Sequence[int]) -> Tensor:
        """Return the images at `indices` as training sees them, float32 in [-1, 1]."""
        return to_float(self.images(indices))

    def record(self) -> dict[str, Any]:
        """Return the options that the data decided, for the configuration of the run: none."""
        return {}

    def stream(self, seed: int) -> "TrainingStream":
        """Return the training stream of a seed."""
        return TrainingStream(self, seed)


@dataclass
class Batch:
    """What training consumes.

    Attributes:
        indices: global indices of the stream, one each.
        images: data, float32 in [-1, 1], (B, C, H, W); of a population, chains (B, K + 1, D + 1), a point of each time and its mass.
        noise: standard normal, of the shape of what moves: (B, C, H, W) or (B, D).
        labels: classes, int64, (B,).
        boundary: other items, drawn independently of these, where the loss takes its boundary terms from others.
    """

    indices: Sequence[int]
    images: Tensor
    noise: Tensor
    labels: Tensor
    boundary: "Batch | None" = None

    def pin_memory(self) -> "Batch":
        """Move the tensors to page-locked memory (called by DataLoader)."""
        boundary = None if self.boundary is None else self.boundary.pin_memory()
        return Batch(self.indices, self.images.pin_memory(), self.noise.pin_memory(), self.labels.pin_memory(), boundary)

    def to(self, device: torch.device) -> "Batch":
        """Move the tensors to a device."""
        boundary = None if self.boundary is None else self.boundary.to(device)
        images, noise, labels = (tensor.to(device, non_blocking=True) for tensor in (self.images, self.noise, self.labels))
        return Batch(self.indices, images, noise, labels, boundary)


class TrainingStream(Dataset[Batch]):
    """An endless stream of shuffled epochs in which item n is a function of (seed, n).

    Each epoch visits every image once, in an order of its own. Flips and noise are drawn for n, so that neither the batch size
    nor the number of processes or workers changes what item n is, and resuming needs only a count.
    """

    linked = False
    """Whether an item is a chain of points, whose neighbours a coupling joins."""

    def __init__(self, dataset: ImageDataset, seed: int):
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
        images = self.dataset.floats(chosen.tolist())
        if self.dataset.options.flip:
            flips = uniform(self.seed, Purpose.FLIP, indices) < 0.5
            images = torch.where(flips[:, None, None, None], images.flip(-1), images)
        noise = gaussian(self.seed, Purpose.NOISE, indices, images.shape[1:])
        return Batch(indices, images, noise, self.dataset.labels[chosen])

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])
