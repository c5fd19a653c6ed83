"""What does a velocity cost? One gradient of the action beside a plain forward pass without gradients, in time and in peak memory; and how
many velocities a second come out of batches of several sizes, the one that `sampling.batch_size=auto` chooses (*) among them.

Times are medians of interleaved rounds in one process. Memory is the most that tensors made on the way held at once. A gradient has to
keep the activations that a plain forward pass drops.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import torch

from amgen import config
from amgen.core.batching import MOST, fitting
from amgen.core.memory import peak_bytes
from amgen.dynamics import Dynamics
from amgen.model.build import build_action


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(f"{options.device}, {torch.get_num_threads()} threads, medians of {options.rounds} rounds")
    print(f"{'preset':14} {'batch':>5} {'forward':>10} {'velocity':>10} {'ratio':>6} {'memory: forward':>16} {'velocity':>9} {'ratio':>6}")
    for preset, batch in (("digits", 100), ("cifar10-small", 16), ("cifar10", 2)):
        settings = config.load(preset)
        action = build_action(settings).to(options.device).requires_grad_(False).eval()
        dynamics = Dynamics(action)
        x, t = torch.randn(batch, *settings.image_shape, device=options.device), torch.rand(batch, device=options.device)

        def forward() -> None:
            with torch.no_grad():
                action(t, x)  # noqa: B023 (called before the next round)

        def velocity() -> None:
            found = dynamics.velocity(t, x)  # noqa: B023
            assert found.grad_fn is None

        forward(), velocity()
        times = [(seconds(forward), seconds(velocity)) for _ in range(options.rounds)]
        plain, gradient = (median(column) for column in zip(*times, strict=True))
        memory = [peak_bytes(work) / 2**20 for work in (forward, velocity)]
        print(
            f"{preset:14} {batch:5} {1e3 * plain:7.1f} ms {1e3 * gradient:7.1f} ms {gradient / plain:6.2f} "
            f"{memory[0]:12.1f} MB {memory[1]:6.1f} MB {memory[1] / memory[0]:6.2f}"
        )
    print("velocities a second by batch size; * is auto's")
    for preset in ("digits", "cifar10-small", "cifar10"):
        print(f"{preset:14} {throughput(preset, options.device, options.rounds)}")


def throughput(preset: str, device: str, rounds: int) -> str:
    """Return `batch size: velocities a second` for sizes up to twice the one that memory and speed suggest, which is starred."""
    settings = config.load(preset)
    dynamics = Dynamics(build_action(settings).to(device).requires_grad_(False).eval())

    def velocity(samples: Sequence[int]) -> None:
        dynamics.velocity(0.5, torch.zeros(len(samples), *settings.image_shape, device=device))

    chosen = fitting(velocity, range(MOST), torch.device(device))
    sizes = sorted({4**power for power in range(7) if 4**power < chosen} | {chosen, 2 * chosen})
    velocity(range(chosen))
    times = [[seconds(partial(velocity, range(size))) for size in sizes] for _ in range(rounds)]
    rates = [size / median(column) for size, column in zip(sizes, zip(*times, strict=True), strict=True)]
    return "  ".join(f"{size}{'*' * (size == chosen)}: {rate:.3g}" for size, rate in zip(sizes, rates, strict=True))


def seconds(work: Callable[[], None]) -> float:
    """Return how long some work takes."""
    start = time.perf_counter()
    work()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
