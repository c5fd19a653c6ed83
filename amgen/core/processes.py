"""The processes of a command and their communication."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from amgen.core import launch
from amgen.core.errors import PeerLost, UserError
from amgen.core.launch import TIMEOUT, timeout, world_size

T = TypeVar("T")

MERGED_ROWS = 8192
"""Number of rows of a table that are sent together; it bounds the memory on the device."""


@dataclass(frozen=True)
class Processes:
    """This process and the others that share its work.

    Attributes:
        rank: number of this process.
        count: number of processes.
        device: name of this process's torch device, or auto for a GPU if there is one.
    """

    rank: int = 0
    count: int = 1
    device: str = "auto"

    @classmethod
    def join(cls, device: str) -> "Processes":
        """Connect to the other processes of torchrun or `accelerate launch`, if there are any.

        From then on, a process waits for the others for at most AMGEN_TIMEOUT seconds (an environment variable).

        Raises:
            UserError: if the environment of the launcher is incomplete.
            PeerLost: if the other processes do not connect.
        """
        count = world_size()
        if count == 1:
            return cls(device=device)
        from accelerate import PartialState

        with notice_lost_peers(count, launch.rank()):
            state = PartialState(
                cpu=device == "cpu" or not torch.accelerator.is_available(),
                timeout=timedelta(seconds=timeout()),
            )
        if state.num_processes != count:
            raise UserError(f"WORLD_SIZE={count}, but each process would work alone: launch with torchrun, which sets LOCAL_RANK as well")
        return cls(state.process_index, state.num_processes, str(state.device) if device == "auto" else device)

    @property
    def main(self) -> bool:
        """Whether this is the process that reports."""
        return self.rank == 0

    def share(self, work: Sequence[T]) -> list[T]:
        """Return this process's part of a list of work."""
        return list(work[self.rank :: self.count])

    def gather(self, values: list[T]) -> list[T]:
        """Return the lists of all processes joined, in every process."""
        if self.count == 1:
            return values
        parts: list[Any] = [None] * self.count
        with notice_lost_peers(self.count, self.rank):
            torch.distributed.all_gather_object(parts, values)
        return [value for part in parts for value in part]

    def agree(self, found: T) -> T:
        """Return the value of the main process in every process."""
        return self.gather([found])[0]

    def merge(self, table: Tensor) -> Tensor:
        """Sum the tables (N, D) of all processes in place; each has filled its own rows and left zeros elsewhere."""
        if self.count > 1:
            device = torch.device(self.device) if torch.distributed.get_backend() == "nccl" else torch.device("cpu")
            for part in table.split(MERGED_ROWS):
                total = part.to(device)
                with notice_lost_peers(self.count, self.rank):
                    torch.distributed.all_reduce(total)
                    part.copy_(total)  # here, where the failure of a GPU shows
        return table

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            with notice_lost_peers(self.count, self.rank):
                torch.distributed.barrier()


def leave() -> None:
    """Disconnect from the other processes after all have finished, if there are any.

    An interpreter that exits with open connections may abort. One that exits early would break the connections of the others.

    Raises:
        PeerLost: if another process does not finish.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        with notice_lost_peers(torch.distributed.get_world_size(), torch.distributed.get_rank()):
            torch.distributed.barrier()
        torch.distributed.destroy_process_group()


@contextmanager
def notice_lost_peers(count: int, rank: int) -> Iterator[None]:
    """Turn the failure of a collective operation of `count` processes into a `PeerLost`.

    Raises:
        PeerLost: if another process died, or did not answer in time.
    """
    try:
        yield
    except RuntimeError as error:
        if count == 1 or not of_a_peer(error):
            raise
        raise lost(error, count, rank) from None


def lost(error: RuntimeError, count: int, rank: int) -> PeerLost:
    """Return the error for an exception of the communication with other processes."""
    reason = reason_of(error)
    return PeerLost(
        f"process {rank} stops because another of the {count} is lost ({reason}): run the same command again; "
        f"if a process only needs more time, raise {TIMEOUT}={timeout()} (seconds), or for amgen train training.timeout",
        reason,
    )


def of_a_peer(error: RuntimeError) -> bool:
    """Return whether an error comes from the communication with other processes; those of Gloo have no class."""
    return isinstance(error, torch.distributed.DistError) or any(word in str(error) for word in ("gloo", "NCCL", "ncclComm"))


def reason_of(error: RuntimeError) -> str:
    """Return the first line of an error, at most 200 characters."""
    return (str(error).strip().splitlines() or ["no reason given"])[0][:200]


def require_single(command: str) -> None:
    """Refuse to run a command in several processes if it cannot share its work.

    Raises:
        UserError: if torchrun started more than one process.
    """
    processes = world_size()
    if processes > 1:
        raise UserError(f"{command} runs in one process, but was launched in {processes}: run it without torchrun")
