"""The processes of a run: launchers that are refused, and the handling of processes that fail or die."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from amgen.core.errors import AmgenError, PeerLost, UserError, out_of_memory
from amgen.core.processes import Processes, of_a_peer, reason_of
from amgen.model import checkpoints

T = TypeVar("T")

SHARDED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "sharding by a parallelism configuration",
}
"""Environment variables by which a launcher asks for sharded weights."""


def refuse_sharding() -> None:
    """Refuse launchers that shard the weights among the processes.

    Raises:
        UserError: with the reason.
    """
    for variable, name in SHARDED.items():
        if os.environ.get(variable, "").lower() in ("1", "true", "yes"):
            raise UserError(
                f"{name} ({variable}) frees each layer's weights as soon as one backward pass has used them, but the loss differentiates "
                "the action twice and needs them again: launch with torchrun, which keeps whole weights on every process, and lower "
                "memory by training.micro_batch or training.checkpoint_activations=true"
            )


@contextmanager
def notice_lost_peers(run: Path, rank: int, processes: int) -> Iterator[None]:
    """Turn the failure of a collective operation into one line: what happened, and how to continue.

    Raises:
        PeerLost: if another process died, or did not answer in time.
    """
    try:
        yield
    except (RuntimeError, PeerLost) as error:
        if isinstance(error, RuntimeError) and (processes == 1 or not of_a_peer(error)):
            raise
        last = checkpoints.latest(run)
        rescue = f"the last checkpoint is {last}" if last else "no checkpoint had been written"
        reason = error.reason if isinstance(error, PeerLost) else reason_of(error)
        raise PeerLost(
            f"process {rank} stops because another of the {processes} is lost ({reason}): {rescue}; run the same command again to go on",
            reason,
        ) from None


class SharedWorkFailed(AmgenError):
    """Shared work failed in one of the processes, so all of them stop it."""


@dataclass(frozen=True)
class FaultTolerantProcesses(Processes):
    """Processes that all stop shared work if it fails in one of them, instead of waiting for that one.

    Before each exchange, every process reports whether it has failed. A process that fails reports it once (`report_failure`); the others
    learn of it at their next exchange, or at the end (`finish`).
    """

    def gather(self, values: list[T]) -> list[T]:
        """Return the lists of all processes joined. Raises SharedWorkFailed in all of them if one has failed."""
        self.finish()
        return super().gather(values)

    def merge(self, table: Tensor) -> Tensor:
        """Add up tables. Raises SharedWorkFailed in all processes if one has failed."""
        self.finish()
        return super().merge(table)

    def finish(self) -> None:
        """Wait until the others are here. Raises SharedWorkFailed in all processes if one has failed."""
        if reason := next(filter(None, super().gather([""])), None):
            raise SharedWorkFailed(reason)

    def report_failure(self, reason: str) -> None:
        """Tell the others that the work has failed in this process."""
        super().gather([reason])


@contextmanager
def tolerate_failure(processes: FaultTolerantProcesses, say: Callable[[str], None], what: str) -> Iterator[None]:
    """Run a block that all processes share and that may fail. A failure is reported in one line, and training continues after the block.

    Args:
        processes: the processes of the block.
        say: prints the line, in the main process.
        what: name of the work, for the start of the line.
    """
    reason = ""
    try:
        yield
        processes.finish()
    except SharedWorkFailed as error:
        reason = str(error)
    except Exception as error:  # of any class: an image grid that fails must not end a training
        if isinstance(error, PeerLost) or (isinstance(error, RuntimeError) and processes.count > 1 and of_a_peer(error)):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, AmgenError) and not out_of_memory(error):
            reason = f"{type(error).__name__}: {reason}"
        processes.report_failure(reason)
    if reason and processes.main:
        say(f"{what} failed ({reason}): training continues without it")


@contextmanager
def explain_failures(device: torch.device, images: int, workers: int) -> Iterator[None]:
    """Turn the errors of libraries after memory runs out, or a worker process is killed, into one line.

    Args:
        device: the device of the network.
        images: number of images in one pass of a process; 0 while the network is built.
        workers: worker processes that load data.

    Raises:
        UserError: with what to do.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        if out_of_memory(error) and not images:
            raise UserError(f"{device} has not enough memory for this network ({reason}): set a smaller action.width") from None
        if out_of_memory(error):
            raise UserError(
                f"{device} has not enough memory for a pass of {images:,} images ({reason}): set training.micro_batch to a part of them, "
                "training.checkpoint_activations=true, or a smaller training.batch_size"
            ) from None
        if "DataLoader worker" in str(error):
            raise UserError(
                f"one of the data.workers={workers} worker processes was killed ({reason}), most often because memory ran out: "
                "set fewer data.workers or a smaller data.memory_mb, and run the same command again"
            ) from None
        raise
