"""Arithmetic of float32 products on a GPU, and where float64 can be had."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from amgen.core.errors import UserError


def set_tf32(allowed: bool) -> None:
    """Let NVIDIA GPUs round the factors of float32 products and convolutions to 10 bits (TF32), or not.

    PyTorch by itself allows it in convolutions and not in products. Here the steps of a training are computed as `training.precision` says,
    and everything else in full precision: samples, features, likelihoods, and the grids and evaluations of a training, so that one model
    gives one figure whichever command asks for it.
    """
    # These flags set the newer `fp32_precision` along with them; the reverse leaves states that torch.compile refuses to read.
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
    """Return a tensor in float64: on its own device, or on the CPU where that device knows no float64 (Apple's GPUs)."""
    return tensor.double() if has_float64(tensor.device) else tensor.cpu().double()


def has_float64(device: torch.device) -> bool:
    """Tell whether a device computes in float64."""
    return device.type != "mps"


def device_of(name: str) -> torch.device:
    """Return the device of that name; auto for a GPU where there is one. What is computed there is in full precision, without TF32.

    Raises:
        UserError: if it cannot be used here.
    """
    set_tf32(False)
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        float(torch.zeros(1, device=device))  # which a device that computes nothing, such as meta, refuses
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device
