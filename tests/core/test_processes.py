"""What processes tell each other, how they part, and what becomes of one whose others are lost."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers import run_cli

from amgen.core.errors import PeerLost, UserError
from amgen.core.processes import Processes, leave


@pytest.fixture
def joined(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone, as torchrun would have made."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_commands_part_from_the_others(joined: None, trained: Path, tmp_path: Path) -> None:
    """An open connection can abort an interpreter that ends."""
    outcome = run_cli("sample", trained, "--num", "1", "--grid", tmp_path / "g.png")
    assert outcome.code == 0, outcome.err
    assert not torch.distributed.is_initialized()
    leave()  # nobody is there any more, which is no mistake


def test_work_is_shared_whole() -> None:
    shares = [Processes(rank, 3).share(range(10)) for rank in range(3)]
    assert sorted(index for share in shares for index in share) == list(range(10))


@pytest.mark.parametrize(
    ("end", "reason"), [(signal.SIGSTOP, "Timed out waiting 3000ms"), (signal.SIGKILL, "Connection closed by peer")], ids=["silent", "dead"]
)
def test_a_lost_process_ends_the_others_with_76(end: signal.Signals, reason: str, trained: Path, tmp_path: Path) -> None:
    """Two processes of `amgen sample`, started by environment variables alone; one is stopped or killed while it draws."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "out"
    command = [sys.executable, "-m", "amgen", "sample", trained, "-n", "200", "--batch-size", "1", "--device", "cpu", "--out", out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "AMGEN_TIMEOUT": "3", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    processes = [
        subprocess.Popen(
            [*map(str, command)],
            env={**environment, "MASTER_PORT": str(port), "RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        while not any(out.glob("*1.png")):  # of the second process, which has odd images
            assert all(process.poll() is None for process in processes)
            time.sleep(0.02)
        processes[1].send_signal(end)
        _, errors = processes[0].communicate(timeout=120)
    finally:
        for process in processes:
            process.kill()
        processes[1].communicate()
    assert processes[0].returncode == 76, errors
    assert errors.startswith("amgen: process 0 stops because another of the 2 is lost (")
    assert reason in errors
    assert errors.count("\n") == 1


def failing(*arguments: object) -> None:
    raise RuntimeError("[/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:48350\nMore")


@pytest.mark.parametrize(
    "operation",
    [
        lambda processes: processes.gather([1]),
        lambda processes: processes.agree(1),
        lambda processes: processes.merge(torch.zeros(2, 2)),
        lambda processes: processes.wait(),
        lambda processes: leave(),
    ],
    ids=["gather", "agree", "merge", "wait", "leave"],
)
def test_each_common_operation_notices_a_lost_process(
    operation: Callable[[Processes], object], joined: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("all_gather_object", "all_reduce", "barrier"):
        monkeypatch.setattr(torch.distributed, name, failing)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(
        PeerLost, match=r"^process [01] stops because another of the 2 is lost \(\[/gloo/.*48350\): run the same command again"
    ):
        operation(Processes(1, 2, "cpu"))


def test_other_failures_are_passed_on(joined: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(*arguments: object) -> None:
        raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous")

    monkeypatch.setattr(torch.distributed, "barrier", mistake)
    with pytest.raises(RuntimeError, match="ambiguous"):
        Processes(0, 2).wait()


def test_processes_wait_as_long_as_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit reaches the process group; a launch that leaves each process on its own is refused, as is a limit that is none."""
    import accelerate

    limits = []

    class State:
        def __init__(self, cpu: bool, timeout: object):
            limits.append(timeout)
            self.process_index, self.num_processes, self.device = 0, 1, torch.device("cpu")

    monkeypatch.setattr(accelerate, "PartialState", State)
    for variable, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "AMGEN_TIMEOUT": "77"}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match="WORLD_SIZE=2, but each process would work alone"):
        Processes.join("cpu")
    assert [limit.total_seconds() for limit in limits] == [77]
    for text in ("0", "soon", "1e9", "9" * 5000):
        monkeypatch.setenv("AMGEN_TIMEOUT", text)
        with pytest.raises(UserError, match=r"AMGEN_TIMEOUT='.*' in the environment: expected an integer from 1 to 2,592,000"):
            Processes.join("cpu")
