"""The benchmark of training steps times what it says."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import step
import timing
import torch
from helpers import markdown_tables
from step import FIELD, FORWARD, SHAPES, all_works, cells, measure, torchcfm_loss
from torch import Tensor

from amgen import config
from amgen.core.memory import peak_bytes


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

    monkeypatch.setattr(timing, "seconds", seconds)
    rows = measure({FIELD: field, FORWARD: forward, "other": other}, 0)
    assert rows["other"]["ratio"] == rows["other"]["lower_quartile"] == rows["other"]["upper_quartile"] == 2
    assert rows["other"]["to_forward"] == 6
    assert rows["other"]["megabytes"] == peak_bytes(other) / 2**20 == 1
    assert rows["other"]["milliseconds"] == 6e3 * 2**4  # two rounds that warm up, then three
    assert rows["other"]["rounds"] == 3


def test_all_works_run_on_a_small_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All rows are there in the table and in the file, each with numbers of its own."""
    monkeypatch.setitem(SHAPES, "digits", ("digits", 2, {"action": {"width": 4, "blocks": 1, "multipliers": [1], "attention": []}}))
    file = tmp_path / "step.json"
    step.main(["--shapes", "digits", "--seconds", "0", "--json", str(file)])
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
    (rows,) = markdown_tables(printed)
    assert rows[1:] == [[name, *cells(row, table["rows"][FIELD])] for name, row in table["rows"].items()]
    assert rows[1][0] == FIELD
    assert rows[1][2] == "1.000"
    assert f"`python scripts/benchmarks/step.py --shapes digits --seconds 0 --json {file}`: " in printed
    assert f"PyTorch {torch.__version__}" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "nowhere"], "device='nowhere' cannot be used here"),
        (["--json", "{file}/step.json"], "{file}"),
    ],
)
def test_mistakes_are_reported_before_the_timing(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    monkeypatch.setattr(step, "measure", None)
    with pytest.raises(SystemExit) as ended:
        step.main([argument.format(file=file) for argument in arguments])
    error = capsys.readouterr().err
    assert (ended.value.code, error.count("\n")) == (2, 1)
    assert message.format(file=file) in error


def test_precision_and_layout_reach_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every convolution of a step is in bf16, or has its pixels' channels last, as asked for."""
    seen: list[Tensor] = []
    plain = torch.nn.Conv2d.forward

    def forward(self: torch.nn.Conv2d, x: Tensor) -> Tensor:
        seen.append(plain(self, x))
        return seen[-1]

    monkeypatch.setattr(torch.nn.Conv2d, "forward", forward)
    settings = config.load("digits", ["action.width=8"])
    for bf16, channels_last in ((False, False), (True, False), (False, True)):
        seen.clear()
        options = Namespace(bf16=bf16, channels_last=channels_last)
        all_works(settings, 2, torch.device("cpu"), options)[FIELD]()
        assert {found.dtype for found in seen} == {torch.bfloat16 if bf16 else torch.float32}
        assert all(found.is_contiguous(memory_format=torch.channels_last) for found in seen[1:-1]) == channels_last


def test_the_network_of_torchcfm_has_the_same_widths() -> None:
    pytest.importorskip("torchcfm")
    settings = config.load("cifar10-small")
    noise, data = torch.randn(2, 2, *settings.image_shape)
    found = torchcfm_loss(settings, noise, data)
    assert found is not None
    network, loss = found
    assert 0.9 < sum(parameter.numel() for parameter in network.parameters()) / 1_100_000 < 1.2
    assert loss().isfinite()
