"""TF32 in the steps of a training alone, and float64 where a device has it."""

from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from helpers import TINY, run_cli

from amgen import config
from amgen.core import devices
from amgen.solvers import make_solver
from amgen.solvers.grids import StepGrid
from amgen.training.loop import Trainer
from amgen.training.main import train
from amgen.training.periodic import Periodic


def allowed() -> set[bool]:
    """What the flags of products and of convolutions say."""
    return {torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32}


@pytest.mark.parametrize("name", ["tf32", "fp32", "bf16"])
def test_steps_are_computed_as_asked_and_all_else_in_full(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 is on in the steps of precision=tf32, the first and those after a grid; off in grids, evaluations and afterwards."""
    seen: dict[str, list[set[bool]]] = {}
    for owner, method in ((Trainer, "_step"), (Periodic, "_sample_grid"), (Periodic, "_evaluate")):
        original = getattr(owner, method)

        def watched(self: object, *arguments: object, method: str = method, original: object = original, **options: object) -> object:
            seen.setdefault(method, []).append(allowed())
            return original(self, *arguments, **options)  # type: ignore[operator]

        monkeypatch.setattr(owner, method, watched)
    devices.set_tf32(name != "tf32")
    more = ["training.sample_every=32", "evaluation.every=32", "evaluation.features=pixels", "evaluation.num=8", "training.images=48"]
    train(config.load("digits", [*TINY, *more, f"training.precision={name}"]), tmp_path / "run")
    assert seen == {"_step": [{name == "tf32"}] * 3, "_sample_grid": [{False}] * 2, "_evaluate": [{False}] * 2}
    assert allowed() == {False}


def test_commands_compute_in_full_precision(trained: Path, tmp_path: Path) -> None:
    """Whatever the flags were: on in convolutions by torch's default, or left behind by something else."""
    for command in (
        ("sample", trained, "-n", "2", "--grid", tmp_path / "grid.png"),
        ("encode", trained, "--num", "2", "--out", tmp_path / "noise.npz"),
        ("reference-stats", "digits", "--features", "digits", "--real", "20", "--out", tmp_path / "stats.npz"),
    ):
        devices.set_tf32(True)
        outcome = run_cli(*command)
        assert outcome.code == 0, outcome.err
        assert allowed() == {False}, command


def test_flags_set_by_the_newer_names_are_heeded() -> None:
    """Neither torch's check of mixed names nor a warning gets in the way."""
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    if not hasattr(matmul, "fp32_precision"):
        pytest.skip("this torch has the older names alone")
    for value in ("tf32", "ieee"):
        matmul.fp32_precision = convolution.fp32_precision = torch.backends.cudnn.rnn.fp32_precision = value  # type: ignore[attr-defined]
        for asked in (True, False):
            with devices.tf32(asked, afterwards=not asked):
                assert allowed() == {asked}
                assert (matmul.fp32_precision == "tf32", convolution.fp32_precision == "tf32") == (asked, asked)
            assert allowed() == {not asked}
    devices.set_tf32(False)


def test_devices_without_float64_are_left_first() -> None:
    """Sums are moved to the CPU before they become float64, and stay where they are elsewhere."""
    apple, other = MagicMock(), MagicMock()
    apple.device, other.device = torch.device("mps"), torch.device("cuda")
    devices.double(apple)
    assert [name for name, _, _ in apple.method_calls] == ["cpu"]
    apple.cpu().double.assert_called_once()
    devices.double(other)
    assert [name for name, _, _ in other.method_calls] == ["double"]


def test_adaptive_solvers_without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """dx/dt = x from 1 reaches e to the tolerance with float32 times, which are asked for where a device has no float64."""
    import torchdiffeq

    found: list[torch.dtype] = []
    original = torchdiffeq.odeint

    def watched(*arguments: object, **options: object) -> object:
        found.extend([arguments[2].dtype, options["options"]["dtype"], options["options"]["step_t"].dtype])  # type: ignore[attr-defined, index]
        return original(*arguments, **options)

    monkeypatch.setattr(torchdiffeq, "odeint", watched)
    monkeypatch.setattr("amgen.solvers.ode.has_float64", lambda device: False)
    solver = make_solver("dopri5", StepGrid(1, "uniform", 1.0), 1e-5)
    end = solver.solve(lambda t, x: x, torch.ones(2, 1))  # type: ignore[arg-type, union-attr, call-arg]
    assert set(found) == {torch.float32}
    torch.testing.assert_close(end, torch.full((2, 1), 2.718281828), rtol=1e-4, atol=0)  # type: ignore[arg-type]


def test_double_precision_needs_a_device_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amgen.training.loop.has_float64", lambda device: False)
    outcome = run_cli("train", "digits", "--run-dir", tmp_path / "run", "--set", "training.precision=fp64", "--set", "action.width=8")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "training.precision=fp64: cpu has no float64: set training.device=cpu or another precision" in outcome.err
    assert devices.device_of("cpu") == torch.device("cpu")
