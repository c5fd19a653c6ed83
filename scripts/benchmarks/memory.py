"""What does recomputing activations save, and what does it cost? A training step with and without it, and in two passes of half the batch.

`torch.utils.checkpoint` and plain autograd stand beside for comparison: the former keeps, for the second derivative, all that it did not
keep for the first. Times are medians over rounds in which all take turns. Memory is the most bytes that tensors made by the step held at
once. Takes half a minute on one core.
"""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import torch
from step import conditional
from timing import Work, counted, in_turn, new_parser, parse, print_conditions, print_table, script
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from amgen import config
from amgen.config import Config
from amgen.core.devices import device_of
from amgen.core.memory import peak_bytes
from amgen.model.build import build_action, build_loss, build_path
from amgen.paths import PathSample


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("--preset", type=str, default="cifar10-small", help="preset whose network is taken")
    parser.add_argument("--batch", type=int, default=16, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that the medians are taken over")
    parser.add_argument("--device", type=str, default="cpu", help="where to compute")
    options = parse(parser, arguments)
    works = all_works(config.load(options.preset), options.batch, device_of(options.device))
    for work in works.values():
        work()  # allocates the gradients
    times = in_turn(works, options.rounds)
    found = {name: (median(times[name]), peak_bytes(work) / 2**20) for name, work in works.items()}
    base_time, base_memory = next(iter(found.values()))
    print_table(
        ["step", "time, ms", "ratio", "memory, MB", "ratio"],
        [
            [name, f"{1e3 * time:.0f}", f"{time / base_time:.2f}", f"{memory:.1f}", f"{memory / base_memory:.2f}"]
            for name, (time, memory) in found.items()
        ],
    )
    print_conditions(
        options, f"{options.preset}, batch {options.batch}", f"medians of {counted(options.rounds, 'round')}", device=options.device
    )


def all_works(settings: Config, batch: int, device: torch.device) -> dict[str, Work]:
    """Return the steps to compare, by name; ratios are to the first."""
    action, path = build_action(settings).to(device), build_path(settings)
    loss = build_loss(settings, action, path)

    def sample(count: int) -> PathSample:
        noise, data = torch.randn(2, count, *settings.image_shape, device=device)
        t = torch.rand(count, device=device)
        return path.sample(t, noise, data, boundary=loss.needs_boundary, score=loss.needs_score)

    def step(passes: int, recompute: bool) -> None:
        action.body.checkpoint = recompute  # type: ignore[assignment]
        for _ in range(passes):
            loss(sample(batch // passes)).loss.mean().backward()

    def by_autograd(function: Callable[..., Tensor]) -> None:
        action.body.checkpoint = False  # type: ignore[assignment]
        conditional(function, sample(batch)).backward()

    return {
        "all activations kept": lambda: step(1, False),
        "activations recomputed": lambda: step(1, True),
        "two passes of half the batch": lambda: step(2, False),
        "plain autograd": lambda: by_autograd(action),
        "torch.utils.checkpoint": lambda: by_autograd(partial(checkpoint, action, use_reentrant=False)),
    }


if __name__ == "__main__":
    main()
