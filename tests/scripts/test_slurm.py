"""The SLURM templates, with stand-ins for the launcher and the scheduler."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts" / "slurm"
LAUNCHER = """#!/bin/bash
trap 'echo saved > "$LOG/saved"; exit 1' TERM
echo $$ > "$LOG/pid"
echo "${SRUN_CPUS_PER_TASK:-none}" > "$LOG/cpus"
echo "$@" > "$LOG/started"
for _ in $(seq 200); do sleep 0.05; [ -e "$LOG/end" ] && exit "$(cat "$LOG/end")"; done
"""
STANDINS = {
    "torchrun": LAUNCHER,
    "srun": LAUNCHER,
    "scontrol": '#!/bin/bash\n[ "$1" = show ] && echo node1 || echo "$@" > "$LOG/requeued"\n',
    "scancel": '#!/bin/bash\n[ "$*" = "--signal=TERM 7.0" ] && kill -TERM "$(cat "$LOG/pid")"\n',
}
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    for folder in ("bin", "log"):
        (tmp_path / folder).mkdir()
    for name, text in STANDINS.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path / "log"


def start(script: str, log: Path) -> subprocess.Popen[str]:
    slurm = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_CPUS_PER_TASK": "16",
    }
    environment = {**os.environ, **slurm, "LOG": str(log), "PATH": f"{log.parent / 'bin'}:{os.environ['PATH']}"}
    command = ["bash", str(SCRIPTS / script), "cifar10", "--run-dir", "R"]
    process = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(log / "started", process)
    return process


def until(file: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while not file.exists() or not file.read_text():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("script", ["one-node.sbatch", "several-nodes.sbatch"])
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_warning_saves_and_requeues(script: str, number: signal.Signals, log: Path) -> None:
    process = start(script, log)
    arguments = (log / "started").read_text()
    assert "--nproc-per-node 4" in arguments
    assert arguments.endswith("-m amgen train cifar10 --run-dir R\n")
    assert (log / "cpus").read_text().strip() == ("16" if script.startswith("several") else "none")
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert (log / "saved").exists()
    assert (log / "requeued").read_text() == "requeue 7\n"
    assert "back to the queue" in output


@pytest.mark.parametrize("script", ["one-node.sbatch", "several-nodes.sbatch"])
@pytest.mark.parametrize("code", [0, 2])
def test_a_run_that_ends_by_itself_is_not_requeued(script: str, code: int, log: Path) -> None:
    process = start(script, log)
    (log / "end").write_text(str(code))
    process.communicate(timeout=60)
    assert process.returncode == code
    assert not (log / "requeued").exists()
