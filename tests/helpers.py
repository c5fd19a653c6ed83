"""What several test modules share (found through pytest's `pythonpath`)."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from amgen.actions import MLP, Action, DotAction
from amgen.config import Config
from amgen.model import checkpoints
from amgen.model.build import build_action

TINY = [
    "action.width=8",
    "action.blocks=1",
    "action.attention=[4]",
    "training.images=96",
    "training.batch_size=16",
    "training.log_every=32",
    "training.warmup_images=64",
    "training.decay=0",
    "training.learning_rate=1e-3",
    "training.ema=[0.998,0.99]",
    "coupling.kind=independent",
    "sampling.steps=2",
    "sampling.grid=4",
]
"""Overrides of the digits preset: 6 steps of 16 images on a network of a few thousand parameters."""


@dataclass
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


def run_cli(*arguments: str | Path) -> Outcome:
    """Run the amgen command in this process."""
    from amgen_cli.app import run

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run([str(argument) for argument in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


def sets(overrides: list[str]) -> list[str]:
    """Turn overrides into --set arguments."""
    return [part for override in overrides for part in ("--set", override)]


def amgen_process(*arguments: str | Path, processes: int = 1) -> subprocess.Popen[str]:
    """Start amgen in a process of its own, or under torchrun in several; one thread each."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    return start_process([sys.executable, *launcher, "-m", "amgen", *map(str, arguments)])


def start_process(command: list[str]) -> subprocess.Popen[str]:
    """Start a command with one thread for each of its processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def newest_tensors(run: Path) -> dict[str, Tensor]:
    """Return every tensor of a run's newest checkpoint, `file/name` to value."""
    folder = checkpoints.latest(run)
    assert folder is not None
    return {f"{file.name}/{key}": value for file in sorted(folder.glob("*.safetensors")) for key, value in load_file(file).items()}


def assert_same_tensors(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """Assert equality bit for bit."""
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def assert_learned_the_same(found: dict[str, Tensor], expected: dict[str, Tensor], options: Config) -> None:
    """Assert that two runs changed every tensor of weights alike: they differ by at most 2% of the change from the initial weights.

    Another division of the batch rounds differently, and Adam divides by the size of a gradient, so that a weight whose gradient is
    nothing but rounding may change in either direction. With another sample, or one counted twice, the whole change would be another.
    """
    initial = build_action(options).state_dict()
    for name, tensor in expected.items():
        file, key = name.split("/")
        if file not in ("optimizer.safetensors", "neighbourhood.safetensors"):
            change = (tensor - initial[key]).norm()
            assert (found[name] - tensor).norm() <= 0.02 * change + 1e-6, name


def small_action(dimension: int, dtype: torch.dtype, device: torch.device | str = "cpu", width: int = 16) -> Action:
    """Return an action of vectors with random weights, smooth enough for quadrature."""
    return DotAction(MLP(dimension, width, depth=2, time_frequency=3.0)).to(device, dtype)


def markdown_tables(text: str) -> list[list[list[str]]]:
    """Return the tables in a text, each as rows of cells, the headings first."""
    tables: list[list[list[str]]] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("| "):
            if not inside:
                tables.append([])
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not all(set(cell) <= set("-:") and cell for cell in cells):
                tables[-1].append(cells)
        inside = line.startswith("| ")
    return tables


def unchanged(batch: object) -> object:
    """Collate what is a batch already; here, where the workers of a spawned loader can import it."""
    return batch
