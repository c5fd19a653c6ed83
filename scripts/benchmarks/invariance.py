"""Does a run depend on how its batches are divided among processes? The largest differences from one process, for every kind of training.

One process with the whole batch is compared with two that share it and with two that also accumulate over two passes, in single and in
double precision: the loss curve (largest relative difference of a line of metrics.jsonl) and the weights, averages included (largest
difference of a tensor, relative to its distance from its initial value, or to its size where it did not move).

Double precision tells a different computation (a wrong mask, pair, time or weight) from rounding, which Adam enlarges: a gradient that is
nothing but rounding still moves its weight by the learning rate. Exit code 1 if double precision differs by more than 1e-10, or single
precision by more than --single. Takes 10 minutes on two cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file
from timing import counted, new_parser, parse, print_conditions, print_table, progress, script
from torch import Tensor

from amgen import config
from amgen.config import Config
from amgen.model import checkpoints
from amgen.model.build import build_action
from amgen.training.main import train

SMALL = [
    *("action.width=8", "action.multipliers=[1,2]", "action.blocks=1", "action.attention=[4]", "action.dropout=0.2", "data.flip=true"),
    *("training.batch_size=64", "training.log_every=64", "training.sample_every=0", "training.checkpoint_every=1000000"),
    *("training.ema=[0.9]", "training.warmup_images=0", "training.decay=0", "training.device=cpu", "coupling.kind=independent"),
]
SHARES = "data.masses.end=[10,9,8,7,6,5,4,3,2,1]"
ENTROPIC = ["dynamics.kind=entropic", "sampling.solver=euler-maruyama"]
MARGINAL = "loss.form=marginal"
TRAININGS = {
    "balanced": [],
    "balanced, marginal": [MARGINAL, "loss.boundaries=independent", "loss.weight=1-t"],
    "entropic": [*ENTROPIC, "path.kind=vp"],
    "entropic, marginal": [*ENTROPIC, MARGINAL, "loss.probes=2"],
    "unbalanced": ["dynamics.kind=unbalanced", SHARES],
    "unbalanced, marginal": ["dynamics.kind=unbalanced", SHARES, MARGINAL, "loss.boundaries=independent"],
    "convex": ["dynamics.kind=convex", "dynamics.power=1.5"],
    "convex, marginal": ["dynamics.kind=convex", "dynamics.power=3", MARGINAL],
    "optimal transport": ["coupling.kind=ot", "coupling.group=48"],
    "transport in classes": ["coupling.kind=ot", "coupling.group=128", "action.classes=10", "action.label_dropout=0.3"],
    "uniform times": ["times.kind=uniform", "path.kind=trigonometric"],
    "adaptive times": ["times.kind=adaptive", "times.bins=4"],
    "torus": ["path.kind=torus", "action.head=square"],
    "in-painting": ["path.kind=in-painting", "path.region=box", "action.head=pooled"],
}
DIVISIONS = {"2 x 32": [], "2 x 16 x 2": ["training.micro_batch=16"]}
WHOLE = "1 x 64"
PRECISIONS = ("fp32", "fp64")
COLUMNS = [(precision, division, what) for precision in PRECISIONS for division in DIVISIONS for what in ("loss", "weights")]
DOUBLE = 1e-10
"""Tolerance of double precision."""


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Train, print the table, and exit with code 1 if anything differs by more than rounding."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("--steps", type=int, default=8, help="optimisation steps of each run")
    parser.add_argument("--only", type=str, default="", help="trainings whose name contains this; default: all")
    parser.add_argument("--single", type=float, default=2e-2, help="tolerance of single precision")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parse(parser, arguments)
    names = [name for name in TRAININGS if options.only in name]
    if not names:
        parser.error(f"--only {options.only}: no training has such a name: choose among {', '.join(TRAININGS)}")
    if options.folder:  # one of the two processes
        return run_all(names, options.steps, options.folder, DIVISIONS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        shared = [__file__, "--steps", str(options.steps), "--only", options.only, "--folder", temporary]
        subprocess.run([*launcher, *shared], check=True, env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")})
        run_all(names, options.steps, folder, {WHOLE: []})
        rows = {name: differences(name, options.steps, folder) for name in names}
    print_table(
        ["training", *(f"{division}, {precision}: {what}" for precision, division, what in COLUMNS)],
        [[name, *(f"{value:.1e}" for value in row)] for name, row in rows.items()],
        "Largest relative differences from one process:",
    )
    worst = {precision: largest(rows.values(), precision) for precision in PRECISIONS}
    print_conditions(
        options,
        f"digits, batch 64, {counted(options.steps, 'step')} of Adam, dropout 0.2",
        f"at most {worst['fp32']:.1e} in single precision (tolerance {options.single:.0e}), {worst['fp64']:.1e} in double "
        f"(tolerance {DOUBLE:.0e})",
    )
    if worst["fp32"] > options.single or worst["fp64"] > DOUBLE:
        sys.exit(1)


def settings(name: str, precision: str, steps: int, division: list[str]) -> Config:
    """Return the options of one run."""
    return config.load("digits", [*SMALL, *TRAININGS[name], f"training.precision={precision}", f"training.images={64 * steps}", *division])


def run_all(names: list[str], steps: int, folder: Path, divisions: dict[str, list[str]]) -> None:
    """Train everything in this process, and in those beside it."""
    with open(os.devnull, "w") as nowhere:
        for name in names:
            progress(f"training {name}: {', '.join(divisions)}")
            for precision in PRECISIONS:
                for division, overrides in divisions.items():
                    train(settings(name, precision, steps, overrides), folder / name / precision / division, console=Console(file=nowhere))


def differences(name: str, steps: int, folder: Path) -> list[float]:
    """Return the differences of a training under COLUMNS."""
    row = []
    for precision in PRECISIONS:
        initial = build_action(settings(name, precision, steps, [])).state_dict()
        whole = folder / name / precision / WHOLE
        for division in DIVISIONS:
            other = folder / name / precision / division
            row += [curve_difference(whole, other), weight_difference(whole, other, initial)]
    return row


def largest(rows: Iterable[Sequence[float]], precision: str) -> float:
    """Return the largest of all differences in one precision."""
    return max(value for row in rows for value, (found, _, _) in zip(row, COLUMNS, strict=True) if found == precision)


def curve_difference(one: Path, other: Path) -> float:
    """Return the largest relative difference of the losses and gradient norms of two runs."""
    curves = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, other)]
    assert len(curves[0]) == len(curves[1]) > 0
    pairs = [(a[key], b[key]) for a, b in zip(*curves, strict=True) for key in ("loss", "gradient_norm")]
    return max(abs(a - b) / max(abs(a), 1e-3) for a, b in pairs)


def weight_difference(one: Path, other: Path, initial: dict[str, Tensor]) -> float:
    """Return the largest difference of a tensor of weights or averages, relative to its distance from its initial value or to its size."""
    worst = 0.0
    folders = [checkpoints.find(run) for run in (one, other)]
    for file in ("action", "ema-0.9"):
        a, b = (load_file(folder / f"{file}.safetensors") for folder in folders)
        for name, tensor in a.items():
            moved = torch.linalg.vector_norm(tensor.double() - initial[name].double())
            scale = moved if moved > 0 else torch.linalg.vector_norm(tensor.double()).clamp_min(1e-30)
            worst = max(worst, float(torch.linalg.vector_norm(b[name].double() - tensor.double()) / scale))
    return worst


if __name__ == "__main__":
    main()
