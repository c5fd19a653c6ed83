"""Images in the form a run asks for, and the endless stream of them that training consumes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from amgen.config import DataConfig
from amgen.data.images import prepare, to_float
from amgen.data.sources import ImageSource
from amgen.errors import UnreadableImage, UserError
from amgen.memory import free_bytes
from amgen.progress import Progress
from amgen.randomness import Purpose, gaussian, permutation, uniform


class ImageDataset:
    """Images of one size and mode, uint8 (C, H, W); decoded once and kept in memory where they are small enough.

    Where the options say to skip what cannot be read, the next readable image, counted cyclically, takes its place: a function of the files
    alone.
    """

    def __init__(self, source: ImageSource, options: DataConfig, say: Callable[[str], None] | None = None):
        self.source = source
        self.options = options
        self.labels = torch.tensor(list(source.labels))
        self._say = say
        self._said: set[str] = set()
        self._readable: dict[int, bool] = {}
        self._memory: Tensor | None = None
        single = 4 * options.channels * options.size**2  # as float32
        if single > free_bytes(torch.device("cpu")):
            raise UserError(f"data.size={options.size}: an image takes {single / 2**30:,.0f} GiB, more than is free: choose a smaller one")
        if len(source) * options.channels * options.size**2 <= options.memory_mb * 2**20:
            self._memory = self._read_all()
        if say is not None and (notes := self.notes()):
            say(f"{source.description}: {'; '.join(notes)}")

    def __len__(self) -> int:
        return len(self.source)

    def __getstate__(self) -> dict[str, Any]:
        # What takes the lines may hold a terminal, which does not travel to another process.
        return {**self.__dict__, "_say": None if self._say is None else print}

    def summary(self) -> str:
        """Return how many images of what these are, for a message."""
        return f"{len(self):,} images of {self.source.description}"

    def class_counts(self) -> list[int]:
        """Return how many images each class has."""
        return torch.bincount(self.labels, minlength=len(self.source.classes)).tolist()

    def notes(self) -> list[str]:
        """Return what is left out of the data, and what was done to the images decoded so far, a phrase each."""
        found = list(self.source.notes)
        if self.source.turned:
            found.append(f"images turned as their EXIF orientation says: {len(self.source.turned):,}")
        if self.source.several:
            found.append(f"images of several frames or pages, of which the first is taken: {len(self.source.several):,}")
        if missing := list(self._readable.values()).count(False):
            found.append(f"images that cannot be read, whose places the next ones take: {missing:,}")
        return found

    def _read_all(self) -> Tensor:
        """Decode every image, once."""
        progress = None if self._say is None else Progress(len(self), "images", self._say, doing="reading")
        try:
            images = torch.empty(len(self), self.options.channels, self.options.size, self.options.size, dtype=torch.uint8)
        except RuntimeError:
            raise UserError(f"{len(self):,} images do not fit into memory: lower data.memory_mb={self.options.memory_mb}") from None
        for index in range(len(self)):
            try:
                images[index] = self._decode(index)
                if self.options.on_error == "skip":
                    self._readable[index] = True
            except UnreadableImage:
                if self.options.on_error == "stop":
                    raise
                self._readable[index] = False
            if progress is not None:
                progress.advance(1)
        for index, readable in list(self._readable.items()):
            if not readable:
                images[index] = images[self.readable(index)]
        return images

    def _decode(self, index: int) -> Tensor:
        image, name = self.source.image(index), self.source.name(index)
        try:
            return prepare(image, self.options, name)
        except (MemoryError, RuntimeError):  # of Pillow and NumPy the one, of torch the other
            raise UnreadableImage(f"{name}, {image.width}x{image.height} pixels, does not fit into memory: reduce or remove it") from None

    def _decode_on_the_way(self, index: int) -> Tensor:
        """Decode an image that is not kept, and say of the first one of each sort that it is not taken as it is."""
        image = self._decode(index)
        if self._say is not None:
            for what, indices in (
                ("turned as its EXIF orientation says", self.source.turned),
                ("the first frame of several", self.source.several),
            ):
                if index in indices and what not in self._said:
                    self._said.add(what)
                    self._tell(f"{self.source.name(index)} is {what}; so are others like it")
        return image

    def _tell(self, line: str) -> None:
        """Say a line, in the first of the processes that read."""
        worker = get_worker_info()
        if worker is None and self._say is not None:
            self._say(line)
        elif worker is not None and worker.id == 0:
            print(line, flush=True)

    def readable(self, index: int) -> int:
        """Return `index`, or the index of the image that takes the place of one that is to be skipped.

        Raises:
            UnreadableImage: if it cannot be read and is not to be skipped.
            UserError: if none can be read.
        """
        if self.options.on_error == "stop":
            return index
        for place in range(index, index + len(self)):
            chosen = place % len(self)
            if chosen not in self._readable:
                try:
                    self.source.image(chosen)
                    self._readable[chosen] = True
                except UnreadableImage:
                    self._readable[chosen] = False
            if self._readable[chosen]:
                return chosen
        raise UserError(f"none of the {len(self):,} images of {self.source.description} can be read")

    def images(self, indices: Sequence[int]) -> Tensor:
        """Return the images at `indices`, uint8 (len(indices), C, H, W)."""
        if self._memory is not None:
            return self._memory[torch.as_tensor(indices)]
        return torch.stack([self._decode_on_the_way(self.readable(int(index))) for index in indices])

    def floats(self, indices: Sequence[int]) -> Tensor:
        """Return the images at `indices` as training sees them, float32 in [-1, 1]."""
        return to_float(self.images(indices))

    def record(self) -> dict[str, Any]:
        """Return the options that the data decided, for the configuration of the run: the names of the classes, if there are several.

        Raises:
            UserError: if the options name another number of classes.
        """
        given, found = self.options.classes, self.source.classes
        if given is not None and len(given) != len(found):
            raise UserError(f"data.classes names {len(given)} classes, but {self.source.description} has {len(found)}: leave it out")
        # Names of folders may hold bytes that are no text, which no configuration can.
        names = [name.encode("utf-8", "backslashreplace").decode() for name in found]
        if given is not None and (len(set(given)) < len(given) or (given != names and set(given) == set(names))):
            raise UserError(f"data.classes names a class twice, or those of {self.source.description} in another order: leave it out")
        return {"classes": given or names} if len(found) > 1 else {}

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
        skipped: for each image, whether it stands in for one that cannot be read.
        boundary: other items, drawn independently of these, where the loss takes its boundary terms from others.
    """

    indices: Sequence[int]
    images: Tensor
    noise: Tensor
    labels: Tensor
    boundary: "Batch | None" = None
    skipped: Sequence[bool] = ()

    def pin_memory(self) -> "Batch":
        """Move the tensors to page-locked memory (called by DataLoader)."""
        boundary = None if self.boundary is None else self.boundary.pin_memory()
        return Batch(self.indices, self.images.pin_memory(), self.noise.pin_memory(), self.labels.pin_memory(), boundary, self.skipped)

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> "Batch":
        """Move the tensors to a device; images and noise become `dtype` there."""
        boundary = None if self.boundary is None else self.boundary.to(device, dtype)
        images, noise = (tensor.to(device, non_blocking=True).to(dtype) for tensor in (self.images, self.noise))
        return Batch(self.indices, images, noise, self.labels.to(device, non_blocking=True), boundary, self.skipped)


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
