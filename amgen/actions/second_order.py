"""Layers with rules of their own for being differentiated twice.

A loss on grad_x s goes through each layer four times: forward; back with the gradient in x, the inner pass; forward again with the
derivative of the loss in that gradient; back with what both passes leave. PyTorch puts the third of them together from small operations,
and takes a convolution's weight gradient there by a convolution whose kernel is as large as the image. The rules here call the kernels of
the first derivatives instead, by the closed forms below. They hold inside `input_gradient` alone; elsewhere, compiled and under torch.func
the layers are PyTorch's own.

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
    """Return the gradients of a batch of scalars, `function(*inputs)` (B,), in each of the inputs, and the scalars.

    Both can be differentiated once more, in parameters; where gradients are switched off they are constants. Compiled, inside a
    transformation of torch.func and in inference mode it is torch.func that takes them. Sample i of the batch must depend on entry i of the
    inputs alone.
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
    """Let layers that are evaluated here follow their rules. A pass that creates a graph then gives no gradients in parameters."""
    token = _ACTIVE.set(True)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def by_rule() -> bool:
    """Tell whether what is evaluated now is differentiated twice by the rules."""
    # In this order: a compiler that folds the first never meets the context variable, at which older ones break their graph.
    return not torch.compiler.is_compiling() and _ACTIVE.get() and torch.is_grad_enabled()


def _note_inner_pass(ctx: Any) -> None:
    """Refuse a second pass that creates a graph: it would be for a third derivative, without what goes through the parameters."""
    if getattr(ctx, "passed", False):
        raise RuntimeError("these layers can be differentiated twice and no more: take third derivatives with torch.func")
    ctx.passed = True


class Conv2d(nn.Conv2d):
    """A convolution with an odd kernel, padded so as to keep the size (or to divide it by the stride)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, bias: bool = True):
        super().__init__(channels_in, channels_out, kernel, stride, kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels_in, H, W) to (B, channels_out, H/stride, W/stride)."""
        if not by_rule():
            return super().forward(x)
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled(x.device.type):  # what is kept for the backward passes must be of one type
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
            x = x.to(self.weight.dtype)  # as autocast does: on GPUs norms are taken in full precision
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
    """Gradient in y to gradient in x, of which the shape is looked at alone."""

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
    """Return the `wanted` ones of the gradients in x, weight and bias."""
    bias_shape, strides, paddings = [len(weight)], [stride, stride], [padding, padding]
    return _convolution_backward(gradient, x, weight, bias_shape, strides, paddings, [1, 1], False, [0, 0], 1, wanted)


class _NormSiLU(Function):
    """z = silu(y), y = group_norm(x). Returns y too, as the way on which the derivative of the pullback in y comes back."""

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
    """Gradient in z to gradient in x."""

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

        products = (projected * _silu_backward(in_z, y)).sum(dim=(2, 3), dtype=mean.dtype)  # <v, P a> by channels, but for the weight
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
    """Return `weight` (C,) so as to multiply `x` (B, C, H, W), of its type."""
    return weight.to(x.dtype)[:, None, None]


def _project(a: Tensor, x: Tensor, mean: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Return P a, (B, C, H, W), and <xhat, a> of each group, (B, groups): every group taken for a channel that is a group of its own."""
    groups = mean.numel()
    sizes = 1, groups, x.numel() // groups, groups
    ones = torch.ones_like(mean).view(groups)  # says that <xhat, a> is to be of its type where x is in half precision
    statistics = mean.view(1, groups), r.view(1, groups), ones
    projected, along, _ = _group_norm_backward(a.contiguous(), x, *statistics, *sizes, (True, True, False))
    return projected, along.view_as(mean)
