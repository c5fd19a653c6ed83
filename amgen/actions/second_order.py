"""Layers with their own rules for second derivatives.

A loss on grad_x s goes through each layer four times: forward; backward with the gradient in x (the inner pass); forward again with the
derivative of the loss in that gradient; and backward with the results of both passes. PyTorch composes the third pass of small operations,
and computes the weight gradient of a convolution there by a convolution with a kernel as large as the image. The rules here call the
kernels of the first derivatives instead, by the closed forms below. They are used inside `input_gradient` only. Elsewhere, and under
torch.compile and torch.func, the layers are those of PyTorch.

Group normalisation: over the N entries of a group, y = weight xhat + bias with xhat = (x - mean) r, r = 1 / sqrt(var + eps). Its
derivative is a symmetric matrix on the group, P = r (1 - 1 1^T / N - xhat xhat^T / N), so that a gradient g in y becomes P a in x with
a = weight g. For v, the derivative of the loss in P a,

    in g: weight P v,    in weight: (P v) g, summed,    in x: -r/N [ <v, P a> xhat + <xhat, a> P v + <xhat, v> P a ].

SiLU, z = y sigmoid(y): z'' = sigmoid' (2 + y (1 - 2 sigmoid)).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

_ACTIVE = ContextVar("_ACTIVE", default=False)

# The kernels that PyTorch's own first derivatives call.
_convolution_backward = torch.ops.aten.convolution_backward.default
_group_norm_backward = torch.ops.aten.native_group_norm_backward.default
_silu_backward = torch.ops.aten.silu_backward.default
_sigmoid_backward = torch.ops.aten.sigmoid_backward.default


def input_gradient(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the gradients of a batch of scalars in each input, and the scalars.

    Both can be differentiated once more, in parameters. With gradients switched off they are constants. Under torch.compile, inside
    transformations of torch.func and in inference mode, torch.func computes them.

    Args:
        function: maps the inputs to scalars (B,). Scalar i must depend on entry i of the inputs only.
        inputs: tensors with the batch as their first dimension.

    Returns:
        The gradients, shaped like the inputs, and the scalars (B,).
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or torch.is_inference_mode_enabled():

        def total(*points: Tensor) -> tuple[Tensor, Tensor]:
            values = function(*points)
            return values.sum(), values

        return torch.func.grad(total, argnums=tuple(range(len(inputs))), has_aux=True)(*inputs)
    again = torch.is_grad_enabled()
    with torch.enable_grad(), differentiated_twice() if again else nullcontext():
        points = [point.detach().requires_grad_() for point in inputs]
        values = function(*points)
    slopes = torch.autograd.grad(values, points, torch.ones_like(values), create_graph=again, materialize_grads=True)
    return slopes, values if again else values.detach()


@contextmanager
def differentiated_twice() -> Iterator[None]:
    """Use the rules of layers that are evaluated in this context; a pass that creates a graph then has no gradients in parameters."""
    token = _ACTIVE.set(True)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def by_rule() -> bool:
    """Return whether layers that are evaluated now use their rules."""
    # In this order: once the first is folded, a compiler does not reach the context variable, at which older ones break their graph.
    return not torch.compiler.is_compiling() and _ACTIVE.get() and torch.is_grad_enabled()


def _note_inner_pass(ctx: Any) -> None:
    """Refuse a second pass that creates a graph: a third derivative would miss its part through the parameters."""
    if getattr(ctx, "passed", False):
        raise RuntimeError("these layers have no third derivatives here: compute them with torch.func")
    ctx.passed = True


class Conv2d(nn.Conv2d):
    """A convolution with an odd kernel, padded to keep the size (or to divide it by the stride)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, bias: bool = True):
        super().__init__(channels_in, channels_out, kernel, stride, kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels_in, H, W) to (B, channels_out, H/stride, W/stride)."""
        if not by_rule():
            return super().forward(x)
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled(x.device.type):  # tensors that are kept for the backward passes must have one dtype
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        return _Convolution.apply(x, weight, bias, self.stride[0], self.padding[0])


class NormSiLU(nn.GroupNorm):
    """Group normalisation, then SiLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        if not by_rule():
            return nn.functional.silu(super().forward(x))
        if x.device.type != "cpu" and torch.is_autocast_enabled(x.device.type):
            x = x.to(self.weight.dtype)  # as autocast does: on GPUs norms are in full precision
        return _NormSiLU.apply(x.contiguous(), self.weight, self.bias, self.num_groups, self.eps)[0]


class _Convolution(Function):
    """y = weight * x + bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return torch.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            _note_inner_pass(ctx)
            return _ConvolutionPullback.apply(gradient, weight, x.detach(), ctx.stride, ctx.padding), None, None, None, None
        return *_convolve_back(gradient, x, weight, ctx.stride, ctx.padding, ctx.needs_input_grad[:3]), None, None


class _ConvolutionPullback(Function):
    """The map from the gradient in y to that in x; only the shape of x is used."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, weight: Tensor, x: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(gradient, weight)
        ctx.stride, ctx.padding = stride, padding
        return _convolve_back(gradient, x, weight, stride, padding, (True, False, False))[0]  # type: ignore[return-value]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        gradient, weight = ctx.saved_tensors
        in_weight = _convolve_back(gradient, v, weight, ctx.stride, ctx.padding, (False, ctx.needs_input_grad[1], False))[1]
        return torch.conv2d(v, weight, None, ctx.stride, ctx.padding), in_weight, None, None, None


def _convolve_back(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients in x, weight and bias, those that are `wanted`."""
    bias_shape, strides, paddings = [len(weight)], [stride, stride], [padding, padding]
    return _convolution_backward(gradient, x, weight, bias_shape, strides, paddings, [1, 1], False, [0, 0], 1, wanted)


class _NormSiLU(Function):
    """z = silu(y), y = group_norm(x). It also returns y, through which the derivative of the pullback in y comes back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        batch, channels, height, width = x.shape
        y, mean, r = torch.native_group_norm(x, weight, bias, batch, channels, height * width, groups, eps)
        ctx.save_for_backward(x, y, weight, mean, r)
        return nn.functional.silu(y), y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, in_y: Tensor | None) -> tuple[Tensor | None, ...]:
        x, y, weight, mean, r = ctx.saved_tensors
        if torch.is_grad_enabled():
            _note_inner_pass(ctx)
            return _NormSiLUPullback.apply(gradient, x, y, weight, mean, r), None, None, None, None
        if gradient is not None:
            through = _silu_backward(gradient, y)
            in_y = through if in_y is None else through.add_(in_y)
        assert in_y is not None  # one of the two is always there
        batch, channels, height, width = x.shape
        sizes = batch, channels, height * width, mean.shape[1]
        return *_group_norm_backward(in_y.contiguous(), x, mean, r, weight, *sizes, ctx.needs_input_grad[:3]), None, None


class _NormSiLUPullback(Function):
    """The map from the gradient in z to that in x."""

    @staticmethod
    def forward(ctx: Any, in_z: Tensor, x: Tensor, y: Tensor, weight: Tensor, mean: Tensor, r: Tensor) -> Tensor:
        in_x, along = _project(_silu_backward(in_z, y).mul_(_of_channels(weight, x)), x, mean, r)
        ctx.save_for_backward(in_z, in_x, x, y, weight, mean, r, along)
        return in_x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        in_z, in_x, x, y, weight, mean, r, along = ctx.saved_tensors
        projected, v_along = _project(v, x, mean, r)

        products = (projected * _silu_backward(in_z, y)).sum(dim=(2, 3), dtype=mean.dtype)  # <v, P a> of each channel, without the weight
        v_in_x = (products * weight).view(*mean.shape, -1).sum(dim=2)
        factor = r / -(x.numel() // mean.numel())
        of_x, of_projected, of_in_x = ((factor * part)[..., None].to(x.dtype) for part in (r * v_in_x, along, v_along))
        grouped = (*mean.shape, -1)
        from_x = x.view(grouped) * of_x
        from_x.sub_(mean[..., None] * of_x)
        from_x.addcmul_(projected.view(grouped), of_projected)
        from_x.addcmul_(in_x.view(grouped), of_in_x)

        v_in_y = projected.mul_(_of_channels(weight, x))
        in_gradient = _silu_backward(v_in_y, y)
        sigmoid = y.sigmoid()
        curvature = (y + 2).addcmul_(y, sigmoid, value=-2)
        from_y = _sigmoid_backward(v_in_y.mul_(in_z), sigmoid).mul_(curvature)
        return in_gradient, from_x.view_as(x), from_y, products.sum(dim=0), None, None


def _of_channels(weight: Tensor, x: Tensor) -> Tensor:
    """Return `weight` (C,) as (C, 1, 1), in the dtype of `x` (B, C, H, W)."""
    return weight.to(x.dtype)[:, None, None]


def _project(a: Tensor, x: Tensor, mean: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Return P a, (B, C, H, W), and <xhat, a> of each group, (B, groups).

    The kernel of group normalisation computes them, with each group as a channel that is a group of its own.
    """
    groups = mean.numel()
    sizes = 1, groups, x.numel() // groups, groups
    ones = torch.ones_like(mean).view(groups)  # its dtype is that of <xhat, a> if x is in half precision
    statistics = mean.view(1, groups), r.view(1, groups), ones
    projected, along, _ = _group_norm_backward(a.contiguous(), x, *statistics, *sizes, (True, True, False))
    return projected, along.view_as(mean)
