"""The processes that a command was launched in, and what they tell each other."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from amgen.errors import UserError

T = TypeVar("T")
MERGED_ROWS = 8192
"""Rows of a table that are on their way at a time, which bounds the memory on the device."""


@dataclass(frozen=True)
class Processes:
    """This process among those that do the same work.

    Attributes:
        rank: number of this process.
        count: how many there are.
        device: where this one computes: a torch device's name, or auto for a GPU where there is one.
    """

    rank: int = 0
    count: int = 1
    device: str = "auto"

    @classmethod
    def join(cls, device: str) -> "Processes":
        """Join the other processes of a torchrun or `accelerate launch`, if there are any."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(device=device)
        from accelerate import PartialState

        state = PartialState(cpu=device == "cpu" or not torch.accelerator.is_available())
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
        torch.distributed.all_gather_object(parts, values)
        return [value for part in parts for value in part]

    def agree(self, found: T) -> T:
        """Return in every process what the main one found."""
        return self.gather([found])[0]

    def merge(self, table: Tensor) -> Tensor:
        """Add up the tables (N, D) of all processes in place, each of which has filled rows of its own and left zeros elsewhere."""
        if self.count > 1:
            device = torch.device(self.device) if torch.distributed.get_backend() == "nccl" else torch.device("cpu")
            for part in table.split(MERGED_ROWS):
                total = part.to(device)
                torch.distributed.all_reduce(total)
                part.copy_(total)
        return table

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            torch.distributed.barrier()


def leave() -> None:
    """Part from the other processes once all are done, if there are any.

    An interpreter that ends while its connections are open may abort, and one that ends early cuts off those that still work.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def require_single(command: str) -> None:
    """Refuse to run a command in several processes when it does not divide its work among them.

    Raises:
        UserError: under a torchrun of more than one process.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise UserError(f"{command} runs in one process, but was launched in {processes}: run it without torchrun")
