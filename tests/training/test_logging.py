"""What is recorded of a run, and reported to trackers."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from helpers import TINY, newest_tensors

from amgen import config
from amgen.core.errors import UserError
from amgen.model import checkpoints
from amgen.model.build import build_action
from amgen.training.logging import MetricsFile
from amgen.training.main import train
from amgen.training.measurements import block_norms, gradient_norms

OPTIONS = [*TINY, "training.sample_every=0"]


def run(folder: Path, *overrides: str) -> list[dict[str, float]]:
    train(config.load("digits", [*OPTIONS, *overrides]), folder)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_norms_and_distances_are_what_they_say(tmp_path: Path) -> None:
    """Against the tensors of the checkpoint, and the blocks' gradients against the whole one of a single step."""
    line = run(tmp_path / "run", "training.log_every=16", "training.ema=[0.1,0.99]")[-1]
    tensors = newest_tensors(tmp_path / "run")
    weights = torch.cat([value.flatten() for name, value in sorted(tensors.items()) if name.startswith("action")])
    average = torch.cat([value.flatten() for name, value in sorted(tensors.items()) if name.startswith("ema-0.99.")])
    assert line["weight_norm"] == pytest.approx(float(weights.norm()), rel=1e-5)
    assert line["ema_distance/0.99"] == pytest.approx(float((average - weights).norm() / weights.norm()), rel=1e-4)
    assert 0 < line["ema_distance/0.99"] != line["ema_distance/0.1"]
    blocks = {name: value for name, value in line.items() if name.startswith("gradient_norm/")}
    assert {"gradient_norm/stem", "gradient_norm/down.0", "gradient_norm/middle", "gradient_norm/up.1", "gradient_norm/head"} < set(blocks)
    assert sum(value**2 for value in blocks.values()) ** 0.5 == pytest.approx(line["gradient_norm"], rel=1e-4)


def test_blocks_share_the_gradient() -> None:
    action = build_action(config.load("digits", TINY))
    for parameter in action.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    expected = 2 * sum(parameter.numel() for parameter in action.body.down[0].parameters()) ** 0.5
    assert block_norms(gradient_norms(action))["gradient_norm/down.0"] == pytest.approx(expected)


def test_the_machine_is_measured_apart(tmp_path: Path) -> None:
    run(tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "machine.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [32, 64, 96]
    for line in lines:
        assert set(line) == {"step", "images", "images_per_second", "data_wait", "memory_mb"}
        assert line["images_per_second"] > 0
        assert 0 < line["data_wait"] < 1
        assert 50 < line["memory_mb"] < 50_000


def test_a_line_without_its_end_is_written_anew(tmp_path: Path) -> None:
    """A whole object whose newline never reached the disk would otherwise run into the next line."""
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}')
    record = MetricsFile(file, 2)
    record.write({"step": 2})
    record.close()
    assert file.read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.filterwarnings("ignore")  # the trackers' own deprecations are not ours to mend
def test_tensorboard_is_told_everything_once(tmp_path: Path) -> None:
    """A run that lost work after its last checkpoint and was resumed shows every figure at every place, once."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = ["training.trackers=[tensorboard]", "training.checkpoint_every=64"]
    run(tmp_path / "run", *options)
    shutil.rmtree(checkpoints.find(tmp_path / "run"))
    lines = run(tmp_path / "run", *options)
    events = EventAccumulator(str(tmp_path / "run" / "tracking" / "amgen"))
    events.Reload()
    names = set(lines[0]) - {"images"} | {"images_per_second", "data_wait", "memory_mb"}
    assert set(events.Tags()["scalars"]) == names
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(line["images"], pytest.approx(line["loss"], rel=1e-6)) for line in lines]


@pytest.mark.filterwarnings("ignore")
def test_wandb_works_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run(tmp_path / "run", "training.trackers=[wandb]")
    name = (tmp_path / "run" / "tracking" / "wandb-id").read_text()
    (log,) = (tmp_path / "run" / "tracking" / "wandb").glob(f"offline-run-*/run-{name}.wandb")
    deadline = time.monotonic() + 30  # a process of wandb's own writes it, and may be a moment behind
    while b"ema_distance/0.998" not in log.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"names {name}, which is not installed: pip install 'amgen\[{name}\]'"):
        run(tmp_path / "run", f"training.trackers=[{name}]")
    assert not (tmp_path / "run").exists()


def test_trackers_that_fail_end_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One that cannot be started is a mistake to mend; one that fails on the way is left, with a line."""
    from accelerate import Accelerator

    class UsageError(Exception):
        pass

    def fail(*_: object, **__: object) -> None:
        raise UsageError("api_key not configured (no-tty)\ncall wandb.login()")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(Accelerator, "init_trackers", fail)
    with pytest.raises(UserError, match=r"\['tensorboard'\] cannot be started \(UsageError: api_key not configured \(no-tty\) call wandb"):
        run(tmp_path / "run", "training.trackers=[tensorboard]")
    monkeypatch.setattr(Accelerator, "init_trackers", lambda *_, **__: None)
    monkeypatch.setattr(Accelerator, "log", fail)
    assert len(run(tmp_path / "run", "training.trackers=[tensorboard]")) == 3
    said = capsys.readouterr().out
    assert (
        said.count("the trackers failed (UsageError: api_key not configured (no-tty) call wandb.login()): training continues without them")
        == 1
    )
