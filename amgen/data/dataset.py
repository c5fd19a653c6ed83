"""Images in the form that a run asks for."""

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


class ImageDataset:
    """Images of one size and one number of channels, uint8 (C, H, W).

    A data set of at most `data.memory_mb` is decoded once and kept in memory. With `data.on_error=skip`, an unreadable image is replaced by
    the next readable one, counted cyclically, so the replacement depends on the files alone.

    Args:
        source: the images as decoded from their files.
        options: the form that they are brought into.
        say: takes lines about the progress of reading, and about images that are left out or changed.

    Attributes:
        labels: class of each image, int64 (N,).

    Raises:
        UserError: if the images do not fit into memory, or one is unreadable or does not fit the options.
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
            raise UserError(f"data.size={options.size}: an image takes {single / 2**30:,.0f} GiB, more than is free: choose a smaller size")
        if len(source) * options.channels * options.size**2 <= options.memory_mb * 2**20:
            self._memory = self._read_all()
        if say is not None and (notes := self.notes()):
            say(f"{source.description}: {'; '.join(notes)}")

    def __len__(self) -> int:
        return len(self.source)

    def __getstate__(self) -> dict[str, Any]:
        # `say` may hold a terminal, which cannot be pickled for another process.
        return {**self.__dict__, "_say": None if self._say is None else print}

    def summary(self) -> str:
        """Return the number and the source of the images, for a message."""
        return f"{len(self):,} images of {self.source.description}"

    def class_counts(self) -> list[int]:
        """Return the number of images of each class."""
        return torch.bincount(self.labels, minlength=len(self.source.classes)).tolist()

    def notes(self) -> list[str]:
        """Return notes about files that are left out, and about what was done to the images decoded so far."""
        found = list(self.source.notes)
        if self.source.turned:
            found.append(f"images turned as their EXIF orientation says: {len(self.source.turned):,}")
        if self.source.several:
            found.append(f"images with several frames or pages (the first one is used): {len(self.source.several):,}")
        if missing := list(self._readable.values()).count(False):
            found.append(f"unreadable images, each replaced by the next readable one: {missing:,}")
        return found

    def _read_all(self) -> Tensor:
        """Return all images, uint8 (N, C, H, W)."""
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
        except (MemoryError, RuntimeError):  # raised by Pillow and NumPy, and by torch
            raise UnreadableImage(f"{name}, {image.width}x{image.height} pixels, does not fit into memory: reduce or remove it") from None

    def _decode_and_note(self, index: int) -> Tensor:
        """Decode an image that is not kept in memory; report the first one that is turned and the first one with several frames."""
        image = self._decode(index)
        if self._say is not None:
            for change, indices in (
                ("is turned as its EXIF orientation says; so are others like it", self.source.turned),
                ("has several frames or pages (the first one is used); so have others like it", self.source.several),
            ):
                if index in indices and change not in self._said:
                    self._said.add(change)
                    self._say_once(f"{self.source.name(index)} {change}")
        return image

    def _say_once(self, line: str) -> None:
        """Say a line in the first of the reading processes only."""
        worker = get_worker_info()
        if worker is None and self._say is not None:
            self._say(line)
        elif worker is not None and worker.id == 0:
            print(line, flush=True)

    def readable(self, index: int) -> int:
        """Return `index`, or with `data.on_error=skip` the index of the image that replaces it if it is unreadable.

        Raises:
            UserError: if no image is readable.
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
        """Return the images at `indices`, uint8 (B, C, H, W).

        Raises:
            UnreadableImage: if one cannot be read and `data.on_error` is not `skip`.
            UserError: if one does not fit the options, or none can be read.
        """
        if self._memory is not None:
            return self._memory[torch.as_tensor(indices)]
        return torch.stack([self._decode_and_note(self.readable(int(index))) for index in indices])

    def floats(self, indices: Sequence[int]) -> Tensor:
        """Return the images at `indices` as the network sees them, float32 in [-1, 1], (B, C, H, W)."""
        return to_float(self.images(indices))

    def record(self) -> dict[str, Any]:
        """Return the options that the data decides, for the configuration of the run: `classes`, the class names, if there are several.

        Raises:
            UserError: if the options name another number of classes, a class twice, or the same classes in another order.
        """
        given, found = self.options.classes, self.source.classes
        if given is not None and len(given) != len(found):
            raise UserError(f"data.classes names {len(given)} classes, but {self.source.description} has {len(found)}: leave it out")
        # Names of folders may hold bytes that are not text. A configuration cannot.
        names = [name.encode("utf-8", "backslashreplace").decode() for name in found]
        if given is not None and (len(set(given)) < len(given) or (given != names and set(given) == set(names))):
            raise UserError(f"data.classes names a class twice, or those of {self.source.description} in another order: leave it out")
        return {"classes": given or names} if len(found) > 1 else {}
