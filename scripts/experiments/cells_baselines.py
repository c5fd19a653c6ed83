"""Baselines of `cells.py`: what is known without training, and a vector field by OT-CFM.

- The displacement interpolation of the exact optimal transport between the neighbouring times, which needs no training.
- OT-CFM (arXiv 2302.00482) where torchcfm is installed: a vector field of the same size, trained on the same number of samples with
  the same learning rates, and integrated by the same solver.
"""

import numpy as np
import torch
from torch import Tensor, nn

from amgen.actions import MLP
from amgen.config import Config
from amgen.core.randomness import Purpose, derive_seed
from amgen.data import SnapshotDataset, Snapshots, open_dataset
from amgen.solvers import FIXED_STEP, StepGrid

Cloud = tuple[np.ndarray, np.ndarray | None]
"""Points (N, D) and their weights (N,), None for equal ones."""


def displacement(cells: Snapshots, place: int) -> Cloud:
    """Return the displacement interpolation between the neighbours of the time at `place`."""
    import ot

    first, last = cells.points[place - 1], cells.points[place + 1]
    plan = ot.emd(np.full(len(first), 1 / len(first)), np.full(len(last), 1 / len(last)), ot.dist(first, last), numItermax=10_000_000)
    i, j = plan.nonzero()
    share = (cells.times[place] - cells.times[place - 1]) / (cells.times[place + 1] - cells.times[place - 1])
    return (1 - share) * first[i] + share * last[j], plan[i, j]


def flow_matching(settings: Config, cells: np.ndarray, place: int, seed: int) -> np.ndarray:
    """Train a vector field by OT-CFM, and integrate the cells of the time before to the held-out time.

    Args:
        settings: options of the run, with a held-out time.
        cells: the cells of the time before it, (N, D), in the table's units.
        place: which of all times it is.
        seed: seed of the weights and of the training.

    Returns:
        The cells at the held-out time, (N, D), in the table's units.
    """
    dataset = open_dataset(settings.data)
    assert isinstance(dataset, SnapshotDataset)
    torch.manual_seed(derive_seed(seed, Purpose.INITIAL_WEIGHTS, 0))
    np.random.seed(seed)  # noqa: NPY002 (POT's sampling of the plan in torchcfm)
    field = train_field(settings, dataset)
    times = dataset.whole.times
    first, span = dataset.source.times[0], dataset.source.times[-1] - dataset.source.times[0]
    start, length = (times[place - 1] - first) / span, (times[place] - times[place - 1]) / span
    solver = FIXED_STEP[settings.sampling.solver](StepGrid(settings.sampling.steps))

    def velocity(s: float, x: Tensor) -> Tensor:
        return length * field(torch.full((len(x),), start + length * s), x)

    with torch.no_grad():
        end = solver.solve(velocity, dataset.units.transform(torch.as_tensor(cells)))
    return dataset.units.inverse_transform(end).double().numpy()


def train_field(settings: Config, dataset: SnapshotDataset) -> nn.Module:
    """Train a vector field between all successive times of a data set, time running from 0 to 1 over all of them."""
    from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher

    options, training = settings.action, settings.training
    assert options.kind == "mlp"
    field = MLP(settings.shape[0], options.width, options.depth, options.time_frequency, options.time_features)
    matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=0.1)
    points = [dataset.units.transform(torch.as_tensor(part)) for part in dataset.source.points]
    first, span = dataset.source.times[0], dataset.source.times[-1] - dataset.source.times[0]
    times = [(time - first) / span for time in dataset.source.times]
    intervals = len(times) - 1
    steps, part = training.images // training.batch_size, training.batch_size // intervals
    optimizer = torch.optim.Adam(field.parameters(), lr=training.learning_rate)
    for step in range(steps):
        for group in optimizer.param_groups:
            rise = (step + 1) * training.batch_size / training.warmup_images if training.warmup_images else 1.0
            fall = (1 - step / steps) / training.decay if training.decay else 1.0
            group["lr"] = training.learning_rate * min(1.0, rise, fall)
        batches = []
        for number in range(intervals):
            start, end = (group[torch.randint(len(group), (part,))] for group in points[number : number + 2])
            t, x, velocity = matcher.sample_location_and_conditional_flow(start, end)
            length = times[number + 1] - times[number]
            batches.append((times[number] + length * t, x, velocity / length))
        t, x, velocity = (torch.cat(parts) for parts in zip(*batches, strict=True))
        optimizer.zero_grad()
        (field(t, x) - velocity).square().sum(dim=1).mean().backward()
        optimizer.step()
    return field
