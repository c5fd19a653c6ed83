"""Activation checkpointing that also works under double backward.

A block that is recomputed keeps its inputs only. `torch.utils.checkpoint` saves no memory here: the inner gradient of the loss recomputes
all activations, and the outer one then keeps all of them. So the pullback (the vector-Jacobian product) of the block is recomputed as well.
It keeps its inputs and its incoming gradient, and its derivative recomputes block and pullback, one block at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp

from amgen.actions.second_order import by_rule, differentiated_twice


def recompute(module: nn.Module, *inputs: Tensor, dropout_seeds: Tensor | None = None) -> Tensor:
    """Return `module(*inputs, dropout_seeds)` without keeping the activations inside; derivatives of any order are exact.

    The module must be a function of its inputs, seeds and parameters: dropout by seeds, no running statistics.
    """
    names, parameters = zip(*module.named_parameters(), strict=True)
    device, count = inputs[0].device.type, len(inputs)
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def run(*tensors: Tensor) -> Tensor:
        # Backward passes run outside the autocast region of the forward pass.
        with torch.autocast(device, dtype, enabled, cache_enabled=False):
            return functional_call(module, dict(zip(names, tensors[count:], strict=True)), (*tensors[:count], dropout_seeds))

    pull = _pull_twice if by_rule() else _pull
    return _Recomputed.apply(_Function(run, pull, count), *inputs, *parameters)


@dataclass(frozen=True)
class _Function:
    """A function of tensors: the first `inputs` are inputs, the others parameters; `pull` returns its gradients."""

    run: Callable[..., Tensor]
    pull: Callable[..., tuple[Tensor, ...]]
    inputs: int


class _Recomputed(torch.autograd.Function):
    """A function of tensors that keeps only its arguments for the backward pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(function: _Function, *tensors: Tensor) -> Tensor:
        return function.run(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.function, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        function, needed = ctx.function, ctx.needs_input_grad[1:]
        if function.pull is _pull_twice and torch.is_grad_enabled():  # the inner pass, which needs gradients in the inputs only
            needed = [need and place < function.inputs for place, need in enumerate(needed)]
        found = iter(_Pullback.apply(function, tuple(needed), gradient, *ctx.saved_tensors))
        return None, *(next(found) if need else None for need in needed)


class _Pullback(torch.autograd.Function):
    """The pullback of a function, likewise: it maps (gradient, tensors) to the gradients of the tensors that need one."""

    generate_vmap_rule = True

    @staticmethod
    def forward(function: _Function, needed: tuple[bool, ...], gradient: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        return function.pull(function.run, needed, gradient, *tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.function, ctx.needed, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        function, needed = ctx.function, ctx.needed
        if function.pull is _pull_twice:
            with torch.enable_grad(), differentiated_twice():
                tensors = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
                slopes = _pull_twice(function.run, needed, *tensors)
            return None, None, *torch.autograd.grad(slopes, tensors, gradients, materialize_grads=True)
        _, pullback = vjp(lambda *tensors: _pull(function.run, needed, *tensors), *ctx.saved_tensors)  # type: ignore[misc]
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


def _pull_twice(run: Callable[..., Tensor], needed: tuple[bool, ...], gradient: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the same without torch.func, which the rules of the layers do not support."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        values = [tensor if again else tensor.detach().requires_grad_(need) for tensor, need in zip(tensors, needed, strict=True)]
        output = run(*values)
    wanted = [value for value, need in zip(values, needed, strict=True) if need]
    return torch.autograd.grad(output, wanted, gradient, create_graph=again, materialize_grads=True)
