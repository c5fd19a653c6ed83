"""Every benchmark with a budget of a second or two: its table has what it promises."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import coupling
import crash_test
import invariance
import memory
import precision
import pytest
import randomness
import reading
import sampling
import solver_orders
import timing
import torch
from helpers import markdown_tables
from safetensors.torch import load_file, save_file

from amgen import config
from amgen.core.randomness import Purpose


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let works take 1, 2, 3... seconds in turn, instead of what they take."""
    ticks = iter(range(1, 10**6))
    monkeypatch.setattr(timing, "seconds", lambda work: float(next(ticks)))


def table_of(main: timing.Work, arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """Return the rows of the only table that a benchmark prints, without the headings."""
    main(arguments)  # type: ignore[call-arg]
    ((_, *rows),) = markdown_tables(capsys.readouterr().out)
    return rows


def test_works_take_turns() -> None:
    turns: list[str] = []
    times = timing.in_turn({name: lambda name=name: turns.append(name) for name in "ab"}, 3)  # type: ignore[misc]
    assert turns == list("ababab")
    assert {name: len(found) for name, found in times.items()} == {"a": 3, "b": 3}
    assert min(map(min, times.values())) >= 0


@pytest.mark.usefixtures("clock")
def test_coupling(capsys: pytest.CaptureFixture[str]) -> None:
    """Assignments take 1 and 3 s, steps 2 and 4 s: medians 2 and 3 s."""
    arguments = ["--preset", "digits", "--batch", "4", "--rounds", "2"]
    assert table_of(coupling.main, arguments, capsys) == [["4", "2000.0", "3000", "66.67%"]]


def test_an_assignment_and_a_step_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    works: dict[str, timing.Work] = {}
    monkeypatch.setattr(coupling, "in_turn", lambda found, rounds: works.update(found) or {name: [1.0] for name in found})
    coupling.main(["--preset", "digits", "--batch", "4"])
    assert list(works) == ["assignment", "step"]
    for work in works.values():
        work()


@pytest.mark.usefixtures("clock")
def test_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Recomputing and halving save memory; under a second derivative torch.utils.checkpoint saves next to nothing."""
    small = config.load("digits", ["action.width=8", "action.blocks=1", "action.multipliers=[1]", "action.attention=[]"])
    monkeypatch.setattr(config, "load", lambda preset: small)
    rows = table_of(memory.main, ["--preset", "digits", "--batch", "2", "--rounds", "1"], capsys)
    assert [row[1] for row in rows] == ["1000", "2000", "3000", "4000", "5000"]
    share = {row[0]: float(row[4]) for row in rows}
    assert share["all activations kept"] == 1
    assert share["activations recomputed"] < 0.95
    assert share["two passes of half the batch"] < 0.95
    assert share["plain autograd"] > 1
    assert share["torch.utils.checkpoint"] > 0.85 * share["plain autograd"]


def test_randomness(capsys: pytest.CaptureFixture[str]) -> None:
    rows = table_of(randomness.main, ["--batch", "2", "--rounds", "3"], capsys)
    assert [row[0] for row in rows] == ["1x8x8", "1x28x28", "3x32x32", "3x64x64"]
    assert all(float(row[3]) > 0 for row in rows)
    noise = randomness.seeded_anew(0, Purpose.NOISE, range(2), (3, 32, 32))
    assert not torch.equal(noise[0], noise[1])
    assert abs(float(noise.std()) - 1) < 0.05
    assert torch.equal(noise[1:], randomness.seeded_anew(0, Purpose.NOISE, range(1, 2), (3, 32, 32)))


def test_reading(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--size", "8", "--images", "8", "--batch", "2", "--batches", "4", "--workers", "0"]
    rows = table_of(reading.main, arguments, capsys)
    assert [row[0] for row in rows] == ["folder", "folder, in memory", "zip", "zip, in memory"]
    assert all(float(row[1].replace(",", "")) > 0 for row in rows)


def test_sampling(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Velocities keep activations; the second table gives sizes up to twice the one that auto chooses."""
    monkeypatch.setattr(sampling, "fitting", lambda *_: 6)
    sampling.main(["--presets", "digits", "--rounds", "1"])
    (_, row), (_, rates) = markdown_tables(capsys.readouterr().out)
    assert row[:2] == ["digits", "100"]
    assert float(row[4]) == pytest.approx(float(row[3]) / float(row[2]), rel=0.02)
    assert float(row[7]) == pytest.approx(float(row[6]) / float(row[5]), rel=0.05)
    assert float(row[7]) > 3
    assert [part.partition(":")[0] for part in rates[1].split(", ")] == ["1", "4", "6*", "12"]


def test_precision(capsys: pytest.CaptureFixture[str]) -> None:
    """bf16 keeps 8 bits, so that errors are about 2^-8."""
    rows = table_of(precision.main, ["--preset", "digits", "--batch", "2"], capsys)
    errors = {row[0]: float(row[1]) for row in rows}
    assert 2**-10 < errors["all"] < 2**-5
    assert errors.keys() > {"body.norm", "body.head"}


def test_orders_of_solvers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of one ODE solver and one SDE solver; both are short of an order that is 1 above the declared one."""
    monkeypatch.setattr(solver_orders, "TOLERANCE", -1)
    with pytest.raises(SystemExit, match="short of the declared order: euler, euler-maruyama"):
        solver_orders.main(["--solvers", "euler", "euler-maruyama", "--paths", "20"])
    (_, ode), (_, sde) = markdown_tables(capsys.readouterr().out)
    assert ode[:2] == ["euler", "1"]
    assert [float(order) for order in ode[2:]] == pytest.approx([1, 1, 1], abs=0.1)
    assert [float(cell) for cell in sde[1:]] == pytest.approx([1, 1, 1, 1, 1], abs=0.25)


def test_invariance(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With one process in place of two: the same batch gives the same weights, four passes of 16 images the same but for rounding."""

    def launch(command: list[str], **_: object) -> None:
        invariance.main(command[command.index(invariance.__file__) + 1 :])

    monkeypatch.setattr(invariance.subprocess, "run", launch)
    with pytest.raises(SystemExit) as ended:
        invariance.main(["--only", "torus", "--steps", "1", "--single", "1e-12"])
    assert ended.value.code == 1  # rounding in single precision is larger than that
    ((_, (name, *cells)),) = markdown_tables(capsys.readouterr().out)
    assert name == "torus"
    differences = dict(zip(invariance.COLUMNS, map(float, cells), strict=True))
    for number, most in {"fp32": 1e-3, "fp64": 1e-10}.items():
        for what in ("loss", "weights"):
            assert differences[number, "2 x 32", what] == 0
            assert differences[number, "2 x 16 x 2", what] < most
    assert differences["fp32", "2 x 16 x 2", "weights"] > 0


def test_an_unknown_training_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        invariance.main(["--only", "nothing"])
    assert "no training has such a name: choose among balanced" in capsys.readouterr().err


def test_a_run_that_is_killed(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With copies of a run in place of trainings: the second is killed, and the third starts in its folder."""
    starts: list[Path] = []

    def start(run: Path, images: int) -> "subprocess.Popen[str]":
        assert images == 96
        shutil.copytree(trained, run, dirs_exist_ok=True)
        starts.append(run)
        return subprocess.Popen(["sleep", "30" if len(starts) == 2 else "0"], stderr=subprocess.PIPE, text=True)

    monkeypatch.setattr(crash_test, "start", start)
    rows = table_of(crash_test.main, ["--kills", "1", "--images", "96"], capsys)
    lines = len((trained / "metrics.jsonl").read_text().splitlines())
    assert rows == [["1", "0", "0", f"0 of {lines}", "equal"]]
    assert [run.name for run in starts] == ["calm", "killed", "killed"]


def test_differences_of_runs_are_counted(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    assert (crash_test.differing_tensors(trained, other), crash_test.differing_lines(trained, other)) == (0, 0)
    metrics = other / "metrics.jsonl"
    first, *rest = metrics.read_text().splitlines()
    metrics.write_text("\n".join([first, first, *rest]) + "\n")
    assert crash_test.differing_lines(trained, other) == 1 + len(rest)
    assert crash_test.images_seen(trained) == crash_test.images_seen(other) == 96
    folder = crash_test.checkpoints.find(other)
    tensors = load_file(folder / "action.safetensors")
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] + 1}, folder / "action.safetensors")
    assert crash_test.differing_tensors(other, trained) == 1
