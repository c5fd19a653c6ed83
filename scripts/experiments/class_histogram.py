"""Which classes does a model of the embedded digits draw? For unbalanced dynamics: start, target, and what its weights reach.

Generated digits are classified by the shipped classifier; each counts as much as its weight. Standard errors are those of a weighted mean.
"""

import argparse
import math
from pathlib import Path

import torch

from amgen import config, sampling
from amgen.core.errors import UserError
from amgen.data import open_dataset, to_float
from amgen.evaluation.digits import pretrained
from amgen.model.build import build_masses


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--num", type=int, default=4000, help="digits to draw")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = sampling.load(options.run)
    if model.config.image_shape != (1, 8, 8):
        raise UserError("the classifier knows 8x8 digits alone")
    dataset = open_dataset(model.config.images)
    shares = torch.tensor(dataset.class_counts(), dtype=torch.float64) / len(dataset)
    masses = build_masses(model.config, dataset.class_counts())
    start, target = (shares, shares) if masses is None else (masses.start * shares, masses.end * shares)

    classifier, classes, log_weights = pretrained(), [], []
    sampling_options = config.change(model.config.sampling, {"batch_size": 500})
    for batch in sampling.generate_all(model, sampling_options, range(options.num), sampling.Request(options.seed)):
        with torch.no_grad():
            classes.append(classifier(to_float(batch.images)).argmax(dim=1))
        log_weights.append(torch.zeros(len(batch.indices), dtype=torch.float64) if batch.log_weights is None else batch.log_weights)
    drawn, logs = torch.cat(classes), torch.cat(log_weights)
    weights = (logs - logs.max()).softmax(dim=0)
    members = torch.nn.functional.one_hot(drawn, 10).double()
    reached = weights @ members
    error = ((weights[:, None] ** 2) * (members - reached) ** 2).sum(dim=0).sqrt()

    print(f"{'class':5} {'start':>7} {'target':>7} {'unweighted':>11} {'reached by weights':>19}")
    for digit in range(10):
        print(
            f"{digit:5} {start[digit]:7.3f} {target[digit]:7.3f} {members[:, digit].mean():11.3f} "
            f"{reached[digit]:11.3f} +- {error[digit]:.3f}"
        )
    print(
        f"distance from the target (half the sum of differences): start {distance(start, target):.3f}, "
        f"unweighted {distance(members.mean(dim=0), target):.3f}, reached {distance(reached, target):.3f}"
    )
    # With equal weights the expected distance of n draws from their own distribution.
    noise = 0.5 * (target * (1 - target) * 2 / math.pi / options.num).sqrt().sum()
    print(
        f"{options.num} digits, effective sample size {sampling.effective_sample_size(logs.tolist()):,.0f}; mean weight "
        f"{logs.exp().mean():.3f} (total mass at the end: {'1' if masses is None else f'{float((masses.end * shares).sum()):.3f}'}); "
        f"a perfect sampler without weights would be {noise:.3f} from the target"
    )


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the total variation distance of two histograms."""
    return float(0.5 * (first - second).abs().sum())


if __name__ == "__main__":
    main()
