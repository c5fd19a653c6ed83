"""Activation checkpointing that holds under double backward.

A block that is recomputed keeps its inputs alone. `torch.utils.checkpoint` saves nothing here: the inner gradient of the loss recomputes
every activation, and the outer one then needs them all kept. So the block's pullback is recomputed as well: it keeps its inputs and the
gradient that came in, and its own derivative computes block and pullback anew, one block at a time.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp


def recompute(module: nn.Module, *inputs: Tensor, keys: Tensor | None = None) -> Tensor:
    """Evaluate `module(*inputs, keys)` and keep no activation inside for the backward passes; derivatives of any order are right.

    The module must be a function of inputs, keys and parameters: dropout by keys, no running statistics.
    """
    names, parameters = zip(*module.named_parameters(), strict=True)
    device, count = inputs[0].device.type, len(inputs)
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def run(*tensors: Tensor) -> Tensor:
        # Backward passes run outside the region of mixed precision that the forward pass ran in.
        with torch.autocast(device, dtype, enabled, cache_enabled=False):
            return functional_call(module, dict(zip(names, tensors[count:], strict=True)), (*tensors[:count], keys))

    return _Recomputed.apply(run, *inputs, *parameters)


class _Recomputed(torch.autograd.Function):
    """A function of tensors that keeps them alone."""

    generate_vmap_rule = True

    @staticmethod
    def forward(run: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        return run(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.run, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = tuple(ctx.needs_input_grad[1:])
        found = iter(_Pullback.apply(ctx.run, needed, gradient, *ctx.saved_tensors))
        return None, *(next(found) if need else None for need in needed)


class _Pullback(torch.autograd.Function):
    """The pullback of a function, likewise: (gradient, tensors) to the gradients of those tensors that need one."""

    generate_vmap_rule = True

    @staticmethod
    def forward(run: Callable[..., Tensor], needed: tuple[bool, ...], gradient: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        return _pull(run, needed, gradient, *tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.run, ctx.needed, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _, pullback = vjp(lambda *tensors: _pull(ctx.run, ctx.needed, *tensors), *ctx.saved_tensors)  # type: ignore[misc]
        return None, None, *pullback(gradients)


def _pull(run: Callable[..., Tensor], needed: tuple[bool, ...], gradient: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of the tensors that need one."""
    places = [place for place, need in enumerate(needed) if need]

    def restricted(*chosen: Tensor) -> Tensor:
        values = list(tensors)
        for place, value in zip(places, chosen, strict=True):
            values[place] = value
        return run(*values)

    _, pullback = vjp(restricted, *(tensors[place] for place in places))  # type: ignore[misc]
    return pullback(gradient)
