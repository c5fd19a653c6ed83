"""Which classes does a model of the embedded digits generate? For unbalanced dynamics: start, target, and the shares by weight.

Generated digits are classified by the shipped classifier; each counts as much as its weight. Standard errors are those of a weighted mean.
The distance is half the sum of the differences from the target. Takes half a minute on one core.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from common import new_parser, parse, print_conditions, print_table, script, with_error
from torch import Tensor

from amgen import sampling
from amgen.core.errors import UserError
from amgen.data import open_dataset, to_float
from amgen.evaluation.features.digits import pretrained
from amgen.model.build import build_masses


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Generate, classify and print the table."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--num", type=int, default=4000, help="digits to generate")
    parser.add_argument("--seed", type=int, default=0, help="seed of the digits")
    options = parse(parser, arguments)
    model = sampling.load(options.run)
    if model.config.image_shape != (1, 8, 8):
        raise UserError(f"{options.run} generates images of {model.config.image_shape}: the classifier knows 8x8 gray digits alone")
    start, target, mass = shares_of(model)
    samples = model.generate(options.num, seed=options.seed, batch_size=500)
    logs = torch.zeros(options.num, dtype=torch.float64) if samples.log_weights is None else samples.log_weights
    members = classify(samples.images)
    unweighted = members.mean(dim=0)
    weighted, error = weighted_mean(members, logs)

    rows = [
        [
            digit,
            *(f"{shares[digit]:.3f}" for shares in (start, target, unweighted)),
            with_error(float(weighted[digit]), float(error[digit]), ".3f", ".3f"),
        ]
        for digit in range(10)
    ]
    distances = [f"{distance(shares, target):.3f}" for shares in (start, target, unweighted, weighted)]
    print_table(["class", "start", "target", "unweighted", "by weight"], [*rows, ["distance from the target", *distances]])
    # With equal weights the expected distance of n samples from their own distribution.
    noise = 0.5 * (target * (1 - target) * 2 / math.pi / options.num).sqrt().sum()
    print_conditions(
        options,
        f"{options.num:,} digits, seed {options.seed}, effective sample size {sampling.effective_sample_size(logs.tolist()):,.0f}",
        f"mean weight {logs.exp().mean():.3f} (total mass at the end: {mass:.3f})",
        f"a perfect sampler without weights would be {noise:.3f} from the target",
        model.in_words(model.describe()),
        f"solver {model.config.sampling.solver}, NFE {samples.evaluations}",
        device=model.device,
    )


def shares_of(model: sampling.Model) -> tuple[Tensor, Tensor, float]:
    """Return the shares of the classes at t = 0 and t = 1, float64 (10,), and the total mass at t = 1."""
    dataset = open_dataset(model.config.images)
    shares = torch.tensor(dataset.class_counts(), dtype=torch.float64) / len(dataset)
    masses = build_masses(model.config, dataset.class_counts())
    if masses is None:
        return shares, shares, 1.0
    return masses.start * shares, masses.end * shares, float((masses.end * shares).sum())


def classify(images: Tensor) -> Tensor:
    """Return which class each digit (N, 1, 8, 8) belongs to, as float64 one-hot vectors (N, 10)."""
    with torch.no_grad():
        return torch.nn.functional.one_hot(pretrained()(to_float(images)).argmax(dim=1), 10).double()


def weighted_mean(members: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean over the rows of `members` (N, D) by weight, and its standard error, both (D,)."""
    weights = log_weights.softmax(dim=0)
    mean = weights @ members
    return mean, ((weights[:, None] ** 2) * (members - mean) ** 2).sum(dim=0).sqrt()


def distance(first: Tensor, second: Tensor) -> float:
    """Return the total variation distance of two histograms."""
    return float(0.5 * (first - second).abs().sum())


if __name__ == "__main__":
    main()
