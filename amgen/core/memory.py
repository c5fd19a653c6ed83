"""Free memory, and the memory that a function needs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

GROUPS = Path("/proc/self/cgroup")

GROUP_FILES = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Control groups of Linux by controller (empty for version 2): mount point, file of the limit, file of the use, and the entry of the
statistics for memory that is released on demand."""


def free_bytes(device: torch.device) -> int:
    """Return the number of free bytes of a device.

    For CUDA it is what the driver reports plus what PyTorch has reserved but does not use. Otherwise it is the available memory of the
    machine, or less if the control groups of a container or a batch job allow less.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return max(0, min([psutil.virtual_memory().available, *allowances()]))


def allowances(groups: Path = GROUPS, mount: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Yield the bytes left in each Linux control group of this process and in each of its parents."""
    lines = groups.read_text().splitlines() if groups.is_file() else []
    for controllers, path in (line.split(":", 2)[1:] for line in lines):
        for controller in controllers.split(","):
            if controller in GROUP_FILES:
                folder, limit, use, spare = GROUP_FILES[controller]
                # Inside a container the innermost groups may not be visible; the mount point is then that of the container.
                inner = (mount / folder).joinpath(path.lstrip("/"))
                for group in [inner, *inner.parents]:
                    if group.is_relative_to(mount / folder):
                        yield from _allowance(group / limit, group / use, group / "memory.stat", spare)


def _allowance(limit: Path, use: Path, statistics: Path, spare: str) -> Iterator[int]:
    """Yield the bytes left in one control group, if it has a limit and its use can be read."""
    try:
        text = limit.read_text().strip()
        if text != "max":
            known = statistics.read_text().splitlines() if statistics.is_file() else []
            yield int(text) - int(use.read_text()) + int(dict(line.split() for line in known).get(spare, 0))
    except (OSError, ValueError):  # the files of a group may be missing or incomplete
        return


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the peak number of bytes in tensors that `work` creates, on any device.

    It adds up the storage of the results of operations, so it is the same at every call. Workspaces inside kernels are not counted.
    """
    with _Counter() as counter:
        work()
    return counter.peak


class _Counter(TorchDispatchMode):
    """A dispatch mode that adds up the live storages after each operation, backward passes included."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = WeakIdKeyDictionary()
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages((args, kwargs)):
            self.alive.setdefault(storage, 0)  # storage from before is not counted
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            self.alive.setdefault(storage, storage.nbytes())
        self.peak = max(self.peak, sum(self.alive.values()))
        return result


def _storages(values: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
