"""Devices: their precision of float32 products, and which of them have float64."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from amgen.core.errors import UserError


def set_tf32(allowed: bool) -> None:
    """Allow or forbid NVIDIA GPUs to round the factors of float32 products and convolutions to 10 bits (TF32).

    PyTorch allows it by default in convolutions and not in products. Here `training.precision` decides for training steps. Everything else
    is in full precision: samples, features, likelihoods, and the grids and evaluations in training. So a model has the same metrics
    whichever command computes them.
    """
    # These flags also set the newer `fp32_precision`. Setting that one leaves a state that torch.compile refuses to read.
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def tf32(allowed: bool, afterwards: bool = False) -> Iterator[None]:
    """Allow TF32 or not within a block, and allow it or not afterwards."""
    set_tf32(allowed)
    try:
        yield
    finally:
        set_tf32(afterwards)


def double(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float64, on its own device, or on the CPU if the device has no float64 (Apple's GPUs)."""
    return tensor.double() if has_float64(tensor.device) else tensor.cpu().double()


def has_float64(device: torch.device) -> bool:
    """Return whether a device has float64."""
    return device.type != "mps"


def device_of(name: str) -> torch.device:
    """Return the device of that name, or for auto a GPU if there is one; TF32 is switched off.

    Raises:
        UserError: if it cannot be used here.
    """
    set_tf32(False)
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        float(torch.zeros(1, device=device))  # fails on a device that cannot compute, such as meta
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device
