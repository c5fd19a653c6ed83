"""How fast would N processes train? A model of the time of a step from what one process measures and the bandwidth of the links.

    compute   t_c = FLOPs of a step on one process / throughput; measured here, or scaled to another device by --flops
    exchange  t_x = 2 (N - 1)/N * bytes of the gradient / bandwidth + 2 (N - 1) * latency      (ring all-reduce)
    step      max(t_c, t_c (1 - o) + t_x) with o = --overlap, the share of the computation that an exchange can hide behind: DDP sends
              gradients while the outer backward pass goes on. 0 adds the two up.

The batch of each process stays what it is (weak scaling). Bandwidth is that of the slowest link of the ring: between the GPUs of one node
up to --per-node processes, and between nodes beyond. --check launches two processes here, measures the links they have and the step they
take, and prints both beside the model's. Takes half a minute on one core, with --check two minutes on two.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from timing import counted, in_turn, new_parser, parse, print_conditions, print_table, script, seconds
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from amgen import config
from amgen.losses import ActionMatchingLoss
from amgen.model.build import build_action, build_loss, build_path
from amgen.paths import PathSample


@dataclass(frozen=True)
class Link:
    """A link between neighbours of the ring: bytes a second, each way, and seconds that a message takes at least."""

    bandwidth: float
    latency: float

    def all_reduce(self, processes: int, size: int) -> float:
        """Return the seconds that a ring all-reduce of `size` bytes takes."""
        return 2 * (processes - 1) / processes * size / self.bandwidth + 2 * (processes - 1) * self.latency


def step_time(compute: float, exchange: float, overlap: float) -> float:
    """Return the seconds of a step whose exchange hides behind a share `overlap` of the computation."""
    return max(compute, compute * (1 - overlap) + exchange)


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the model's table, or its check."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("--preset", type=str, default="cifar10", help="preset whose network and loss are taken")
    parser.add_argument("--batch", type=int, default=2, help="images of each process in the measured step")
    parser.add_argument("--share", type=int, default=16, help="images of each process in the model")
    parser.add_argument("--flops", type=float, help="sustained FLOP/s of the device to model; default: what is measured here")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64], help="numbers of processes")
    parser.add_argument("--per-node", type=int, default=8, help="processes on a node")
    parser.add_argument("--node-bandwidth", type=float, default=300e9, help="bytes/s between the processes of a node")
    parser.add_argument("--network-bandwidth", type=float, default=12.5e9, help="bytes/s between nodes")
    parser.add_argument("--latency", type=float, default=10e-6, help="seconds a message")
    parser.add_argument("--overlap", type=float, default=0.5, help="share of the computation that an exchange can hide behind")
    parser.add_argument("--check", action="store_true", help="compare with two processes on this machine")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parse(parser, arguments)
    if options.measure:
        measure_together(options.preset, options.batch, options.measure)
    elif options.check:
        check(options)
    else:
        predict(options)


def predict(options: argparse.Namespace) -> None:
    """Print step time, throughput and efficiency for each number of processes."""
    loss, sample = parts(options.preset, options.batch)
    per_image, size = step_flops(loss, sample) / options.batch, gradient_bytes(loss)
    speed = options.flops or per_image * options.batch / median_seconds(lambda: step(loss, sample), 3)
    compute = per_image * options.share / speed
    rows = []
    for count in options.processes:
        link = Link(options.node_bandwidth if count <= options.per_node else options.network_bandwidth, options.latency)
        exchange = link.all_reduce(count, size)
        total = step_time(compute, exchange, options.overlap)
        speed_of_all = count * options.share / total
        rows.append([count, f"{1e3 * exchange:.3f}", f"{1e3 * total:.3f}", f"{speed_of_all:,.0f}", f"{compute / total:.1%}"])
    print_table(["processes", "exchange, ms", "step, ms", "images/s", "efficiency"], rows)
    print_conditions(
        options,
        f"{options.preset}: {per_image / 1e9:.3g} GFLOP an image and step, {size / 1e6:.4g} MB of gradients",
        f"{options.share} images a process at {speed / 1e9:,.4g} GFLOP/s: {1e3 * compute:,.4g} ms",
        f"overlap {options.overlap}",
    )


def check(options: argparse.Namespace) -> None:
    """Measure two processes beside one another, and set the model against their step."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "measured.json"
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        arguments = [__file__, "--preset", options.preset, "--batch", str(options.batch), "--measure", str(file)]
        subprocess.run([*launcher, *arguments], check=True, env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")})
        found = json.loads(file.read_text())
    link, measured = Link(found["bandwidth"], found["latency"]), found["step"]
    predicted = {
        f"model, overlap {overlap}": step_time(found["compute"], link.all_reduce(2, found["bytes"]), overlap) for overlap in (0.0, 0.5)
    }
    times = {"both computing, nothing exchanged": found["compute"], **predicted, "measured": measured}
    print_table(
        ["step", "time, ms", "from what was measured"],
        [[name, f"{1e3 * time:.1f}", f"{time / measured - 1:+.1%}" if name in predicted else ""] for name, time in times.items()],
    )
    print_conditions(
        options,
        f"{options.preset}, {counted(options.batch, 'image')} on each of 2 processes",
        f"links {link.bandwidth / 1e6:,.0f} MB/s and {1e6 * link.latency:,.0f} us, gradients {found['bytes'] / 1e6:.3g} MB",
    )


def measure_together(preset: str, batch: int, file: Path) -> None:
    """In one of two processes: time all-reduces of two sizes, a step alone, and a step with its exchange."""
    torch.distributed.init_process_group("gloo")
    loss, sample = parts(preset, batch)
    size = gradient_bytes(loss)
    # A small message costs its latency; a gradient's size beyond that its bandwidth.
    small, large = (median_seconds(lambda n=n: torch.distributed.all_reduce(torch.ones(n)), 15) for n in (1, size // 4))  # type: ignore[misc]
    latency = small / 2
    bandwidth = size / max(large - small, 1e-9)
    wrapped = DistributedDataParallel(loss)

    def alone() -> None:
        with wrapped.no_sync():
            step(wrapped, sample)

    works = {"alone": alone, "together": lambda: step(wrapped, sample)}
    for work in works.values():
        work()
    compute, together = (median(times) for times in in_turn(works, 9).values())
    if torch.distributed.get_rank() == 0:
        found = {"bytes": size, "latency": latency, "bandwidth": bandwidth, "compute": compute, "step": together}
        file.write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def parts(preset: str, batch: int) -> tuple[ActionMatchingLoss, PathSample]:
    """Return the loss of a preset and a batch for it."""
    settings = config.load(preset, ["action.dropout=0"])
    path = build_path(settings)
    noise, data = torch.randn(2, batch, *settings.image_shape)
    return build_loss(settings, build_action(settings), path), path.sample(torch.rand(batch), noise, data, boundary=True, score=True)


def step(loss: torch.nn.Module, sample: PathSample) -> None:
    """Compute the gradient of the mean loss."""
    loss(sample).loss.mean().backward()


def step_flops(loss: ActionMatchingLoss, sample: PathSample) -> int:
    """Return the floating-point operations of a step's matrix products and convolutions, two for each multiplication."""
    with FlopCounter() as counter:
        step(loss, sample)
    return counter.total


class FlopCounter(TorchDispatchMode):
    """Adds up what PyTorch's formulas give for each operation. (Its own FlopCounterMode cannot look inside torch.func.)"""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.total += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


def gradient_bytes(loss: torch.nn.Module) -> int:
    """Return the size of the gradient."""
    return sum(parameter.numel() * parameter.element_size() for parameter in loss.parameters())


def median_seconds(work: Callable[[], object], rounds: int) -> float:
    """Return how long some work takes, median of `rounds` after one that warms up."""
    work()
    return median(seconds(work) for _ in range(rounds))


if __name__ == "__main__":
    main()
