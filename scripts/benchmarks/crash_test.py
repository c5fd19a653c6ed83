"""Does a run survive being killed? Kill it again and again, resume it each time, and compare it with an undisturbed run, bit for bit.

Kills are SIGKILL, at random moments of the run; every second one waits until a checkpoint is being written. Compared are every tensor of
the last checkpoint (weights, averages, optimiser), the rest of its state, and metrics.jsonl byte for byte. Exit code 1 if anything differs.
Takes 5 minutes on one core.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from timing import new_parser, parse, print_conditions, print_table, progress, script

from amgen.model import checkpoints

OPTIONS = [
    *("action.width=8", "action.multipliers=[1,2]", "action.blocks=1", "action.dropout=0.1", "data.flip=true"),
    *("training.batch_size=16", "training.checkpoint_every=128", "training.log_every=48", "training.sample_every=0"),
    *("training.ema=[0.99,0.9]", "training.decay=0.5", "times.kind=adaptive", "times.bins=4", "coupling.group=24"),
]
"""Checkpoints and lines of metrics do not fall on the same steps, so that resuming has to keep what lies between."""


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Train both, print the outcome, and exit with code 1 unless nothing differs."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("--kills", type=int, default=20, help="how often to kill the run")
    parser.add_argument("--images", type=int, help="length of the run, images; default: 960 for each kill, and 960")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    options = parse(parser, arguments)
    images = options.images or 960 * (options.kills + 1)
    with tempfile.TemporaryDirectory() as temporary:
        calm, killed = Path(temporary) / "calm", Path(temporary) / "killed"
        finish(start(calm, images))
        while_writing = disturb(killed, images, options.kills, random.Random(options.seed))
        finish(start(killed, images))
        tensors, lines = differing_tensors(calm, killed), differing_lines(calm, killed)
        total = len((calm / "metrics.jsonl").read_text().splitlines())
        same_state = state_of(calm) == state_of(killed)
    print_table(
        ["kills", "while a checkpoint was being written", "differing tensors", "lost or repeated lines of metrics", "state"],
        [[options.kills, while_writing, tensors, f"{lines} of {total}", "equal" if same_state else "different"]],
    )
    print_conditions(options, f"digits, {images:,} images", f"seed {options.seed}")
    if tensors or lines or not same_state:
        sys.exit(1)


def start(run: Path, images: int) -> subprocess.Popen[str]:
    """Start the run, or go on with it."""
    overrides = [part for option in [*OPTIONS, f"training.images={images}"] for part in ("--set", option)]
    command = [sys.executable, "-m", "amgen", "train", "digits", "--run-dir", str(run), *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a run, which must succeed."""
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"the run ended with code {process.returncode}: {errors}")


def disturb(run: Path, images: int, kills: int, chance: random.Random) -> int:
    """Kill the run `kills` times and return how often a checkpoint was half written."""
    moments = sorted(chance.randrange(images * 19 // 20) for _ in range(kills))
    halfway = 0
    for number, moment in enumerate(moments):
        process = start(run, images)
        while images_seen(run) < moment and process.poll() is None:
            time.sleep(0.002)
        waited = time.perf_counter()
        while number % 2 and not list(checkpoints.folder_of(run).glob(".step-*.tmp")) and time.perf_counter() < waited + 20:
            time.sleep(0.0002)
        time.sleep(chance.uniform(0, 0.02 if number % 2 else 0.5))
        if process.poll() is not None:
            sys.exit(f"the run ended before kill {number + 1}, with code {process.returncode}: {process.communicate()[1]}")
        process.kill()
        process.communicate()
        found = list(checkpoints.folder_of(run).glob(".step-*.tmp")) if run.exists() else []
        halfway += bool(found)
        progress(f"kill {number + 1}: after {images_seen(run):,} images{', a checkpoint half written' if found else ''}")
    return halfway


def images_seen(run: Path) -> int:
    """Return the last number of images in metrics.jsonl."""
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines()
        return int(json.loads(lines[-1])["images"]) if lines else 0
    except (OSError, ValueError):
        return 0


def differing_tensors(one: Path, other: Path) -> int:
    """Count the tensors of the last checkpoints that are not equal bit for bit."""
    folders = [checkpoints.find(run) for run in (one, other)]
    checkpoints.verify(folders[1])
    names = {file.name for folder in folders for file in folder.glob("*.safetensors")}
    count = 0
    for name in names:
        first, second = (load_file(folder / name) for folder in folders)
        keys = first.keys() | second.keys()
        count += sum(key not in first or key not in second or not torch.equal(first[key], second[key]) for key in keys)
    return count


def differing_lines(one: Path, other: Path) -> int:
    """Count the lines of metrics.jsonl that the other run has not at the same place."""
    first, second = ((run / "metrics.jsonl").read_text().splitlines() for run in (one, other))
    return abs(len(first) - len(second)) + sum(a != b for a, b in zip(first, second, strict=False))


def state_of(run: Path) -> str:
    """Return what the last checkpoint holds beside tensors."""
    return (checkpoints.find(run) / "state.json").read_text()


if __name__ == "__main__":
    main()
