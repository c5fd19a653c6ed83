"""The benchmark of training steps times what it says."""

import json
from pathlib import Path

import benchmark_step
import pytest
import torch
from benchmark_step import FIELD, FORWARD, SHAPES, measure, torchcfm_loss
from torch import Tensor

from amgen import config
from amgen.memory import peak_bytes


def test_ratios_are_of_times_in_the_same_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that runs twice as slowly in every round the ratios stay what they are, and the times are those of the middle round."""
    rounds = 0

    def seconds(work: object) -> float:
        nonlocal rounds
        rounds += work is field
        return {field: 3.0, forward: 1.0, other: 6.0}[work] * 2**rounds  # type: ignore[index]

    def field() -> None:
        pass

    def forward() -> None:
        pass

    def other() -> Tensor:
        return torch.zeros(2**18)

    monkeypatch.setattr(benchmark_step, "seconds", seconds)
    rows = measure({FIELD: field, FORWARD: forward, "other": other}, 0)
    assert rows["other"]["ratio"] == rows["other"]["lower_quartile"] == rows["other"]["upper_quartile"] == 2
    assert rows["other"]["to_forward"] == 6
    assert rows["other"]["megabytes"] == peak_bytes(other) / 2**20 == 1
    assert rows["other"]["milliseconds"] == 6e3 * 2**4  # two rounds that warm up, then three
    assert rows["other"]["rounds"] == 3


def test_every_way_runs_on_a_small_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All rows are there in the table and in the file, each with figures of its own."""
    monkeypatch.setitem(SHAPES, "digits", ("digits", 2, {"action": {"width": 4}}))
    file = tmp_path / "step.json"
    monkeypatch.setattr("sys.argv", ["benchmark_step.py", "--shapes", "digits", "--seconds", "0", "--json", str(file)])
    benchmark_step.main()
    (table,) = json.loads(file.read_text())["tables"]
    assert list(table["rows"])[:10] == [
        "vector field",
        "plain forward",
        "velocity",
        "AM, plain autograd",
        "AM",
        "eAM",
        "uAM",
        "AM marginal, plain autograd",
        "AM marginal",
        "data of a step",
    ]
    assert table["batch"] == 2
    assert table["rows"][FIELD]["ratio"] == 1
    assert len({row["milliseconds"] for row in table["rows"].values()}) == len(table["rows"])
    printed = capsys.readouterr().out
    for name, row in table["rows"].items():
        assert f"{name:28} {row['milliseconds']:8.1f} {row['ratio']:16.3f}" in printed


def test_the_outside_reference_has_the_same_widths() -> None:
    pytest.importorskip("torchcfm")
    settings = config.load("cifar10-small")
    noise, data = torch.randn(2, 2, *settings.image_shape)
    found = torchcfm_loss(settings, noise, data)
    assert found is not None
    network, loss = found
    assert 0.9 < sum(parameter.numel() for parameter in network.parameters()) / 1_100_000 < 1.2
    assert loss().isfinite()
