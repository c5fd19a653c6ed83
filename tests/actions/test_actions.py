from dataclasses import replace

import pytest
import torch

from amgen import config
from amgen.actions import Action, DotAction, PooledAction, SquareAction, UNet
from amgen.core.randomness import Purpose, dropout_seeds
from amgen.losses import ActionMatchingLoss, ConditionalLoss, MarginalLoss
from amgen.model.build import build_action
from amgen.paths import Conditioning, LinearPath

FULL = dict(channels=3, size=8, width=8, multipliers=[1, 2], blocks=2, attention=[8, 4], attention_heads=2, classes=4, condition_channels=2)


def make(head: str, dtype: torch.dtype = torch.float64) -> Action:
    """A U-Net with every feature switched on, off its initial zeros."""
    body = UNet(**FULL, out_channels=None if head == "pooled" else 3)  # type: ignore[arg-type]
    action = PooledAction(body, body.features) if head == "pooled" else {"dot": DotAction, "square": SquareAction}[head](body)
    for parameter in action.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return action.to(dtype)


def inputs(count: int = 4, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    x, noise = torch.randn(2, count, 3, 8, 8, dtype=dtype)
    return torch.rand(count, dtype=dtype), x, noise, torch.randint(4, (count,)), torch.randn(count, 2, 8, 8, dtype=dtype)


@pytest.mark.parametrize("head", ["dot", "square", "pooled"])
@pytest.mark.parametrize("form", [ConditionalLoss, MarginalLoss])
def test_every_parameter_gets_a_gradient(head: str, form: type[ActionMatchingLoss]) -> None:
    """Every entry but the embeddings of absent classes moves the loss: its gradient stands out of rounding noise."""
    action = make(head)
    t, x, noise, label, condition = inputs(8)
    label = torch.arange(8) % 4
    sample = LinearPath().sample(t, noise, x, label=label, boundary=True, score=True)
    boundary = replace(sample.boundary, condition=condition)
    sample = replace(sample, conditioning=Conditioning(condition), boundary=boundary)
    form(action, LinearPath())(sample).loss.mean().backward()
    largest = max(float(parameter.grad.abs().max()) for parameter in action.parameters() if parameter.grad is not None)
    for name, parameter in action.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-9 * largest, name


@pytest.mark.parametrize("head", ["dot", "square", "pooled"])
def test_action_is_one_number_for_each_sample_alone(head: str) -> None:
    action = make(head)
    t, x, _, label, condition = inputs()
    together = action(t, x, label, condition)
    assert together.shape == (4,)
    alone = torch.cat([action(t[i : i + 1], x[i : i + 1], label[i : i + 1], condition[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("head", ["dot", "square", "pooled"])
def test_action_is_twice_differentiable(head: str) -> None:
    """The first and second derivatives in x and t agree with finite differences."""
    action = make(head)
    t, x, _, label, condition = inputs(1)
    t, x = t.requires_grad_(), x.requires_grad_()
    torch.autograd.gradcheck(lambda t, x: action(t, x, label, condition), (t, x), fast_mode=True)
    torch.autograd.gradgradcheck(lambda t, x: action(t, x, label, condition), (t, x), fast_mode=True)


def test_heads_are_what_they_say() -> None:
    x, f = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64)
    body = torch.nn.Identity()
    torch.testing.assert_close(DotAction(body).combine(x, f), torch.einsum("bchw,bchw->b", x, f))
    torch.testing.assert_close(SquareAction(body).combine(x, f), 0.5 * ((x - f) ** 2).sum(dim=(1, 2, 3)))
    pooled = PooledAction(body, 3).double()
    torch.testing.assert_close(pooled.combine(x, f), f.mean(dim=(2, 3)) @ pooled.weight)


def test_sums_do_not_lose_half_precision() -> None:
    """4,096 terms of 1 sum to 4096 in bfloat16 inputs, whose own accumulation would stop at 256."""
    x = torch.ones(1, 1, 64, 64, dtype=torch.bfloat16)
    assert DotAction(torch.nn.Identity()).combine(x, x).item() == 4096


def test_labels_and_conditions_matter_and_are_asked_for() -> None:
    action = make("dot")
    t, x, _, label, condition = inputs()
    value = action(t, x, label, condition)
    assert (action(t, x, (label + 1) % 4, condition) != value).all()
    assert (action(t, x, label, condition + 1) != value).all()
    with pytest.raises(ValueError, match="give a label"):
        action(t, x, None, condition)
    with pytest.raises(ValueError, match="give a condition"):
        action(t, x, label)


def test_dropout_acts_in_training_alone() -> None:
    body = UNet(channels=1, size=8, width=8, multipliers=[1], blocks=1, dropout=0.5, out_channels=1)
    for parameter in body.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    t, x = torch.rand(2), torch.randn(2, 1, 8, 8)
    first, second = (body(t, x, dropout_seeds=dropout_seeds(seed, Purpose.DROPOUT, range(2))) for seed in range(2))
    assert not torch.equal(first, second)
    body.eval()
    assert torch.equal(body(t, x), body(t, x, dropout_seeds=dropout_seeds(0, Purpose.DROPOUT, range(2))))


def test_time_frequency_bounds_how_fast_the_action_changes() -> None:
    """The features of a frequency limit w change by at most w a unit of t."""
    for highest in (3.0, 300.0):
        embedding = UNet(channels=1, size=8, width=16, multipliers=[1], blocks=1, time_frequency=highest).time
        assert embedding.frequencies.max() == pytest.approx(highest)
        assert embedding.frequencies.min() == pytest.approx(torch.pi / 2)


def test_initial_weights_are_a_function_of_the_seed() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (build_action(config.load("digits", [f"seed={seed}"])) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.body.stem.weight, again.body.stem.weight)
    assert not torch.equal(first.body.stem.weight, other.body.stem.weight)


def test_papers_network_has_the_papers_size() -> None:
    """About 36 million parameters, as the DDPM network of these settings has (35.7 million)."""
    with torch.device("meta"):
        action = build_action(config.load("cifar10"))
    assert 34e6 < sum(parameter.numel() for parameter in action.parameters()) < 38e6
