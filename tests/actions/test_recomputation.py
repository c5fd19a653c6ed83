"""Computing activations anew changes memory and time, and nothing else."""

import pytest
import torch

from amgen import config
from amgen.actions import DotAction, UNet
from amgen.actions.recomputation import recompute
from amgen.core.errors import UserError
from amgen.core.memory import peak_bytes
from amgen.core.randomness import Purpose, dropout_seeds, rademacher
from amgen.dynamics import Balanced, DynamicsType, Entropic, Unbalanced
from amgen.losses import ActionMatchingLoss, ConditionalLoss, MarginalLoss
from amgen.paths import LinearPath, PathSample

SIGMA = Entropic(lambda t: (1 - t).sqrt())


def unet(dtype: torch.dtype = torch.float64, width: int = 8, size: int = 8) -> UNet:
    body = UNet(channels=1, size=size, width=width, multipliers=[1, 2], blocks=1, attention=[4], dropout=0.2, classes=3, out_channels=1)
    for parameter in body.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return body.to(dtype)


def batch(count: int, dtype: torch.dtype = torch.float64, size: int = 8, probes: int = 0) -> PathSample:
    noise, data = torch.randn(2, count, 1, size, size, dtype=dtype)
    label, key = torch.arange(count) % 3, dropout_seeds(0, Purpose.DROPOUT, range(count))
    sample = LinearPath().sample(torch.rand(count, dtype=dtype), noise, data, label=label, dropout_seeds=key, boundary=True, score=True)
    if probes:
        sample.probes = rademacher(0, Purpose.PROBE, range(count), (probes, 1, size, size)).to(dtype)
    return sample


def gradients(loss: ActionMatchingLoss, sample: PathSample, checkpoint: bool) -> list[torch.Tensor]:
    loss.action.body.checkpoint = checkpoint  # type: ignore[assignment]
    return list(torch.autograd.grad(loss(sample).loss.mean(), list(loss.parameters())))


@pytest.mark.parametrize(
    ("form", "kind", "probes"),
    [
        (ConditionalLoss, Balanced(), 0),
        (ConditionalLoss, Unbalanced(0.1), 0),
        (MarginalLoss, Balanced(), 0),
        (MarginalLoss, SIGMA, 2),
        (MarginalLoss, SIGMA, 0),
    ],
)
def test_every_loss_has_the_same_gradient(form: type[ActionMatchingLoss], kind: DynamicsType, probes: int) -> None:
    """Third derivatives and vmap included, dropout too; in float64 to 1e-11 of the largest gradient."""
    size = 4 if kind is SIGMA and not probes else 8
    loss = form(DotAction(unet(size=size)), LinearPath(), kind)
    sample = batch(2, size=size, probes=probes)
    expected, found = gradients(loss, sample, False), gradients(loss, sample, True)
    scale = max(float(gradient.abs().max()) for gradient in expected)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-11 * scale)


def test_mixed_precision_is_the_same_in_both_passes() -> None:
    """The outer backward pass lies outside the region of mixed precision, and yet computes its convolutions in bf16."""
    body, seen = unet(torch.float32), []
    body.checkpoint = True
    body.middle[0].conv1.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    loss = ConditionalLoss(DotAction(body), LinearPath())
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(batch(4, torch.float32)).loss.mean()
    inside = len(seen)
    value.backward()
    assert inside == 2  # the block, and its pullback
    assert len(seen) == 4  # their derivatives
    assert set(seen) == {torch.bfloat16}


def test_derivatives_by_finite_differences() -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.SiLU()).double()

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor, dropout_seeds: torch.Tensor | None) -> torch.Tensor:
            return self.layer(x).square()

    x, block = torch.randn(2, 3, dtype=torch.float64, requires_grad=True), Block()
    torch.autograd.gradcheck(lambda x: recompute(block, x), (x,))
    torch.autograd.gradgradcheck(lambda x: recompute(block, x), (x,))


def test_it_saves_memory() -> None:
    """The most that tensors of a step hold at once falls by a third at least (it fell by half)."""
    loss, sample = ConditionalLoss(DotAction(unet(torch.float32, 16, 16)), LinearPath()), batch(8, torch.float32, 16)
    peaks = [peak_bytes(lambda checkpoint=checkpoint: gradients(loss, sample, checkpoint)) for checkpoint in (False, True)]  # type: ignore[misc]
    assert peaks[1] < 0.67 * peaks[0]


def test_it_is_for_the_eager_loss() -> None:
    with pytest.raises(UserError, match="checkpoint_activations is for the eager loss"):
        config.load("digits", ["training.compile=true", "training.checkpoint_activations=true"])
