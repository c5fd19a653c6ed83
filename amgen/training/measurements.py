"""Measurements of a run: metrics of its steps, norms of the gradient, the weights and the averages, speed and memory."""

import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from amgen.core.devices import double
from amgen.model.checkpoints import rate_text


class StepMetrics:
    """Metrics of the steps since the last synchronisation. They stay on the device until they are read.

    Args:
        dtype: dtype of the metrics.
    """

    def __init__(self, dtype: torch.dtype):
        self._dtype = dtype
        self._sums: dict[str, Tensor] = {}
        self._names: list[list[str]] = []
        self._rows: list[Tensor] = []

    def add_pass(self, values: Mapping[str, Tensor], passes: int) -> None:
        """Add the values of each sample, (B,), of one pass; a step has `passes` of them."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value.to(self._dtype).mean() / passes

    def end_step(self, gradient_norm: Tensor) -> None:
        """Keep the means over the passes and the gradient norm as the metrics of a step."""
        self._names.append([*self._sums, "gradient_norm"])
        self._rows.append(torch.stack([*self._sums.values(), gradient_norm.to(self._dtype)]))
        self._sums = {}

    def read(self, counts: Sequence[float], average: Callable[[Tensor], Tensor]) -> tuple[list[dict[str, float]], list[float]]:
        """Return the metrics of each step, averaged over the processes, and forget them. This waits for the device.

        Args:
            counts: further numbers of this process.
            average: returns the mean of a tensor over all processes.

        Returns:
            For each step, name to value; and the means of `counts`.
        """
        values = iter(average(torch.cat([*self._rows, self._rows[0].new_tensor(counts)])).tolist())
        steps = [{name: next(values) for name in names} for names in self._names]
        self._names, self._rows = [], []
        return steps, list(values)


def gradient_norms(module: nn.Module) -> dict[str, Tensor]:
    """Return the norm of the gradient of each parameter by its name, on the device."""
    gradients = {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}
    return dict(zip(gradients, torch._foreach_norm(list(gradients.values())), strict=True))


def block_norms(norms: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the norm of the gradient of each block of an action, `gradient_norm/BLOCK` to norm, from those of its parameters."""
    squares = double(torch.stack(list(norms.values()))).square().tolist()
    totals: dict[str, float] = {}
    for name, square in zip(norms, squares, strict=True):
        block = _block_of(name)
        totals[block] = totals.get(block, 0.0) + square
    return {f"gradient_norm/{block}": total**0.5 for block, total in totals.items()}


def weight_norm(module: nn.Module) -> float:
    """Return the norm of all weights together."""
    return _norm([parameter.detach() for parameter in module.parameters()])


def average_distances(module: nn.Module, averages: Mapping[float, Mapping[str, Tensor]]) -> dict[str, float]:
    """Return the distance of each average from the weights, relative to the norm of the weights, by the name `ema_distance/RATE`."""
    weights = module.state_dict()
    size = _norm(list(weights.values()))
    differences = {rate: [weights[name] - tensor for name, tensor in average.items()] for rate, average in averages.items()}
    return {f"ema_distance/{rate_text(rate)}": _norm(tensors) / size for rate, tensors in differences.items()}


class Stopwatch:
    """Measures speed, waiting for data and memory, between two lines of the log.

    Args:
        device: the device whose memory is measured.
        images: images seen so far.
    """

    def __init__(self, device: torch.device, images: int):
        self._device = device
        self._waited = 0.0
        self.start(images)

    def start(self, images: int) -> None:
        """Measure from now on."""
        self._started, self._images, self._waited = time.perf_counter(), images, 0.0

    def waited(self, seconds: float) -> None:
        """Add seconds in which the loop waited for data."""
        self._waited += seconds

    def lap(self, images: int) -> dict[str, float]:
        """Return images per second, the share of time spent waiting for data, and memory, since the last call; `images` are those seen."""
        elapsed, waited, count = time.perf_counter() - self._started, self._waited, images - self._images
        self.start(images)
        return {"images_per_second": count / elapsed, "data_wait": waited / elapsed, "memory_mb": _peak_memory(self._device) / 2**20}


def _peak_memory(device: torch.device) -> int:
    """Return the most bytes used so far: by tensors on a GPU, elsewhere by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _norm(tensors: list[Tensor]) -> float:
    return float(torch.linalg.vector_norm(double(torch.stack(torch._foreach_norm(tensors)))))


def _block_of(parameter: str) -> str:
    """Return the block that a parameter belongs to: `down.0` for body.down.0.0.conv1.weight, `stem` for body.stem.weight."""
    parts = parameter.removeprefix("body.").split(".")
    return ".".join(parts[: 2 if parts[0] in ("down", "up") else 1])
