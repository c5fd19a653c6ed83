"""The whole loss compiles as one function."""

import pytest
import torch

from amgen.actions import DotAction, UNet
from amgen.losses import TIME_WEIGHTS, ActionMatchingLoss, ConditionalLoss, MarginalLoss, TimeWeight
from amgen.paths import LinearPath


@pytest.mark.filterwarnings("ignore")  # dynamo's own deprecations are not ours to mend
@pytest.mark.parametrize("form", [ConditionalLoss, MarginalLoss])
def test_compiled_equals_eager(form: type[ActionMatchingLoss]) -> None:
    """One graph without breaks, gradients equal to eager ones to float32 rounding (1e-5 of the largest)."""
    torch._dynamo.reset()
    body = UNet(channels=1, size=8, width=8, multipliers=[1, 2], blocks=1, attention=[4], out_channels=1)
    for parameter in body.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    loss = form(DotAction(body), LinearPath(), weight=TimeWeight(TIME_WEIGHTS["1-t"]))
    sample = LinearPath().sample(torch.rand(3), *torch.randn(2, 3, 1, 8, 8), boundary=True, score=True)
    parameters = list(loss.parameters())
    eager = torch.autograd.grad(loss(sample).loss.mean(), parameters)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    ours = torch.autograd.grad(compiled(sample).loss.mean(), parameters)
    scale = max(float(gradient.abs().max()) for gradient in eager)
    for expected, found in zip(eager, ours, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * scale)
