"""Time the noise of a batch, drawn from counter-based streams, against a PyTorch generator seeded anew for each image.

    OMP_NUM_THREADS=1 python scripts/benchmark_randomness.py

Prints medians over interleaved rounds, and the median of their ratios within a round (below 1: the streams are faster).
"""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from amgen.core.randomness import Purpose, derive_seed, gaussian

ROUNDS = 51
BATCH = 64
SHAPES = ((1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64))


def seeded_anew(seed: int, purpose: Purpose, indices: range, shape: tuple[int, ...]) -> Tensor:
    """Draw as many normal numbers by a generator that is seeded with a hash for each image, of which it keeps 32 bits."""
    noise, rng = torch.empty(len(indices), *shape), torch.Generator()
    for row, index in zip(noise, indices, strict=True):
        rng.manual_seed(derive_seed(seed, purpose, index))
        row.normal_(generator=rng)
    return noise


def seconds(draw: Callable[..., Tensor], shape: tuple[int, ...], first: int) -> float:
    """Return the time of one batch."""
    start = time.perf_counter()
    draw(0, Purpose.NOISE, range(first, first + BATCH), shape)
    return time.perf_counter() - start


def main() -> None:
    """Print a line for each shape."""
    print(
        f"{'shape':>12}  {'streams':>9}  {'generators':>10}  ratio   (batch {BATCH}, {torch.get_num_threads()} thread(s), {ROUNDS} rounds)"
    )
    for shape in SHAPES:
        rounds = [(seconds(gaussian, shape, BATCH * number), seconds(seeded_anew, shape, BATCH * number)) for number in range(ROUNDS)]
        streams, generators = (1e3 * median(column) for column in zip(*rounds, strict=True))
        ratio = median(first / second for first, second in rounds)
        print(f"{'x'.join(map(str, shape)):>12}  {streams:6.2f} ms  {generators:7.2f} ms  {ratio:5.2f}")


if __name__ == "__main__":
    main()
