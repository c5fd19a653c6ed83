"""Reading the training stream, in this process or in workers of its own."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from amgen.core.batching import out_of_memory
from amgen.core.errors import AmgenError
from amgen.core.files import forget_locks
from amgen.data import Batch
from amgen.training.coupled import CoupledStream
from amgen.training.interrupts import SIGNALS


@dataclass
class Failure:
    """What went wrong while a batch was read, on its way to the process that asked for it."""

    error: Exception


class _Reader(Dataset["Batch | Failure"]):
    """A stream whose errors come as values: workers would wrap them in their own traceback."""

    def __init__(self, stream: CoupledStream):
        self.stream = stream

    def __getitems__(self, indices: Sequence[int]) -> Batch | Failure:
        try:
            return self.stream.__getitems__(indices)
        except AmgenError as error:
            return Failure(error)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return Failure(MemoryError(str(error) or "out of memory"))

    def __getitem__(self, index: int) -> Batch | Failure:
        return self.__getitems__([index])


@contextmanager
def reading(stream: CoupledStream, parts: Iterable[Sequence[int]], workers: int, pin_memory: bool) -> Iterator[Iterator[Batch]]:
    """Yield an iterator over the items of the `parts` of a stream, read by so many workers, which end with the block.

    Raises:
        AmgenError: what reading raised, wherever it was done.
    """
    loader = DataLoader(
        _Reader(stream),
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
        yield map(_batch, batches)
    finally:
        if workers:  # they ignore the signal by which Python would end them with this process
            batches._shutdown_workers()  # type: ignore[attr-defined]


def start_worker(number: int) -> None:
    """Prepare a worker: signals to the whole group of processes are for the one that trains, which needs its batch for the last step.

    Workers notice by themselves when that process has ended.
    """
    for sign in SIGNALS:
        signal.signal(sign, signal.SIG_IGN)
    forget_locks()


def _batch(found: Batch | Failure) -> Batch:
    if isinstance(found, Failure):
        raise found.error
    return found


def _unchanged(batch: Batch | Failure) -> Batch | Failure:
    return batch
