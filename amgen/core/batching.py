"""Work on many samples in batches: as large as memory allows and speed gains from, and smaller after memory runs out."""

import gc
import math
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeVar

import torch

from amgen.core.errors import UserError, out_of_memory
from amgen.core.memory import free_bytes, peak_bytes
from amgen.core.processes import Processes

T = TypeVar("T")

Size = int | Literal["auto"]

Probe = Callable[[Sequence[int]], object]
"""One evaluation of the work for some samples, to measure its memory."""

SHARE = 0.5
"""Fraction of the free memory for tensors; the rest is for memory that is not counted, such as workspaces of convolutions."""

USEFUL_PER_THREAD = 96 * 2**20
"""Bytes of activations per CPU thread; larger batches are not faster.

Velocities a second of untrained networks on one thread (AMD EPYC, 1 MB of L2, 32 MB of L3), each sample taking 0.2 MB and 6.9 MB:

    batch            1     4    16    32    64   128   256   512  1024
    digits         232   420  1184  1833  2498  3079  3485  3524  2821
    cifar10-small 41.2  62.3  71.9  74.4  69.3

These bytes hold 486 of the first and 14 of the second.
"""

USEFUL_ON_ACCELERATOR = 8 * 2**30
"""The same for a GPU, which needs many more samples; not measured."""

MOST = 4096
"""Largest batch, for small samples: points gain no speed beyond, and progress is reported and written after each batch."""


def in_batches(
    work: Callable[[Sequence[int]], T],
    indices: Sequence[int],
    size: Size,
    probe: Probe,
    device: torch.device,
    processes: Processes = Processes(),  # noqa: B008 (immutable)
    say: Callable[[str], None] = print,
) -> Iterator[tuple[Sequence[int], T]]:
    """Do the work of this process's share of the samples; yield each batch with its result.

    All processes divide the samples in the same way. A process that runs out of memory halves its batch, and uses the smaller size for the
    rest of its share. The other processes are not affected.

    Args:
        work: function of the indices of a batch. It is called again for the halves of a batch that did not fit.
        indices: indices of all samples, the same in every process.
        size: largest number of samples in a batch, or auto, see `fitting`.
        probe: the work whose memory `auto` measures.
        device: device of the work.
        processes: the processes that share the work; each calls this function.
        say: called with a message after memory ran out.

    Raises:
        UserError: if a single sample does not fit.
    """
    if size == "auto":
        most = fitting(probe, indices, device, processes)
    else:
        most = min(size, len(indices))
        # When a CPU runs out of memory, the system kills the process without an error. So unusually large batches are measured before.
        if most > MOST and (fits := _fitting_memory(probe, indices, device, processes)) < most:
            say(f"{most:,} samples at a time do not fit the memory of {device}: taking {fits:,}")
            most = fits
    left = deque(processes.share(divide(indices, most, processes.count)))
    limit, failed = most, 0
    while left:
        batch = left.popleft()
        if len(batch) > limit:
            left.extendleft(reversed(divide(batch, limit)))
            continue
        try:
            done = work(batch)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            limit, failed, reason = len(batch) // 2, failed or len(batch), str(error).partition("\n")[0]
        else:
            if failed:
                say(f"{device} ran out of memory with {failed:,} samples at a time: going on with {limit:,}")
                failed = 0
            yield batch, done
            del done
            continue
        # Outside the handler, whose traceback refers to the tensors of the work.
        _release()
        if not limit:
            raise UserError(
                f"{device} has no memory left for a single sample ({reason}): end other programs that use it, or choose another --device"
            )
        left.appendleft(batch)


def divide(indices: Sequence[int], size: int, processes: int = 1) -> list[Sequence[int]]:
    """Divide indices into batches of at most `size`, of nearly equal sizes and the same number for each process."""
    if not indices:
        return []
    rounds = math.ceil(len(indices) / (size * processes))
    each = math.ceil(len(indices) / (rounds * processes))
    return [indices[start : start + each] for start in range(0, len(indices), each)]


def fitting(probe: Probe, indices: Sequence[int], device: torch.device, processes: Processes = Processes()) -> int:  # noqa: B008
    """Return the batch size: the number of samples that fit half of the free memory, but not more than gain speed.

    The memory is measured for one sample and for two, and extrapolated linearly, which does not underestimate it. Processes on one device
    share its memory. All processes use the smallest number that one of them found.
    """
    budget = min(_share_of_memory(device, processes), _useful_bytes(device))
    return min(MOST, *processes.gather([_fitting(probe, indices, budget)]))


def _fitting_memory(probe: Probe, indices: Sequence[int], device: torch.device, processes: Processes) -> int:
    """Return the number of samples that fit half of the free memory, without the limit by speed; otherwise as `fitting`."""
    return min(processes.gather([_fitting(probe, indices, _share_of_memory(device, processes))]))


def _share_of_memory(device: torch.device, processes: Processes) -> float:
    """Return the number of bytes of a device that this process may use for tensors."""
    place = (socket.gethostname(), _identity(device))
    sharers = processes.gather([place]).count(place)
    return SHARE * free_bytes(device) / sharers


def _fitting(probe: Probe, indices: Sequence[int], budget: float) -> int:
    """Return the number of samples that fit `budget` bytes, at least one."""
    if len(indices) < 2:
        return 1
    try:
        one, two = (peak_bytes(lambda: probe(indices[:count])) for count in (1, 2))  # noqa: B023 (called at once)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return 1
    each = max(1, two - one)
    return max(1, int((budget - one) / each) + 1)


def _identity(device: torch.device) -> str:
    """Return an identifier of a device on its machine: the first GPUs of two processes may be different ones."""
    properties = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return str(getattr(properties, "uuid", device))


def _useful_bytes(device: torch.device) -> int:
    return USEFUL_PER_THREAD * torch.get_num_threads() if device.type == "cpu" else USEFUL_ON_ACCELERATOR


def _release() -> None:
    """Release the memory of failed work on the device."""
    from accelerate.utils.memory import clear_device_cache

    gc.collect()
    clear_device_cache()
