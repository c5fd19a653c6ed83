"""The model of scripts/benchmarks/scaling_model.py: its arithmetic, and its count of operations."""

import pytest
import torch
from scaling_model import FlopCounter, Link, gradient_bytes, parts, step, step_flops, step_time


def test_a_ring_moves_twice_the_gradient_less_one_share() -> None:
    link = Link(bandwidth=1e9, latency=1e-5)
    assert link.all_reduce(1, 10**9) == 0
    assert link.all_reduce(2, 10**9) == pytest.approx(1 + 2e-5)
    assert link.all_reduce(4, 10**9) == pytest.approx(1.5 + 6e-5)


def test_an_exchange_hides_behind_its_share_of_the_computation() -> None:
    assert step_time(1.0, 0.3, 0.5) == 1.0
    assert step_time(1.0, 0.7, 0.5) == pytest.approx(1.2)
    assert step_time(1.0, 0.7, 0.0) == pytest.approx(1.7)


def test_operations_are_counted() -> None:
    """A product of (2, 3) and (3, 5) is 2*2*3*5, and its two gradients as much each; a step is six times a forward pass, less
    the first layer's and the like."""
    a, b = torch.randn(2, 3, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    with FlopCounter() as counter:
        (a @ b).sum().backward()
    assert counter.total == 3 * 60
    loss, sample = parts("digits", 2)
    with FlopCounter() as forward, torch.no_grad():
        loss.action(sample.t, sample.x)
    assert 5 < step_flops(loss, sample) / forward.total < 6.5
    assert gradient_bytes(loss) == 4 * sum(parameter.numel() for parameter in loss.parameters())
    step(loss, sample)
    assert all(parameter.grad is not None for parameter in loss.parameters())
