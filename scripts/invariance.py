"""Does a run depend on how its batches are divided? The largest differences between one process and others, every kind of training.

One process with the whole batch is compared with two that share it and with two that also accumulate over two passes, in single and in
double precision: the loss curve (largest relative difference of a line of metrics.jsonl) and the weights, averages included (largest
difference of a tensor in units of the way it went from its initial value, or of its size where it did not move).

Double precision tells a different computation (a wrong mask, pair, time or weight) from rounding, which Adam enlarges: a gradient that is
nothing but rounding still moves its weight by the learning rate. The script fails if double precision differs by more than 1e-10, or single
precision by more than --single.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file
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
KINDS = {
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
PRECISIONS = ("fp32", "fp64")


def main() -> int:
    """Print the table and return 1 if anything differs by more than rounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="optimisation steps of each run")
    parser.add_argument("--only", default="", help="set-ups whose name contains this")
    parser.add_argument("--single", type=float, default=2e-2, help="tolerance of single precision")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = [name for name in KINDS if options.only in name]
    if options.folder:  # one of the two processes
        run_all(names, options.steps, options.folder, DIVISIONS)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        arguments = [__file__, "--steps", str(options.steps), "--only", options.only, "--folder", temporary]
        subprocess.run([*launcher, *arguments], check=True, env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")})
        run_all(names, options.steps, folder, {"1 x 64": []})
        return report(names, options.steps, folder, options.single)


def settings(name: str, precision: str, steps: int, division: list[str]) -> Config:
    """Return the options of one run."""
    return config.load("digits", [*SMALL, *KINDS[name], f"training.precision={precision}", f"training.images={64 * steps}", *division])


def run_all(names: list[str], steps: int, folder: Path, divisions: dict[str, list[str]]) -> None:
    """Train every set-up in this process, and in those beside it."""
    with open(os.devnull, "w") as nowhere:
        for name in names:
            for precision in PRECISIONS:
                for division, overrides in divisions.items():
                    train(settings(name, precision, steps, overrides), folder / name / precision / division, console=Console(file=nowhere))


def report(names: list[str], steps: int, folder: Path, single: float) -> int:
    """Print the largest differences."""
    print(f"digits, batch 64, {steps} steps of Adam, dropout 0.2: largest relative differences from one process")
    print(f"{'':24}" + "".join(f"{f'{division}, {precision}':>24}" for precision in PRECISIONS for division in DIVISIONS))
    print(f"{'':24}" + f"{'loss':>12}{'weights':>12}" * 4)
    worst = dict.fromkeys(PRECISIONS, 0.0)
    for name in names:
        row = []
        for precision in PRECISIONS:
            initial = build_action(settings(name, precision, steps, [])).state_dict()
            whole = folder / name / precision / "1 x 64"
            for division in DIVISIONS:
                other = folder / name / precision / division
                row += [curve_difference(whole, other), weight_difference(whole, other, initial)]
                worst[precision] = max(worst[precision], *row[-2:])
        print(f"{name:24}" + "".join(f"{value:12.1e}" for value in row), flush=True)
    print(f"at most {worst['fp32']:.1e} in single precision (tolerance {single:.0e}), {worst['fp64']:.1e} in double (tolerance 1e-10)")
    return int(worst["fp32"] > single or worst["fp64"] > 1e-10)


def curve_difference(one: Path, other: Path) -> float:
    """Return the largest relative difference of the losses and gradient norms of two runs."""
    curves = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, other)]
    assert len(curves[0]) == len(curves[1]) > 0
    pairs = [(a[key], b[key]) for a, b in zip(*curves, strict=True) for key in ("loss", "gradient_norm")]
    return max(abs(a - b) / max(abs(a), 1e-3) for a, b in pairs)


def weight_difference(one: Path, other: Path, initial: dict[str, Tensor]) -> float:
    """Return the largest difference of a tensor of weights or averages, relative to the way that it went or to its size."""
    worst = 0.0
    folders = [checkpoints.find(run) for run in (one, other)]
    for file in ("action", "ema-0.9"):
        a, b = (load_file(folder / f"{file}.safetensors") for folder in folders)
        for name, tensor in a.items():
            way = torch.linalg.vector_norm(tensor.double() - initial[name].double())
            scale = way if way > 0 else torch.linalg.vector_norm(tensor.double()).clamp_min(1e-30)
            worst = max(worst, float(torch.linalg.vector_norm(b[name].double() - tensor.double()) / scale))
    return worst


if __name__ == "__main__":
    sys.exit(main())
