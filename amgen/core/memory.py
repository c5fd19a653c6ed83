"""How much memory is free, and how much some work takes."""

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
"""Of control groups by controller, empty for version 2: where they are mounted, the files of the limit and the use, and the part of the
use that is given back on demand."""


def free_bytes(device: torch.device) -> int:
    """Return how many bytes are free on a device: of a CUDA one as the driver tells, and what PyTorch holds there without use.

    Elsewhere it is the machine's memory, or less where the control groups of a container or a batch job allow less.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return max(0, min([psutil.virtual_memory().available, *allowances()]))


def allowances(groups: Path = GROUPS, mount: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Yield how many bytes each Linux control group that this process is in, and each one around it, still allows."""
    lines = groups.read_text().splitlines() if groups.is_file() else []
    for controllers, path in (line.split(":", 2)[1:] for line in lines):
        for controller in controllers.split(","):
            if controller in GROUP_FILES:
                folder, limit, use, spare = GROUP_FILES[controller]
                # Inside a container the innermost groups may not be visible, but the mount itself is then the container's.
                inner = (mount / folder).joinpath(path.lstrip("/"))
                for group in [inner, *inner.parents]:
                    if group.is_relative_to(mount / folder):
                        yield from _allowance(group / limit, group / use, group / "memory.stat", spare)


def _allowance(limit: Path, use: Path, statistics: Path, spare: str) -> Iterator[int]:
    """Yield what one control group still allows, if it has a limit and says what is used."""
    try:
        text = limit.read_text().strip()
        if text != "max":
            known = statistics.read_text().splitlines() if statistics.is_file() else []
            yield int(text) - int(use.read_text()) + int(dict(line.split() for line in known).get(spare, 0))
    except (OSError, ValueError):  # a group that is not shown, or in part, limits nothing that we could know
        return


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the most bytes that tensors made by `work` hold at once, on any device.

    It counts what operations return, from their shapes, and so the same at every call; not what a kernel takes for itself in between.
    """
    with _Counter() as counter:
        work()
    return counter.peak


class _Counter(TorchDispatchMode):
    """Sees every operation, those of backward passes included, and adds up the storages that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = WeakIdKeyDictionary()
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages((args, kwargs)):
            self.alive.setdefault(storage, 0)  # what was there before is not the work's
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            self.alive.setdefault(storage, storage.nbytes())
        self.peak = max(self.peak, sum(self.alive.values()))
        return result


def _storages(values: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
