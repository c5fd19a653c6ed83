"""The items of the training stream. All random numbers of training are listed here.

Each random number is a function of the run's seed and the item's index n. So items do not depend on the batch size, the number of processes
or accumulation, and a run resumes from its count of images:

    which image or points, flip    amgen.data's streams: SHUFFLE by epoch, FLIP by n
    noise                          amgen.data's streams: NOISE by n
    pairing of noise and data      the coupling, within groups of consecutive items
    time and its density           TIME by n, or by step for stratified times; once for quadrature
    label dropout                  LABEL_DROPOUT by n
    auxiliary uniforms             AUXILIARY by n
    dropout seeds                  DROPOUT by n; BOUNDARY_DROPOUT by n for the boundary pairs
    Hutchinson probes              PROBE by n
    boundary pairs                 item n of a second stream, whose seed comes from BOUNDARY

With quadrature the n's of a pair and of all that belongs to it are those of groups: item n uses pair n // group. Probes stay those of n.

Batches are built where they are loaded: in worker processes if `data.workers` is above 0. There is one exception. Adaptive times depend on
the losses of all earlier steps. So their batches come without times, and the training process samples the times at the start of the step
(`sample_times`).
"""

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from amgen.config import Config, MarginalLossConfig, WFRCouplingConfig
from amgen.core.batching import out_of_memory
from amgen.core.errors import AmgenError
from amgen.core.files import forget_locks
from amgen.core.randomness import Purpose, derive_seed, dropout_seeds, rademacher, uniform, uniforms
from amgen.data import Batch, ImageDataset, PairStream, SnapshotDataset, TrainingStream, neighbour_plans, training_stream
from amgen.model.build import build_coupling, build_path, growth_scale_of, laplacian_probes, no_label
from amgen.paths import Boundary, Cells, Coupling, Masses, Path, PathSample, TimeSampler
from amgen.paths.neighbourhood import reference_size
from amgen.training.signals import SIGNALS

Part = TypeVar("Part")

LATEST = 1 - torch.finfo(torch.float32).eps / 2
"""The largest float32 below 1. Times are at most this, also in float64: scores are finite there."""


@dataclass
class Pairs:
    """Pairs of noise and data, and the other inputs of the action.

    Attributes:
        noise: standard normal, (B, C, H, W) or (B, D).
        data: images in [-1, 1], (B, C, H, W); for a population multi-marginal tuples (B, K + 1, D + 1): a point of each time, and its mass.
        classes: class of each item in the data set, int64, (B,).
        label: class as an input of the action, int64, (B,); "no class" where it is dropped; None for an unconditional action.
        auxiliary: uniform random numbers that the path needs, (B, A); None where it needs none.
        dropout_seeds: seeds of the dropout masks, int32, (B, 2); None without dropout.
    """

    noise: Tensor
    data: Tensor
    classes: Tensor
    label: Tensor | None = None
    auxiliary: Tensor | None = None
    dropout_seeds: Tensor | None = None

    def ends(self, path: Path) -> Boundary:
        """Return the points of the pairs at t = 0 and t = 1."""
        return path.boundary(self.noise, self.data, path.conditioning(self.data, self.auxiliary), self.label, self.dropout_seeds)


@dataclass
class TrainingBatch:
    """The data of one pass of a training step, with all its random numbers.

    Attributes:
        indices: items of the stream, consecutive.
        pairs: noise and data of each item.
        t: times in [0, 1), (B,); None for adaptive times that are not sampled yet.
        density: p(t), the density of the times, (B,); None if `t` is None.
        probes: random signs for the Laplacian, (B, P, ...); None where it is not estimated.
        boundary: other pairs for the boundary terms; None unless `loss.boundaries=independent`.
        skipped: number of items that replace unreadable images.
    """

    indices: Sequence[int]
    pairs: Pairs
    t: Tensor | None = None
    density: Tensor | None = None
    probes: Tensor | None = None
    boundary: Pairs | None = None
    skipped: int = 0

    def pin_memory(self) -> "TrainingBatch":
        """Return the batch in page-locked memory (called by DataLoader)."""
        return _map_tensors(self, Tensor.pin_memory)

    def to(self, device: torch.device) -> "TrainingBatch":
        """Return the batch on a device. For a GPU the copies are only queued."""
        return _map_tensors(self, lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"))

    def sample(
        self, path: Path, masses: Masses | None = None, *, boundary: bool = False, score: bool = False, cells: Cells | None = None
    ) -> PathSample:
        """Return the points of the batch along a path, on the batch's device.

        Args:
            path: the path between noise and data.
            masses: masses of the classes that change in time; None if they do not change.
            boundary: whether the loss needs samples of both ends. If the batch has boundary pairs, the result has their ends in any case.
            score: whether the loss needs the conditional score.
            cells: cells of times, at whose ends the boundary is sampled; None for t = 0 and t = 1.
        """
        pairs, ends = self.pairs, self.boundary
        assert self.t is not None  # sampled at the start of the step, at the latest
        sample = path.sample(
            self.t,
            pairs.noise,
            pairs.data,
            density=self.density,
            label=pairs.label,
            auxiliary=pairs.auxiliary,
            dropout_seeds=pairs.dropout_seeds,
            boundary=boundary and ends is None and cells is None,
            score=score,
        )
        if boundary and cells is not None:
            around = cells.boundary(path, self.t, pairs.noise, pairs.data, pairs.label, pairs.auxiliary, pairs.dropout_seeds)
            sample = replace(sample, boundary=around)
        if ends is not None:
            sample = replace(sample, boundary=ends.ends(path))
        if masses is not None:
            sample = masses.weigh(sample, pairs.classes, None if ends is None else ends.classes)
        return replace(sample, probes=self.probes)


def _map_tensors(part: Part, change: Callable[[Tensor], Tensor]) -> Part:
    """Return a copy of a dataclass with `change` applied to its tensors, and to those of the dataclasses in it."""
    found: dict[str, Any] = {}
    for field in fields(part):  # type: ignore[arg-type]
        value = getattr(part, field.name)
        if isinstance(value, Tensor):
            found[field.name] = change(value)
        elif is_dataclass(value):
            found[field.name] = _map_tensors(value, change)
    return replace(part, **found)  # type: ignore[type-var]


class CoupledStream(Dataset[Batch]):
    """A stream in which a coupling pairs noise with images, or the points of multi-marginal tuples with one another.

    Groups begin at multiples of `coupling.group`. A part of a group is computed from the whole group. So the pairs do not depend on the
    batch size, the number of processes or accumulation.

    Args:
        stream: images and noise before they are paired.
        coupling: the rule of the pairs.
        within_classes: exchange noise between images of the same class only (for a class-conditional action).
    """

    def __init__(self, stream: TrainingStream, coupling: Coupling, within_classes: bool):
        self.stream = stream
        self.dataset = stream.dataset
        self.coupling = coupling
        self.within_classes = within_classes

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
        return Batch(indices, images[mine], whole.noise[order[mine]], whole.labels[mine], whole.skipped[mine])

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])


class TrainingItems(Dataset[TrainingBatch]):
    """The items of a run; see the module. Workers get a copy of this object, so it holds no network and no device.

    Args:
        config: the resolved options.
        dataset: the training images or points.
        times: the sampler of times.
        dtype: dtype of noise, data, times and probes.
    """

    def __init__(self, config: Config, dataset: ImageDataset | SnapshotDataset, times: TimeSampler, dtype: torch.dtype):
        independent = isinstance(config.loss, MarginalLossConfig) and config.loss.boundaries == "independent"
        other_seed = derive_seed(config.seed, Purpose.BOUNDARY, 0)
        self.stream: CoupledStream | PairStream
        self.boundary_stream: TrainingStream | None
        if isinstance(config.coupling, WFRCouplingConfig):
            assert isinstance(dataset, SnapshotDataset)  # the configuration allows no images
            plans = neighbour_plans(dataset, growth_scale_of(config), config.coupling.group)
            self.stream = PairStream(dataset, config.seed, plans)
            self.boundary_stream = PairStream(dataset, other_seed, plans) if independent else None
        else:
            self.stream = CoupledStream(training_stream(dataset, config.seed), build_coupling(config), config.action.classes > 0)
            self.boundary_stream = training_stream(dataset, other_seed) if independent else None
        self._config = config
        self._times = None if times.adaptive else times
        self._group = times.group
        self._dtype = dtype
        self._auxiliary = build_path(config).auxiliary
        self._probes = laplacian_probes(config)

    def __getitems__(self, indices: Sequence[int]) -> TrainingBatch:
        """Return a run of consecutive items of one step as a batch."""
        group, first, last = self._group, indices[0], indices[-1]
        found = self.stream.__getitems__(range(first // group, last // group + 1) if group > 1 else indices)
        batch = TrainingBatch(indices, self._pairs(found, Purpose.DROPOUT), skipped=sum(found.skipped))
        if group > 1:
            rows = torch.as_tensor(indices) // group - first // group
            batch.pairs = _map_tensors(batch.pairs, lambda tensor: tensor[rows])
        if self.boundary_stream is not None:
            batch.boundary = self._pairs(self.boundary_stream.__getitems__(indices), Purpose.BOUNDARY_DROPOUT)
        if self._times is not None:
            batch = sample_times(batch, self._times, self._config)
        if self._probes:
            shape = (self._probes, *found.noise.shape[1:])
            batch.probes = rademacher(self._config.seed, Purpose.PROBE, indices, shape).to(self._dtype)
        return batch

    def __getitem__(self, index: int) -> TrainingBatch:
        return self.__getitems__([index])

    def neighbourhood(self) -> dict[str, Tensor]:
        """Return the first items of the stream as the tensors of `amgen.paths.Neighbourhood`; nothing for images."""
        dataset = self.stream.dataset
        if not isinstance(dataset, SnapshotDataset):
            return {}
        points = dataset.source.points
        numbers = 2 * len(points) * (points[0].shape[1] + 1)  # at most, with two points and masses for each interval
        found = self.stream.__getitems__(range(reference_size([len(part) for part in points], numbers)))
        return {"noise": found.noise, "data": found.images}

    def _pairs(self, found: Batch, dropout: Purpose) -> Pairs:
        seed, indices = self._config.seed, found.indices
        return Pairs(
            found.noise.to(self._dtype),
            found.images.to(self._dtype),
            found.labels,
            self._labels(found),
            uniforms(seed, Purpose.AUXILIARY, indices, self._auxiliary) if self._auxiliary else None,
            dropout_seeds(seed, dropout, indices) if self._config.action.dropout else None,
        )

    def _labels(self, found: Batch) -> Tensor | None:
        """Return the labels for the action: a fraction of the items gets "no class"."""
        if not self._config.action.classes:
            return None
        nothing = no_label(self._config)
        if nothing is None:
            return found.labels
        dropped = uniform(self._config.seed, Purpose.LABEL_DROPOUT, found.indices) < self._config.action.label_dropout
        return torch.where(dropped, nothing, found.labels)


def sample_times(batch: TrainingBatch, times: TimeSampler, config: Config) -> TrainingBatch:
    """Return a batch with its times and their density."""
    size, dtype = config.training.batch_size, batch.pairs.noise.dtype
    step, first = divmod(batch.indices[0], size)
    t, density = times.sample(config.seed, step, range(first, first + len(batch.indices)), size)
    return replace(batch, t=t.to(dtype).clamp(max=LATEST), density=density.to(dtype))


def parts(batch_size: int, steps: range, rank: int, share: int, micro_batch: int) -> Iterator[range]:
    """Yield the items of each pass of a process: its share of the global batch of each step, `micro_batch` at a time."""
    for step in steps:
        for start in range(rank * share, (rank + 1) * share, micro_batch):
            yield range(step * batch_size + start, step * batch_size + start + micro_batch)


@dataclass
class Failure:
    """An error in place of a batch, which a worker sends to the training process."""

    error: Exception


class _Attempts(Dataset["TrainingBatch | Failure"]):
    """Items whose errors are returned as values, because workers would add a traceback to raised ones."""

    def __init__(self, items: TrainingItems):
        self.items = items

    def __getitems__(self, indices: Sequence[int]) -> TrainingBatch | Failure:
        try:
            return self.items.__getitems__(indices)
        except AmgenError as error:
            return Failure(error)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return Failure(MemoryError(str(error) or "out of memory"))


class Loader:
    """Returns the batches one after another, and can fetch the next one while the device is busy.

    Args:
        batches: the batches in order; a `Failure` in place of a batch that could not be built.
        waited: called with the seconds that each batch took to arrive.
    """

    def __init__(self, batches: Iterator[TrainingBatch | Failure], waited: Callable[[float], None] = lambda seconds: None):
        self._batches = batches
        self._waited = waited
        self._next: TrainingBatch | Failure | None = None

    def fetch(self) -> None:
        """Fetch the next batch, if there is one. Errors are raised by `take`, when the batch is needed."""
        if self._next is not None:
            return
        started = time.perf_counter()
        try:
            self._next = next(self._batches, None)
        except Exception as error:
            self._next = Failure(error)
        self._waited(time.perf_counter() - started)

    def take(self) -> TrainingBatch:
        """Return the next batch.

        Raises:
            AmgenError: if it cannot be built.
            IndexError: after the last one.
        """
        self.fetch()
        found, self._next = self._next, None
        if isinstance(found, Failure):
            raise found.error
        if found is None:
            raise IndexError("there is no batch after the last one")
        return found


@contextmanager
def load_batches(
    items: TrainingItems, parts: Iterable[Sequence[int]], workers: int, pin_memory: bool, waited: Callable[[float], None]
) -> Iterator[Loader]:
    """Yield a loader of the items, a batch for each of `parts`. Its worker processes end with the block.

    Args:
        items: the items to load.
        parts: indices of each batch, in order.
        workers: number of processes that build batches ahead; 0 to build them in this process.
        pin_memory: whether batches come in page-locked memory, for a GPU.
        waited: called with the seconds that each batch took to arrive.
    """
    loader = DataLoader(
        _Attempts(items),
        batch_sampler=parts,  # type: ignore[arg-type]
        collate_fn=_unchanged,  # type: ignore[arg-type]
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=start_worker,
        generator=torch.Generator(),
    )
    batches = iter(loader)
    try:
        yield Loader(batches, waited)
    finally:
        if workers:  # they ignore the signal by which Python would end them with this process
            batches._shutdown_workers()  # type: ignore[attr-defined]


def start_worker(number: int) -> None:
    """Prepare a worker process. It ignores signals: the training process handles them and needs the batches of its last step.

    Workers notice by themselves when the training process has ended.
    """
    for sign in SIGNALS:
        signal.signal(sign, signal.SIG_IGN)
    forget_locks()


def _unchanged(batch: TrainingBatch | Failure) -> TrainingBatch | Failure:
    return batch
