"""Processes that are stopped, killed and restarted, as a cluster does it. Two over gloo."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import TINY, assert_learned_the_same, newest_tensors, sets

from amgen import config
from amgen.core.errors import UserError
from amgen.model import checkpoints
from amgen.training.main import train
from amgen.training.ranks import SHARDED

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")

LONG = [*TINY, "training.sample_every=0", "training.log_every=64", "training.checkpoint_every=512", "action.dropout=0.1"]


@contextmanager
def launched(run: Path, overrides: list[str], *torchrun: str) -> Iterator[subprocess.Popen[str]]:
    """Train in two processes under torchrun; whatever is left of them is killed in the end."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *torchrun]
    command += ["-m", "amgen", "train", "digits", "--run-dir", str(run), *sets(overrides)]
    # Otherwise torchrun keeps its store over a restart, where new processes may find the addresses of dead ones.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            for pid in [*workers_of(process), process.pid]:
                os.kill(pid, signal.SIGKILL)


def workers_of(launcher: subprocess.Popen[str]) -> list[int]:
    """Return the processes that torchrun started, in the order of their ranks."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    found = [int(pid) for pid in children.read_text().split()]
    return sorted(pid for pid in found if "amgen" in Path(f"/proc/{pid}/cmdline").read_text())


def wait_for_images(run: Path, images: int, process: subprocess.Popen[str]) -> None:
    """Wait until the record of the run has come that far."""
    while True:
        record = run / "metrics.jsonl"
        lines = record.read_text().splitlines(keepends=True) if record.exists() else []
        if lines and lines[-1].endswith("\n") and json.loads(lines[-1])["images"] >= images:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_a_signal_to_the_launcher_saves_and_the_run_goes_on(tmp_path: Path) -> None:
    """SIGTERM to torchrun reaches every process; one checkpoint is saved, and one process finishes what two began."""
    overrides = [*LONG, "training.images=1000000"]
    with launched(tmp_path / "run", overrides) as process:
        wait_for_images(tmp_path / "run", 128, process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert errors.count("run the same command again to go on") == 1
    saved = checkpoints.load(checkpoints.find(tmp_path / "run")).progress
    assert saved.images >= 128
    total = saved.images + 64
    train(config.load("digits", [*LONG, f"training.images={total}"]), tmp_path / "run")
    train(config.load("digits", [*LONG, f"training.images={total}"]), tmp_path / "calm")
    whole = newest_tensors(tmp_path / "calm")
    assert_learned_the_same(newest_tensors(tmp_path / "run"), whole, config.load("digits", LONG))
    lines = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines == [json.loads(line)["step"] for line in (tmp_path / "calm" / "metrics.jsonl").read_text().splitlines()]


def test_a_signal_to_one_process_stops_both_with_75(tmp_path: Path) -> None:
    """They agree where they synchronise, here after every third step: both save after the same one."""
    run, overrides = tmp_path / "run", [*LONG, "training.images=1000000", "training.sync_every=3"]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in ("0", "1"):
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        command = [sys.executable, "-m", "amgen", "train", "digits", "--run-dir", str(run), *sets(overrides)]
        environment = {**os.environ, **places, "OMP_NUM_THREADS": "1"}
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    try:
        wait_for_images(run, 128, processes[0])
        processes[1].send_signal(signal.SIGTERM)
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [75, 75], errors
    assert "run the same command again to go on" in errors[0]
    saved = checkpoints.load(checkpoints.find(run)).progress
    assert saved.step % 3 == 0 or saved.images % 64 == 0  # log lines synchronise as well


def test_a_process_that_dies_stops_the_others_with_a_message_and_a_restart_goes_on(tmp_path: Path) -> None:
    """One of two is killed: the other says so and ends at once; torchrun starts both again, and they finish the run."""
    overrides = [*LONG, "training.images=1024", "training.checkpoint_every=128"]
    with launched(tmp_path / "run", overrides, "--max-restarts", "1") as process:
        wait_for_images(tmp_path / "run", 256, process)
        os.kill(workers_of(process)[1], signal.SIGKILL)
        output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "stops because another of the 2 is lost" in errors
    assert "resuming from" in output
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(4, 65, 4))


@pytest.mark.parametrize("variable", SHARDED)
def test_divided_weights_are_refused_with_the_reason(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(UserError, match=rf"{variable}\) frees each layer's weights .* differentiates the action twice"):
        train(config.load("digits", TINY), tmp_path / "run")
    assert not (tmp_path / "run").exists()
