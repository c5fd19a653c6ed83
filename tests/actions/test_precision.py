"""What mixed precision leaves in full precision, on the CPU's bf16."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import TINY, newest_tensors
from precision import layer_errors

from amgen import config
from amgen.actions import DotAction, PooledAction, SquareAction, TimeOffset, UNet
from amgen.losses import ConditionalLoss, MarginalLoss
from amgen.paths import LinearPath
from amgen.training.main import train


class Constant(torch.nn.Module):
    """A body whose output is the same everywhere, in bf16."""

    def __init__(self, value: float):
        super().__init__()
        self.value = value

    def forward(self, t: torch.Tensor, x: torch.Tensor, *given: object) -> torch.Tensor:
        return torch.full_like(x, self.value, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("head", "expected"),
    [(DotAction, 3072 * 1.0078125), (SquareAction, 0.5 * 3072 * 0.0078125**2), (lambda body: PooledAction(body, 3), None)],
)
def test_heads_sum_thousands_of_pixels_exactly(head: Callable[..., DotAction], expected: float | None) -> None:
    """3,072 terms, each of them a bf16 number: summed in bf16 the first would stop growing at 256."""
    action = head(Constant(1.0078125))
    x = torch.ones(1, 3, 32, 32)
    if expected is None:
        action.weight.data[:] = torch.tensor([1.0, 2.0, 4.0])
        expected = 7 * 1.0078125
    with torch.autocast("cpu", torch.bfloat16):
        found = action(torch.zeros(1), x)
    assert found.dtype == torch.float32
    assert found.item() == expected
    if isinstance(action, DotAction):  # 3,096 is no bf16 number
        assert action.combine(x.bfloat16(), action.body(None, x)).item() == 3096


def test_the_time_embedding_stays_whole() -> None:
    """Times a thousandth apart have embeddings apart, equal to those without mixed precision bit for bit."""
    body = UNet(channels=1, size=8, width=8, multipliers=[1], blocks=1, out_channels=1)
    offset = TimeOffset(20.0)
    offset.out.weight.data.fill_(1.0)
    t = torch.tensor([0.5, 0.501])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(body.time(t), body.time(t).float())
        mixed = body.time(t), offset(t)
    assert torch.equal(mixed[0], body.time(t))
    assert torch.equal(mixed[1], offset(t))
    assert mixed[0].dtype == mixed[1].dtype == torch.float32
    assert (mixed[0][0] != mixed[0][1]).any()


@pytest.mark.parametrize("form", [ConditionalLoss, MarginalLoss])
def test_gradients_in_bf16_are_those_of_single_precision(form: type[ConditionalLoss]) -> None:
    """Losses are float32, convolutions bf16; the whole gradient is off by less than 3 %, but off, and every layer's by less than 20 %."""
    body = UNet(channels=1, size=8, width=8, multipliers=[1, 2], blocks=1, attention=[4], out_channels=1)
    for parameter in body.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    loss, kinds = form(DotAction(body), LinearPath()), []
    body.stem.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    sample = LinearPath().sample(torch.rand(8), *torch.randn(2, 8, 1, 8, 8), boundary=True, score=True)
    with torch.autocast("cpu", torch.bfloat16):
        terms = loss(sample)
    assert set(kinds) == {torch.bfloat16}
    assert {terms.loss.dtype, terms.interior.dtype, *(term.dtype for term in terms.terms.values())} == {torch.float32}
    errors = layer_errors(loss, sample, torch.bfloat16)
    assert 1e-4 < errors.pop("all") < 0.03
    assert max(errors.values()) < 0.2


def test_a_run_in_bf16_learns_what_one_in_fp32_does(tmp_path: Path) -> None:
    """Weights stay float32 and end, after 3 steps of at most 1e-3, no further apart than 2e-3."""
    runs = []
    for precision in ("fp32", "bf16"):
        train(
            config.load("digits", [*TINY, f"training.precision={precision}", "training.sample_every=0", "training.images=48"]),
            tmp_path / precision,
        )
        runs.append(newest_tensors(tmp_path / precision))
    differences = {name: float((runs[0][name] - runs[1][name]).abs().max()) for name in runs[0] if not name.startswith("optimizer")}
    assert 0 < max(differences.values()) < 2e-3
    assert {tensor.dtype for tensor in runs[1].values()} == {torch.float32}
