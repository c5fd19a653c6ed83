"""What is watched of a run beside its loss: norms of the gradient, the weights and the averages, and what the machine does."""

import resource
import sys
import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from amgen.core.devices import double
from amgen.model.checkpoints import rate_text


def gradient_norms(module: nn.Module) -> dict[str, float]:
    """Return the norm of the gradient of each block of an action, `gradient_norm/BLOCK` to norm."""
    named = [(_block_of(name), parameter.grad) for name, parameter in module.named_parameters() if parameter.grad is not None]
    squares = double(torch.stack(torch._foreach_norm([gradient for _, gradient in named]))).square().tolist()
    totals: dict[str, float] = {}
    for (block, _), square in zip(named, squares, strict=True):
        totals[block] = totals.get(block, 0.0) + square
    return {f"gradient_norm/{block}": total**0.5 for block, total in totals.items()}


def weight_norm(module: nn.Module) -> float:
    """Return the norm of all weights together."""
    return _norm([parameter.detach() for parameter in module.parameters()])


def average_distances(module: nn.Module, averages: Mapping[float, Mapping[str, Tensor]]) -> dict[str, float]:
    """Return how far each average of the weights is from them, relative to their norm, `ema_distance/RATE` to distance."""
    weights = module.state_dict()
    size = _norm(list(weights.values()))
    differences = {rate: [weights[name] - tensor for name, tensor in average.items()] for rate, average in averages.items()}
    return {f"ema_distance/{rate_text(rate)}": _norm(tensors) / size for rate, tensors in differences.items()}


class Stopwatch:
    """Measures the machine between lines of the record."""

    def __init__(self, device: torch.device):
        self._device = device
        self._started = time.perf_counter()
        self._waited = 0.0

    def waiting(self, seconds: float) -> None:
        """Note that the loop stood still for data."""
        self._waited += seconds

    def lap(self, images: int) -> dict[str, float]:
        """Return the throughput, the share of time spent waiting for data, and memory, for `images` since the last call."""
        now = time.perf_counter()
        elapsed, waited = now - self._started, self._waited
        self._started, self._waited = now, 0.0
        return {"images_per_second": images / elapsed, "data_wait": waited / elapsed, "memory_mb": _peak_memory(self._device) / 2**20}


def _peak_memory(device: torch.device) -> int:
    """Return the most bytes held so far: tensors on a GPU, elsewhere the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _norm(tensors: list[Tensor]) -> float:
    return float(torch.linalg.vector_norm(double(torch.stack(torch._foreach_norm(tensors)))))


def _block_of(parameter: str) -> str:
    """Return the block that a parameter belongs to: `down.0` for body.down.0.0.conv1.weight, `stem` for body.stem.weight."""
    parts = parameter.removeprefix("body.").split(".")
    return ".".join(parts[: 2 if parts[0] in ("down", "up") else 1])
