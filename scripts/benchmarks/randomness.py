"""What do counter-based random streams cost? The noise of a batch, beside a PyTorch generator that is seeded anew for each image.

Times are medians over rounds in which both take turns; the ratio is the median of the ratios within a round (below 1: the streams are
faster). Takes some seconds on one core.
"""

from collections.abc import Sequence
from functools import partial
from statistics import median

import torch
from timing import counted, new_parser, parse, print_conditions, print_table, script, seconds
from torch import Tensor

from amgen.core.randomness import Purpose, derive_seed, gaussian

SHAPES = ((1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64))


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a row for each shape."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("--batch", type=int, default=64, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=51, help="rounds that the medians are taken over")
    options = parse(parser, arguments)
    rows = [[f"{shape[0]}x{shape[1]}x{shape[2]}", *measure(shape, options.batch, options.rounds)] for shape in SHAPES]
    print_table(["shape", "streams, ms", "generators, ms", "ratio"], rows)
    print_conditions(options, f"batch {options.batch}", f"medians of {counted(options.rounds, 'round')}")


def measure(shape: tuple[int, ...], batch: int, rounds: int) -> list[str]:
    """Return the cells of one shape; every round takes other images."""
    times = []
    for number in range(rounds):
        indices = range(batch * number, batch * (number + 1))
        times.append([seconds(partial(generate, 0, Purpose.NOISE, indices, shape)) for generate in (gaussian, seeded_anew)])
    streams, generators = (1e3 * median(column) for column in zip(*times, strict=True))
    ratio = median(first / second for first, second in times)
    return [f"{streams:.2f}", f"{generators:.2f}", f"{ratio:.2f}"]


def seeded_anew(seed: int, purpose: Purpose, indices: range, shape: tuple[int, ...]) -> Tensor:
    """Return normal numbers of a generator that is seeded for each image with a hash; it keeps 32 bits of it."""
    noise, rng = torch.empty(len(indices), *shape), torch.Generator()
    for row, index in zip(noise, indices, strict=True):
        rng.manual_seed(derive_seed(seed, purpose, index))
        row.normal_(generator=rng)
    return noise


if __name__ == "__main__":
    main()
