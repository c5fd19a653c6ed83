"""The layers' own rules give what PyTorch's layers give, with the kernels that they were made to call."""

from collections.abc import Callable

import pytest
import torch
from step import conditional, marginal, vector_field
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from amgen.actions import Action, DotAction, PooledAction, SquareAction, UNet, second_order
from amgen.actions.layers import groups_of
from amgen.actions.second_order import Conv2d, NormSiLU, differentiated_twice, input_gradient
from amgen.core.memory import peak_bytes
from amgen.losses import ConditionalLoss, MarginalLoss
from amgen.paths import LinearPath, PathSample

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "3x3": lambda: Conv2d(3, 4, 3),
    "strided": lambda: Conv2d(3, 4, 3, stride=2),
    "1x1 without bias": lambda: Conv2d(3, 4, 1, bias=False),
    "norm of one group": lambda: NormSiLU(1, 3),
    "norm of several groups": lambda: NormSiLU(3, 6),
}


def layer_and_input(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    layer = LAYERS[name]().to(dtype)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    channels = layer.num_channels if isinstance(layer, NormSiLU) else layer.in_channels
    return layer, 0.5 + torch.randn(2, channels, 4, 6, dtype=dtype)  # type: ignore[call-overload]


def unet(out_channels: int | None = 2, dtype: torch.dtype = torch.float32, size: int = 8) -> UNet:
    torch.manual_seed(0)
    body = UNet(channels=2, size=size, width=8, multipliers=[1, 2], blocks=1, attention=[4], out_channels=out_channels)
    for parameter in body.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return body.to(dtype)


def batch(dtype: torch.dtype = torch.float32, size: int = 8) -> PathSample:
    torch.manual_seed(1)
    noise, data = torch.randn(2, 4, 2, size, size, dtype=dtype)
    return LinearPath().sample(torch.rand(4, dtype=dtype), noise, data, boundary=True, score=True)


def assert_same_gradients(action: Action, loss: Tensor, expected: Tensor, tolerance: float) -> None:
    """Compare gradients in all parameters, to `tolerance` of the largest entry."""
    found, wanted = (torch.autograd.grad(value, list(action.parameters()), materialize_grads=True) for value in (loss, expected))
    scale = max(float(gradient.abs().max()) for gradient in wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("name", LAYERS)
def test_second_derivatives_by_finite_differences(name: str) -> None:
    """Of the pullback of each layer, in its point, in what it pulls back and in the parameters."""
    layer, x = layer_and_input(name)
    names = [name for name, _ in layer.named_parameters()]

    def pullback(x: Tensor, gradient: Tensor, *parameters: Tensor) -> Tensor:
        with differentiated_twice():
            y = functional_call(layer, dict(zip(names, parameters, strict=True)), x)
        assert type(y.grad_fn).__name__ in {"_ConvolutionBackward", "_NormSiLUBackward"}
        return torch.autograd.grad(y, x, gradient, create_graph=True)[0]

    gradient = torch.randn_like(layer(x))
    inputs = [tensor.detach().requires_grad_() for tensor in (x, gradient, *layer.parameters())]
    assert torch.autograd.gradcheck(pullback, inputs)


@pytest.mark.parametrize("name", LAYERS)
def test_first_derivatives_are_those_of_the_plain_layer(name: str) -> None:
    """In all that a layer depends on, for points that do not lie in memory one after the other too; float64 to rounding."""
    layer, x = layer_and_input(name)
    for point in (x, x.to(memory_format=torch.channels_last), x.transpose(2, 3)):
        point = point.detach().requires_grad_()
        gradient = torch.randn_like(layer(point)).to(memory_format=torch.channels_last)
        with differentiated_twice():
            found = layer(point)
        for one, other in zip(
            torch.autograd.grad(found, [point, *layer.parameters()], gradient),
            torch.autograd.grad(layer(point), [point, *layer.parameters()], gradient),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_no_tensor_need_lie_in_memory_in_order(name: str) -> None:
    """Points, gradients and the derivatives that come back, each a slice of a larger tensor or channels-last; float64 to rounding."""

    def slice_of_more(x: Tensor) -> Tensor:
        return torch.cat([x, torch.randn_like(x)], dim=1)[:, : x.shape[1]]

    def channels_last(x: Tensor) -> Tensor:
        return x.to(memory_format=torch.channels_last)

    layer, x = layer_and_input(name)
    gradient, v = torch.randn_like(layer(x)), torch.randn_like(x)
    results = []
    for laid_out in (nn.Identity(), slice_of_more, channels_last):
        point, in_y = (laid_out(tensor).detach().requires_grad_() for tensor in (x, gradient))
        with differentiated_twice():
            y = layer(point)
        (slope,) = torch.autograd.grad(y, point, in_y, create_graph=True)
        wanted = [in_y, layer.weight] if isinstance(layer, Conv2d) else [in_y, layer.weight, point]
        results.append(torch.autograd.grad(slope, wanted, laid_out(v)))
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("head", ["dot", "square", "pooled"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_a_network_has_the_gradients_of_plain_autograd(head: str, dtype: torch.dtype, tolerance: float) -> None:
    """Both forms of the loss; single precision to 1e-5 of the largest gradient, double precision to rounding."""
    body = unet(None if head == "pooled" else 2, dtype)
    action: Action = PooledAction(body, body.features) if head == "pooled" else {"dot": DotAction, "square": SquareAction}[head](body)
    action, sample = action.to(dtype), batch(dtype)
    assert_same_gradients(action, ConditionalLoss(action, LinearPath())(sample).loss.mean(), conditional(action, sample), tolerance)
    assert_same_gradients(action, MarginalLoss(action, LinearPath())(sample).loss.mean(), marginal(action, sample), tolerance)


@pytest.mark.parametrize("form", [ConditionalLoss, MarginalLoss])
def test_torch_func_takes_the_plain_layers(form: type[ConditionalLoss]) -> None:
    """Of a whole loss, transformed from outside: the same gradients in parameters, float64 to rounding."""
    action, sample = DotAction(unet(dtype=torch.float64)), batch(torch.float64)
    loss = form(action, LinearPath())
    parameters = dict(loss.named_parameters())
    expected = torch.autograd.grad(loss(sample).loss.mean(), list(parameters.values()))
    found = torch.func.grad(lambda parameters: functional_call(loss, parameters, sample).loss.mean())(parameters)
    scale = max(float(gradient.abs().max()) for gradient in expected)
    for one, other in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12 * scale)


def test_inference_mode() -> None:
    action, sample = DotAction(unet(dtype=torch.float64)), batch(torch.float64)
    loss = ConditionalLoss(action, LinearPath())
    with torch.inference_mode():
        found = loss(sample).loss
    torch.testing.assert_close(found, loss(sample).loss.detach(), rtol=1e-12, atol=0)


def test_a_compiler_never_meets_the_context_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older ones break their graph at it."""
    monkeypatch.setattr(second_order, "_ACTIVE", None)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not second_order.by_rule()


def test_without_gradients_there_is_no_graph() -> None:
    action, sample = DotAction(unet()), batch()
    with torch.no_grad():
        (gradient,), value = input_gradient(lambda x: action(sample.t, x), sample.x)
    assert gradient.grad_fn is None
    assert value.grad_fn is None
    assert not value.requires_grad


@pytest.mark.parametrize("name", LAYERS)
def test_a_third_derivative_is_refused(name: str) -> None:
    """It would lack what goes through the parameters."""
    layer, x = layer_and_input(name)
    x.requires_grad_()
    with differentiated_twice():
        y = layer(x).square()
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no third derivatives"):
        torch.autograd.grad(first.square().sum(), x, create_graph=True)


def test_mixed_precision() -> None:
    """bf16 keeps 8 bits, so that gradients agree with those of single precision to a few percent of their norm."""
    action, sample = DotAction(unet()), batch()
    expected = torch.autograd.grad(conditional(action, sample), list(action.parameters()))
    with torch.autocast("cpu", torch.bfloat16):
        loss = ConditionalLoss(action, LinearPath())(sample).loss.mean()
    found = torch.autograd.grad(loss, list(action.parameters()))
    assert {gradient.dtype for gradient in found} == {torch.float32}
    one, other = (torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (found, expected))
    assert float((one - other).norm() / other.norm()) < 0.05


class Convolutions(TorchDispatchMode):
    """Records the kernels of convolutions, and which gradients of them are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[tuple[int, ...]] = []
        self.wanted: list[list[bool]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if function is torch.ops.aten.convolution.default:
            self.kernels.append(tuple(args[1].shape[2:]))
        if function is torch.ops.aten.convolution_backward.default:
            self.wanted.append(list(args[-1]))
        return function(*args, **(kwargs or {}))


def test_without_gradients_weights_have_none() -> None:
    action, sample = DotAction(unet()), batch()
    with torch.no_grad(), Convolutions() as seen:
        ConditionalLoss(action, LinearPath())(sample)
    assert {tuple(wanted) for wanted in seen.wanted} == {(True, False, False)}


def test_computed_anew_the_inner_pass_has_no_weight_gradients() -> None:
    action, sample = DotAction(unet()), batch()
    action.body.checkpoint = True  # type: ignore[assignment]
    with Convolutions() as inner:
        ConditionalLoss(action, LinearPath())(sample)
    assert {tuple(wanted) for wanted in inner.wanted} == {(True, False, False)}


def test_a_step_has_six_convolutions_for_each_of_the_network() -> None:
    """Forward; gradient in x; forward with a derivative, and its weight gradient; gradients in x and in the weights."""
    action, sample = DotAction(unet()), batch()
    layers = sum(isinstance(layer, nn.Conv2d) for layer in action.modules())
    with Convolutions() as inner:
        loss = ConditionalLoss(action, LinearPath())(sample).loss.mean()
    assert len(inner.kernels) == layers
    assert inner.wanted == [[True, False, False]] * layers
    with Convolutions() as outer:
        loss.backward()
    assert len(outer.kernels) == layers
    assert set(outer.kernels) == {(1, 1), (3, 3)}
    assert outer.wanted.count([False, True, False]) == layers
    assert len(outer.wanted) == 2 * layers


def test_peak_memory() -> None:
    """A step holds at most 2.2 times what that of a vector field holds (2.0 to 2.1 at larger sizes), one by plain autograd 2.8 at least."""
    body, sample = unet(size=16), batch(size=16)
    action = DotAction(body)
    loss = ConditionalLoss(action, LinearPath())

    def peak(value: Callable[[], Tensor]) -> int:
        return peak_bytes(lambda: list(torch.autograd.grad(value(), list(action.parameters()))))

    field = peak(lambda: vector_field(body, sample))
    assert peak(lambda: loss(sample).loss.mean()) < 2.2 * field
    assert peak(lambda: conditional(action, sample)) > 2.8 * field


@pytest.mark.parametrize("channels", [1, 4, 6, 100, 128, 512])
def test_groups_divide_the_channels(channels: int) -> None:
    assert channels % groups_of(channels) == 0
    assert groups_of(channels) <= 32
