"""How the times of a training batch are drawn."""

import torch
from torch import Tensor

from amgen.randomness import Purpose, uniform


def stratified_times(seed: int, step: int, positions: range, batch_size: int) -> Tensor:
    """Draw the times of some members of a global batch, one from each of `batch_size` equal strata of [0, 1).

    All strata share one uniform offset, drawn from (seed, step): t_i = (i + offset) / batch_size. Each time is uniform on
    [0, 1), so p(t) = 1, while the batch as a whole covers the interval evenly, which lowers the variance of the loss.

    Args:
        seed: seed of the run.
        step: number of the optimisation step.
        positions: places in the global batch to draw for.
        batch_size: size of the global batch.

    Returns:
        Times, shape (len(positions),), float64.
    """
    offset = uniform(seed, Purpose.TIME, [step])
    return (torch.arange(positions.start, positions.stop, dtype=torch.float64) + offset) / batch_size
