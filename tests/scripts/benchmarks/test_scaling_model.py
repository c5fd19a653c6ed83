"""The model of scripts/benchmarks/scaling_model.py: its arithmetic, and its count of operations."""

from pathlib import Path

import pytest
import scaling_model
import torch
from helpers import markdown_tables
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


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """At 1 GFLOP/s, with an instant exchange within a node and one of 1 byte/s between nodes, whose time is 2 (N - 1)/N times the bytes."""
    step_options = ["--preset", "digits", "--batch", "1", "--share", "4", "--flops", "1e9"]
    links = ["--per-node", "2", "--node-bandwidth", "1e30", "--network-bandwidth", "1", "--latency", "0"]
    scaling_model.main([*step_options, *links, "--processes", "1", "2", "4"])
    printed = capsys.readouterr().out
    ((_, *rows),) = markdown_tables(printed)
    loss, sample = parts("digits", 1)
    compute, size = 4 * step_flops(loss, sample) / 1e9, gradient_bytes(loss)
    assert [row[0] for row in rows] == ["1", "2", "4"]
    assert [float(row[1]) for row in rows] == pytest.approx([0, 0, 1500 * size])
    assert [float(row[2]) for row in rows] == pytest.approx([1e3 * compute, 1e3 * compute, 500 * compute + 1500 * size], abs=1e-3)
    assert [row[4] for row in rows] == ["100.0%", "100.0%", "0.0%"]


def test_the_check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With one process here in place of two: an exchange that takes no time, and rows that stand in proportion to what was measured."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)

    def launch(command: list[str], **_: object) -> None:
        arguments = command[command.index(scaling_model.__file__) + 1 :]
        assert Path(arguments[-1]).parent.is_dir()
        scaling_model.main(arguments)

    monkeypatch.setattr(scaling_model.subprocess, "run", launch)
    scaling_model.main(["--preset", "digits", "--batch", "1", "--check"])
    ((_, *rows),) = markdown_tables(capsys.readouterr().out)
    times = {row[0]: float(row[1]) for row in rows}
    assert list(times) == ["both computing, nothing exchanged", "model, overlap 0.0", "model, overlap 0.5", "measured"]
    for name, _, difference in rows[1:3]:
        assert float(difference.rstrip("%")) == pytest.approx(100 * (times[name] / times["measured"] - 1), abs=1)
