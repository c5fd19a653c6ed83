"""What does optimal transport cost? The time of one assignment beside that of a training step of the cifar10-small network."""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch

from amgen import config
from amgen.model.build import build_action, build_loss, build_path
from amgen.paths import OptimalTransportCoupling


def main() -> None:
    """Print times and their ratio, medians of interleaved rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    settings = config.load("cifar10-small")
    action, path = build_action(settings), build_path(settings)
    loss = build_loss(settings, action, path)
    optimizer = torch.optim.Adam(action.parameters(), fused=True)
    noise, data = torch.randn(2, options.batch, 3, 32, 32)
    t = torch.rand(options.batch)

    def step() -> None:
        optimizer.zero_grad()
        loss(path.sample(t, noise, data)).loss.mean().backward()
        optimizer.step()

    def assign() -> None:
        OptimalTransportCoupling(options.batch).assign(noise, data)

    times = [(seconds(assign), seconds(step)) for _ in range(options.rounds)]
    assignment, training = (median(column) for column in zip(*times, strict=True))
    print(
        f"batch {options.batch} of 32x32x3, {torch.get_num_threads()} threads, medians of {options.rounds} rounds: assignment "
        f"{1e3 * assignment:.1f} ms, training step {1e3 * training:.0f} ms, ratio {assignment / training:.2%}"
    )


def seconds(work: Callable[[], None]) -> float:
    """Return how long some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
