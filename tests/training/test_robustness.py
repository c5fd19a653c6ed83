"""A training among signals, full disks, network folders, damaged files and failing pictures: it goes on, or ends with one line."""

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TINY, assert_same_tensors, newest_tensors, run_cli, sets
from PIL import Image
from safetensors.torch import load_file, save_file

from amgen import config
from amgen.core.errors import Diverged, Interrupted, UserError
from amgen.core.files import locked, sha256
from amgen.data import ImageStream, open_dataset
from amgen.model import checkpoints
from amgen.training import main
from amgen.training.logging import MetricsFile
from amgen.training.loop import Trainer
from amgen.training.main import train
from amgen.training.ranks import FaultTolerantProcesses, tolerate_failure
from amgen.training.rundir import lock
from amgen.training.signals import catch_signals

PLAIN = [*TINY, "training.sample_every=0"]
SCORED = ["evaluation.every=96", "evaluation.features=pixels", "evaluation.num=8"]


def run(folder: Path, *overrides: str) -> Path:
    train(config.load("digits", [*TINY, *overrides]), folder)
    return folder


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copied"))


# Pictures and evaluations


def test_pictures_and_evaluations_that_fail_end_no_training(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Samples that are not finite, or whatever else goes wrong: a line for each, and the weights of an undisturbed run."""

    def diverge(*_: object, **__: object) -> Any:
        raise Diverged("image 3 has values that are not finite")

    monkeypatch.setattr("amgen.training.periodic.generate_all", diverge)
    monkeypatch.setattr("amgen.evaluation.evaluator.generate", lambda *_: [][0])
    folder = run(tmp_path / "run", *SCORED)
    lines = capsys.readouterr().out.splitlines()
    expected = "the grid at 96 images failed (image 3 has values that are not finite): training continues without it"
    assert lines.count(expected) == 1
    assert lines.count("the evaluation at 96 images failed (IndexError: list index out of range): training continues without it") == 1
    assert f"trained on 96 images: {folder}" in lines
    assert_same_tensors(newest_tensors(folder), newest_tensors(trained))


class Together:
    """Threads that stand for processes, by way of what torch.distributed would do."""

    def __init__(self, count: int, monkeypatch: pytest.MonkeyPatch):
        self.count, self.board, self.barrier, self.local = count, [None] * count, threading.Barrier(count), threading.local()
        monkeypatch.setattr(torch.distributed, "all_gather_object", self._gather)

    def _gather(self, parts: list[Any], values: Any) -> None:
        self.board[self.local.rank] = values
        self.barrier.wait(timeout=10)
        parts[:] = self.board
        self.barrier.wait(timeout=10)

    def run(self, work: Callable[[FaultTolerantProcesses], Any]) -> list[Any]:
        results: list[Any] = [None] * self.count

        def start(rank: int) -> None:
            self.local.rank = rank
            results[rank] = work(FaultTolerantProcesses(rank, self.count, "cpu"))

        threads = [threading.Thread(target=start, args=(rank,)) for rank in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        return results


@pytest.mark.parametrize("place", ["before", "between", "after", "nowhere", "everywhere"])
def test_all_processes_leave_a_work_that_fails_in_one(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 1 fails before, between or after what is exchanged, or all do: the main one says so once, and all meet behind it."""
    said: list[str] = []

    def work(processes: FaultTolerantProcesses) -> list[int]:
        def fail(here: str) -> None:
            if place == "everywhere" or (place == here and processes.rank == 1):
                raise Diverged(f"failed {place}")

        with tolerate_failure(processes, said.append, "the grid"):
            fail("before")
            assert processes.gather([processes.rank]) == [0, 1, 2]
            fail("between")
            assert processes.agree(processes.rank) == 0
            fail("after")
        return processes.gather([processes.rank])

    assert Together(3, monkeypatch).run(work) == [[0, 1, 2]] * 3
    assert said == ([] if place == "nowhere" else [f"the grid failed (failed {place}): training continues without it"])


# Locks


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_one_lock_is_unknown_another_is_taken(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network folders that know no flock, or only that of files opened for writing, still keep a second training out."""

    def unknown(descriptor: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unknown)
    script = (
        "import fcntl, sys; from pathlib import Path; from amgen.core.errors import UserError; from amgen.training.rundir import lock\n"
        "def unknown(*_): raise OSError(9, 'bad')\n"
        "fcntl.flock = unknown\n"
        "try:\n    with lock(Path(sys.argv[1])): print('taken')\nexcept UserError as error: print(error)"
    )
    said: list[str] = []
    if number == errno.EBADF:  # POSIX locks are between processes
        with lock(tmp_path / "run", said.append):
            other = subprocess.run([sys.executable, "-c", script, tmp_path / "run"], capture_output=True, text=True, check=True)
        assert "another training writes to" in other.stdout
        assert said == []
    monkeypatch.setattr(fcntl, "lockf", unknown)
    with lock(tmp_path / "run", said.append):
        assert said == [f"the file system of {tmp_path / 'run'} has no locks: make sure that no other training writes there"]


def test_the_lock_is_a_file_that_is_no_unknown_file(tmp_path: Path) -> None:
    """It is left behind, alone in a folder it is no reason to refuse it, and --restart keeps out of its way."""
    with lock(tmp_path / "run"), pytest.raises(UserError, match="another training writes to"), lock(tmp_path / "run"):
        pass
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == [".lock"]
    run(tmp_path / "run", "training.images=16", "training.sample_every=0")
    outcome = run_cli("train", "digits", "--run-dir", tmp_path / "run", "--restart", *sets([*PLAIN, "training.images=16"]))
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "run" / ".lock").is_file()


def test_one_process_fetches_a_data_set_and_the_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three at once, on an empty folder: one of them downloads, and all have it. (flock is between open files, threads' included.)"""
    import torchvision

    fetched: list[int] = []

    class Fake:
        data = np.zeros((4, 28, 28), dtype=np.uint8)
        targets = torch.tensor([0, 1, 0, 1])
        classes = ("a", "b")

        def __init__(self, root: Path, train: bool, download: bool):
            if not (root / "whole").exists():
                if not download:
                    raise RuntimeError("Dataset not found.")
                fetched.append(1)
                time.sleep(0.2)
                (root / "whole").touch()

    monkeypatch.setattr(torchvision.datasets, "MNIST", Fake)
    options = config.load("digits", ["data.path=mnist", f"data.root={tmp_path / 'data'}", "data.size=28", "data.download=true",
                                     "action.multipliers=[1]"]).data  # fmt: skip
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(len(open_dataset(options)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (fetched, found) == ([1], [4, 4, 4])
    (tmp_path / "data" / "whole").unlink()
    with pytest.raises(UserError, match="MNIST is not in .*: set data.download=true to fetch it"):
        open_dataset(config.change(options, {"download": False}))


# Signals


def test_a_second_interrupt_ends_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    """The first one is answered with a line; a launcher's copy of it within a second is the same one."""
    with pytest.raises(KeyboardInterrupt), catch_signals() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.name == "SIGTERM"
        os.kill(os.getpid(), signal.SIGINT)
        assert request.name == "SIGINT"
        os.kill(os.getpid(), signal.SIGINT)
    assert (
        capfd.readouterr().err == "amgen: stopping after this step, with a checkpoint; press Ctrl-C again to stop at once without saving\n"
    )
    with catch_signals(launched=True):
        os.kill(os.getpid(), signal.SIGINT)
    assert "amgen: stopping within training.sync_every steps, with a checkpoint;" in capfd.readouterr().err
    with pytest.raises(KeyboardInterrupt), catch_signals(say=False, launched=True) as request:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1.1)
        assert request.name == "SIGINT"
        os.kill(os.getpid(), signal.SIGINT)
    assert capfd.readouterr().err == ""


def test_hangups_are_noted_but_not_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with catch_signals() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert request.name is None
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with catch_signals() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert request.name == "SIGHUP"
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_signals_to_the_whole_group_save_and_leave_nobody(tmp_path: Path) -> None:
    """Terminals and schedulers signal all processes of a job: workers let the training save, and end with it; also when it is killed."""
    folder = tmp_path / "run"
    overrides = [*PLAIN, "training.images=1000000", "training.log_every=16", "data.workers=2"]
    command = [sys.executable, "-m", "amgen", "train", "digits", "--run-dir", str(folder), *sets(overrides)]

    @contextmanager
    def started(already: int = 0) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            while not (folder / "metrics.jsonl").exists() or len((folder / "metrics.jsonl").read_text().splitlines()) <= already:
                assert process.poll() is None, process.communicate()
                time.sleep(0.1)
            workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            assert len(workers) == 2
            yield process, workers
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()

    with started() as (process, workers):
        os.killpg(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert errors.count("\n") == 1
    assert "run the same command again to go on" in errors
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
    with started(len((folder / "metrics.jsonl").read_text().splitlines())) as (process, workers):
        process.kill()
        process.wait(timeout=60)  # not for its output, which the workers hold open, too
        with locked(folder / ".lock"):  # workers that outlive it do not keep its lock
            pass
        process.communicate(timeout=60)
        deadline = time.monotonic() + 30
        while any(Path(f"/proc/{worker}").exists() for worker in workers):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_closed_terminal_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is printed can be: the run ends as it would have."""
    from rich.console import Console

    def closed(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Console, "print", closed)
    folder = run(tmp_path / "run")
    assert checkpoints.load(checkpoints.find(folder)).progress.images == 96


# Workers, memory


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on machines of one core
@pytest.mark.parametrize("workers", [0, 2])
def test_errors_of_reading_come_in_one_line(workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether this process reads or others do: an unreadable image, and no memory."""
    original = ImageStream.__getitems__
    problem: list[Exception] = [UserError("cannot read the image cat.png: replace or remove it")]

    def broken(self: ImageStream, indices: Any) -> Any:
        if 40 in indices:
            raise problem[0]
        return original(self, indices)

    monkeypatch.setattr(ImageStream, "__getitems__", broken)
    command = ["train", "digits", "--run-dir", tmp_path / "run", *sets([*PLAIN, f"data.workers={workers}"])]
    outcome = run_cli(*command)
    assert (outcome.code, outcome.err) == (2, "amgen: cannot read the image cat.png: replace or remove it\n")
    problem[0] = RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried 1 TB")
    outcome = run_cli(*command)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "cpu has not enough memory for a pass of 16 images" in outcome.err


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_worker_that_is_killed_is_told_of_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, original = os.getpid(), ImageStream.__getitems__

    def killed(self: ImageStream, indices: Any) -> Any:
        if os.getpid() != owner:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, indices)

    monkeypatch.setattr(ImageStream, "__getitems__", killed)
    outcome = run_cli("train", "digits", "--run-dir", tmp_path / "run", *sets([*PLAIN, "data.workers=1"]))
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "one of the data.workers=1 worker processes was killed" in outcome.err
    assert "set fewer data.workers" in outcome.err


@pytest.mark.parametrize("place", ["step", "network"])
def test_no_memory_says_what_to_lower(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 1 GiB")

    monkeypatch.setattr(*{"step": (Trainer, "_sample"), "network": ("amgen.training.loop.build_action",)}[place], full)  # type: ignore[call-overload]
    outcome = run_cli("train", "digits", "--run-dir", tmp_path / "run", *sets([*PLAIN, "training.micro_batch=8"]))
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    for word in {
        "step": ("a pass of 8 images", "training.micro_batch", "checkpoint_activations", "batch_size"),
        "network": ("action.width",),
    }[place]:
        assert word in outcome.err


@pytest.mark.parametrize(
    ("override", "bound"),
    [
        ("training.timeout=99999999999999", "2592000"),
        ("training.batch_size=10000000", "1000000"),
        ("coupling.group=1000000000", "16384"),
        ("data.workers=100000", "256"),
        ("times.bins=1000000000", "65536"),
        ("training.images=1" + 400 * "0", "1000000000000000"),
        ("training.warmup_images=1" + 400 * "0", "1000000000000000"),
    ],
)
def test_sizes_out_of_all_proportion_are_refused(override: str, bound: str, tmp_path: Path) -> None:
    """At once, with the largest that is allowed."""
    outcome = run_cli("train", "digits", "--run-dir", tmp_path / "run", "--set", "times.kind=adaptive", "--set", override)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert override.split("=")[0] in outcome.err
    assert bound in outcome.err.replace(",", "")


# Damaged files


def damage(run: Path, name: str, change: Callable[[Any], Any]) -> Path:
    """Change a file of a run's newest checkpoint, JSON or tensors, and let the manifest vouch for it; return the file."""
    folder = checkpoints.find(run)
    file = folder / name
    if name.endswith(".json"):
        file.write_text(json.dumps(change(json.loads(file.read_text()))))
    else:
        save_file(change(load_file(file)), file)
    if name != "manifest.json":
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, name: sha256(file)}))
    return file


HEAD = "body.head.weight"
DAMAGES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a tensor is missing": ("optimizer.safetensors", lambda t: {key: value for key, value in t.items() if key != f"{HEAD}:exp_avg"}),
    "another shape": ("optimizer.safetensors", lambda t: {**t, f"{HEAD}:exp_avg": torch.zeros(3)}),
    "not finite": ("optimizer.safetensors", lambda t: {**t, f"{HEAD}:exp_avg_sq": t[f"{HEAD}:exp_avg_sq"] * torch.nan}),
    "whole numbers": ("optimizer.safetensors", lambda t: {**t, f"{HEAD}:exp_avg": t[f"{HEAD}:exp_avg"].long()}),
    "a stranger": ("optimizer.safetensors", lambda t: {**t, "nobody:step": torch.zeros(())}),
    "no state": ("state.json", lambda s: []),
    "an unknown key": ("state.json", lambda s: {**s, "colour": "red"}),
    "a text for a count": ("state.json", lambda s: {**s, "step": "6"}),
    "counts that disagree": ("state.json", lambda s: {**s, "images": 95}),
    "below zero": ("state.json", lambda s: {**s, "step": -1, "images": -16}),
    "a window of texts": ("state.json", lambda s: {**s, "window": {"steps": "1"}}),
    "no steps in the window": ("state.json", lambda s: {**s, "window": {"loss": 1.0}}),
    "times without a sampler": ("state.json", lambda s: {**s, "times": [[1.0]]}),
    "data that is no text": ("state.json", lambda s: {**s, "data": 7}),
    "a list for a manifest": ("manifest.json", lambda m: list(m)),
    "a number for a manifest": ("manifest.json", lambda m: 7),
    "no checksums": ("manifest.json", lambda m: dict.fromkeys(m, 7)),
}


def test_damaged_checkpoints_are_refused_in_one_line(trained: Path, tmp_path: Path) -> None:
    """Also where the checksums are right: the file is named and what to do; nothing is deleted."""
    for name, (file, change) in DAMAGES.items():
        folder = Path(shutil.copytree(trained, tmp_path / "run"))
        damaged = damage(folder, file, change)
        outcome = run_cli("train", "digits", "--run-dir", folder, *sets([*TINY, "training.images=112"]))
        assert (outcome.code, outcome.err.count("\n"), "Traceback" in outcome.err) == (2, 1, False), (name, outcome.err)
        assert str(damaged.parent) in outcome.err, (name, outcome.err)
        assert damaged.name in outcome.err or file == "manifest.json" or name in ("no state", "an unknown key"), (name, outcome.err)
        assert f"remove {damaged.parent}" in outcome.err, name
        assert damaged.is_file()
        shutil.rmtree(folder)


def test_averages_are_checked_as_well(copied: Path) -> None:
    for change, reason in {
        "missing": (lambda t: {key: value for key, value in t.items() if key != HEAD}, f"it lacks {HEAD}"),
        "infinite": (lambda t: {**t, HEAD: t.get(HEAD, torch.zeros(1, 16, 3, 3)) / 0}, ""),
    }.values():
        file = damage(copied, "ema-0.99.safetensors", change)
        outcome = run_cli("train", "digits", "--run-dir", copied, *sets([*TINY, "training.images=112"]))
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
        assert str(file) in outcome.err
        assert reason in outcome.err


@pytest.mark.parametrize("name", ["metrics.jsonl", "machine.jsonl"])
def test_a_record_that_is_none_is_refused_in_one_line(name: str, copied: Path) -> None:
    record = copied / name
    command = ["train", "digits", "--run-dir", copied, *sets([*TINY, "training.images=112"])]
    record.write_bytes(b"\xff\xfe{}\n")
    outcome = run_cli(*command)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"cannot read {record}" in outcome.err
    assert "move it away and run again" in outcome.err
    record.unlink()
    record.mkdir()
    outcome = run_cli(*command)
    assert (outcome.code, outcome.err) == (2, f"amgen: {record} is not a file: move it away and run again\n")


@pytest.mark.parametrize("name", ["metrics.jsonl", "machine.jsonl"])
def test_a_full_disk_ends_with_one_line_and_a_whole_checkpoint(
    name: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up at the second line of a record; with room again, the run goes on to the weights of an undisturbed one."""
    folder, overrides = tmp_path / "run", ["training.checkpoint_every=16"]
    original = MetricsFile.__init__

    class Full:
        def __init__(self, file: Any):
            self.file, self.name, self.lines = file, file.name, 0

        def write(self, text: str) -> None:
            self.lines += 1
            self.file.write(text[: 10 if self.lines == 2 else None])

        def flush(self) -> None:
            self.file.flush()
            if self.lines == 2:
                raise OSError(errno.ENOSPC, "No space left on device")

        def fileno(self) -> int:
            return int(self.file.fileno())

        def close(self) -> None:
            self.file.close()
            raise OSError(errno.ENOSPC, "No space left on device")

    def full(self: MetricsFile, path: Path, step: int) -> None:
        original(self, path, step)
        if path.name == name:
            self._file = Full(self._file)  # type: ignore[assignment]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsFile, "__init__", full)
        outcome = run_cli("train", "digits", "--run-dir", folder, *sets([*TINY, *overrides]))
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"cannot write {folder / name}: No space left on device: free some space" in outcome.err
    assert checkpoints.load(checkpoints.find(folder)).progress.images == 48  # the line of 64 images comes before their checkpoint
    run(folder, *overrides)
    assert_same_tensors(newest_tensors(folder), newest_tensors(trained))
    assert (folder / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()


# Messages


def test_a_run_that_cannot_be_longer_says_why(tmp_path: Path) -> None:
    """Where the learning rate fell towards the end, raising training.images is neither advised nor taken."""
    command = ["train", "digits", "--run-dir", tmp_path / "run", *sets([*PLAIN, "training.images=32", "training.decay=0.5"])]
    assert run_cli(*command).code == 0
    outcome = run_cli(*command)
    assert outcome.code == 0
    assert "already trained on 32 images: the learning rate has fallen to its end (training.decay=0.5)" in outcome.out
    assert "raise training.images" not in outcome.out
    outcome = run_cli(*command, "--set", "training.images=64")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "training.images (32 there, 64 now), which cannot be changed because training.decay=0.5" in outcome.err


def test_a_changed_table_is_told_in_a_short_line(tmp_path: Path) -> None:
    """Not by the matrices that were measured of it; and long values are cut."""
    table = tmp_path / "table.npz"
    times, points = np.repeat([0.0, 1.0], 20), np.random.default_rng(0).normal(size=(40, 8))
    options = ["data.dimension=8", f"data.path={table}", "action.width=8", "action.depth=1", "training.images=32", "training.batch_size=16",
               "training.sample_every=0", "coupling.group=8"]  # fmt: skip
    for scale in (1, 2):
        np.savez(table, times=times, points=scale * points)
        outcome = run_cli("train", "cells", "--run-dir", tmp_path / "run", *sets(options))
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"the table changed (data.origin, data.axes of {table} differ now)" in outcome.err
    assert len(outcome.err) < 400


def test_relative_paths_are_recorded_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is resumed by the same relative path, from the same folder, and used from any other."""
    (tmp_path / "here" / "images").mkdir(parents=True)
    for number in range(16):
        Image.fromarray(np.full((8, 8), 8 * number, dtype=np.uint8)).save(tmp_path / "here" / "images" / f"{number}.png")
    monkeypatch.chdir(tmp_path / "here")
    more = ["data.path=images", "training.images=16", "evaluation.data=images", "path.kind=super-resolution"]
    command = ["train", "digits", "--run-dir", tmp_path / "run", *sets([*PLAIN, *more])]
    assert run_cli(*command).code == 0
    recorded = config.load(str(tmp_path / "run" / "config.yaml"))
    assert recorded.images.path == recorded.evaluation.data == str(tmp_path / "here" / "images")
    outcome = run_cli(*command, "--set", "training.images=32")
    assert outcome.code == 0, outcome.err
    monkeypatch.chdir(tmp_path)
    outcome = run_cli("sample", tmp_path / "run", "-n", "2", "--grid", tmp_path / "grid.png")
    assert outcome.code == 0, outcome.err
    assert config.load("digits").images.path == "digits"


def test_a_stop_is_saved_before_anything_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Trainer._step

    def stop(self: Trainer, *arguments: Any, **options: Any) -> None:
        signal.raise_signal(signal.SIGHUP)
        original(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "_step", stop)
    with pytest.raises(Interrupted):
        run(tmp_path / "run")
    assert checkpoints.load(checkpoints.find(tmp_path / "run")).progress.images == 16


@pytest.mark.parametrize("is_main", [True, False])
def test_what_the_main_process_finds_wrong_all_raise_alike(is_main: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one line says it and no process is left waiting; what is no error is returned in all."""
    sent: list[Any] = []

    def broadcast(found: list[Any]) -> list[Any]:
        sent.extend(found)
        return found if is_main else [UserError("another training is at work")]

    def refuse() -> None:
        raise UserError("another training is at work")

    monkeypatch.setattr(main, "broadcast_object_list", broadcast)
    accelerator = SimpleNamespace(is_main_process=is_main)
    with pytest.raises(UserError, match="another training is at work") as caught:
        main._from_main(accelerator, refuse)  # type: ignore[arg-type]
    assert caught.value.collective
    assert [type(value) for value in sent] == [UserError if is_main else type(None)]
    assert not UserError("another one").collective


def test_options_that_do_not_fit_cost_no_run_that_was_to_be_restarted(trained: Path, tmp_path: Path) -> None:
    """What the data or the number of processes refuse is found before the old run is deleted."""
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    before = {path.relative_to(run): path.stat().st_size for path in run.rglob("*")}
    for option, message in (("action.classes=7", "action.classes=7 but"), ("training.micro_batch=5", "is not a multiple of micro_batch=5")):
        outcome = run_cli("train", "digits", "--run-dir", run, "--restart", *sets([*TINY, option]))
        assert (outcome.code, message in outcome.err) == (2, True), outcome.err
    after = {path.relative_to(run): path.stat().st_size for path in run.rglob("*")}
    assert {name: size for name, size in after.items() if name.name != ".lock"} == {
        name: size for name, size in before.items() if name.name != ".lock"
    }
