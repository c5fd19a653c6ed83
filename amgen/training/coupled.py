"""The training stream with its noise joined to its images, or its points to those of the next time."""

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from amgen.data import Batch, TrainingStream
from amgen.paths import Coupling


class CoupledStream(Dataset[Batch]):
    """A training stream whose noise, or the links of whose chains, are exchanged within groups of consecutive items, as a coupling wants.

    Groups are cut from the stream itself, at multiples of `coupling.group`. Whoever needs part of a group reads all of it and keeps its
    part, so the pairing depends on neither the batch size, the number of processes nor accumulation.

    Args:
        stream: images and noise as drawn.
        coupling: which noise goes with which image.
        within_classes: exchange noise between images of the same class alone (for a class-conditional action).
        boundary: another stream of the same images, for boundary terms that are independent of the interior ones; None for no such terms.
    """

    def __init__(
        self,
        stream: TrainingStream,
        coupling: Coupling,
        within_classes: bool,
        boundary: TrainingStream | None = None,
    ):
        self.stream = stream
        self.coupling = coupling
        self.within_classes = within_classes
        self.boundary = boundary

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the items of a run of consecutive `indices` as one batch."""
        group, first, count = self.coupling.group, indices[0], len(indices)
        start, stop = first // group * group, -(-(first + count) // group) * group
        whole = self.stream.__getitems__(range(start, stop))
        if self.stream.multi_marginal:
            order, images = torch.arange(len(whole.noise)), self.coupling.link(whole.images)
        else:
            order = self.coupling.assign(whole.noise, whole.images, whole.labels if self.within_classes else None)
            images = whole.images
        mine = slice(first - start, first - start + count)
        boundary = None if self.boundary is None else self.boundary.__getitems__(indices)
        return Batch(indices, images[mine], whole.noise[order[mine]], whole.labels[mine], boundary, whole.skipped[mine])

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])
