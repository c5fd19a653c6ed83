"""How noisy are the gradients of the conditional and the marginal form of the loss?

For two paths and two limits of the frequencies that embed the time, a small U-Net is trained on the digits for some steps, in conditional
form, so that gradients are those of training and not of the start. Then both forms are differentiated at the same weights over the same
batches. The variance is that of the gradient of one batch, summed over all parameters. Takes 5 minutes on one core.
"""

from collections.abc import Sequence

import torch
from common import counted, new_parser, parse, print_conditions, print_table, progress, script
from torch import Tensor

from amgen import config
from amgen.data import open_dataset, training_stream
from amgen.losses import TIME_WEIGHTS, ActionMatchingLoss, ConditionalLoss, MarginalLoss, TimeWeight
from amgen.model.build import build_action, build_path
from amgen.paths import PathSample, StratifiedTimes

PATHS = ("linear", "vp")
FREQUENCIES = (20, 1000)
BATCH = 64


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("--steps", type=int, default=200, help="steps of training before the measurement")
    parser.add_argument("--batches", type=int, default=100, help="batches to measure over")
    parser.add_argument(
        "--paths", nargs="+", type=str, choices=PATHS, default=PATHS, metavar="NAME", help="paths between noise and images: %(choices)s"
    )
    options = parse(parser, arguments)
    rows = []
    for path in options.paths:
        for frequency in FREQUENCIES:
            conditional, marginal = measure(path, frequency, options.steps, options.batches)
            rows.append([path, frequency, f"{conditional:.4g}", f"{marginal:.4g}", f"{marginal / conditional:.1f}"])
            progress(", ".join(map(str, rows[-1])))
    print_table(["path", "frequencies up to, rad", "variance, conditional", "variance, marginal", "ratio"], rows)
    print_conditions(
        options,
        f"digits, batches of {BATCH}, over {options.batches} batches, after {counted(options.steps, 'step')} of training",
        "weight 1-t",
        "seed 0",
    )


def measure(path_kind: str, frequency: float, steps: int, batches: int) -> tuple[float, float]:
    """Return the total gradient variance of the conditional and of the marginal form."""
    overrides = ["coupling.kind=independent", f"path.kind={path_kind}", f"action.time_frequency={frequency}"]
    options = config.load("digits", overrides)
    action, path = build_action(options), build_path(options)
    weight = TimeWeight(TIME_WEIGHTS["1-t"])
    conditional, marginal = ConditionalLoss(action, path, weight=weight), MarginalLoss(action, path, weight=weight)
    stream, times = training_stream(open_dataset(options.data), seed=0), StratifiedTimes()

    def sample(step: int) -> PathSample:
        batch = stream.__getitems__(range(BATCH * step, BATCH * (step + 1)))
        t, _ = times.sample(0, step, range(BATCH), BATCH)
        return path.sample(t.float(), batch.noise, batch.images, boundary=True)

    optimizer = torch.optim.Adam(action.parameters(), lr=1e-3)
    for step in range(steps):
        optimizer.zero_grad()
        conditional(sample(step)).loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(action.parameters(), 1.0)
        optimizer.step()
    parameters = list(action.parameters())
    samples = [sample(step) for step in range(steps, steps + batches)]
    return total_variance(conditional, samples, parameters), total_variance(marginal, samples, parameters)


def total_variance(loss: ActionMatchingLoss, samples: Sequence[PathSample], parameters: Sequence[Tensor]) -> float:
    """Return the variance over batches of the gradient, summed over its entries."""
    total = squares = torch.zeros((), dtype=torch.float64)
    for sample in samples:
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss(sample).loss.mean(), parameters)]).double()
        total, squares = total + gradient, squares + gradient.square()
    count = len(samples)
    return float(((squares - total.square() / count) / (count - 1)).sum())


if __name__ == "__main__":
    main()
