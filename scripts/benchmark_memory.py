"""What does computing activations anew save, and cost? A training step with and without it, and in two passes of half the batch.

Times are medians of interleaved rounds; memory is the most that tensors made on the way held at once. Plain autograd and
`torch.utils.checkpoint` stand beside for comparison: the latter keeps, for the second derivative, all that it did not keep for the first.
"""

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from benchmark_sampling import seconds
from benchmark_step import conditional
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from amgen import config
from amgen.core.memory import peak_bytes
from amgen.model.build import build_action, build_loss, build_path
from amgen.paths import PathSample


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="cifar10-small")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    settings = config.load(options.preset)
    action, path = build_action(settings).to(options.device), build_path(settings)
    loss = build_loss(settings, action, path)

    def draw(count: int) -> PathSample:
        noise, data = torch.randn(2, count, *settings.image_shape, device=options.device)
        return path.sample(torch.rand(count, device=options.device), noise, data, boundary=True, score=True)

    def step(passes: int, anew: bool) -> None:
        action.body.checkpoint = anew  # type: ignore[assignment]
        for _ in range(passes):
            loss(draw(options.batch // passes)).loss.mean().backward()

    def by_autograd(function: Callable[..., Tensor]) -> None:
        action.body.checkpoint = False  # type: ignore[assignment]
        conditional(function, draw(options.batch)).backward()

    ways: dict[str, Callable[[], None]] = {
        "all activations kept": lambda: step(1, False),
        "activations computed anew": lambda: step(1, True),
        "two passes of half the batch": lambda: step(2, False),
        "plain autograd": lambda: by_autograd(action),
        "torch.utils.checkpoint": lambda: by_autograd(partial(checkpoint, action, use_reentrant=False)),
    }
    for work in ways.values():
        work()  # allocates the gradients
    times = {name: [] for name in ways}  # type: dict[str, list[float]]
    for _ in range(options.rounds):
        for name, work in ways.items():
            times[name].append(seconds(work))
    base = None
    print(
        f"{options.preset}, batch {options.batch}, {options.device}, {torch.get_num_threads()} threads, medians of {options.rounds} rounds"
    )
    for name, work in ways.items():
        found = median(times[name]), peak_bytes(work) / 2**20
        base = base or found
        print(f"{name:30} {1e3 * found[0]:8.0f} ms ({found[0] / base[0]:.2f})  {found[1]:8.1f} MB ({found[1] / base[1]:.2f})")


if __name__ == "__main__":
    main()
