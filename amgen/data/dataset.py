"""Images in the form a run asks for, and the endless stream of them that training consumes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from amgen.config import DataConfig
from amgen.core.errors import UnreadableImage, UserError
from amgen.core.memory import free_bytes
from amgen.core.progress import Progress
from amgen.data.images import prepare, to_float
from amgen.data.sources import ImageSource
from amgen.data.stream import TrainingStream


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
