"""How noisy are the gradients of the two forms of the loss? For two paths and two limits of the frequencies that embed the time.

For each set-up a small U-Net is trained on the digits for a moment, in conditional form, so that gradients are those of training and not
of the start. Then both forms are differentiated at the same weights over the same batches. Printed: the variance of the gradient of one
batch, summed over all parameters, and the ratio of the two forms.
"""

import argparse

import torch
from torch import Tensor

from amgen import config
from amgen.data import TrainingStream, open_dataset
from amgen.losses import TIME_WEIGHTS, ActionMatchingLoss, ConditionalLoss, MarginalLoss, TimeWeight
from amgen.model.build import build_action, build_path
from amgen.paths import PathSample, StratifiedTimes


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="steps of training before the measurement")
    parser.add_argument("--batches", type=int, default=100, help="batches of 64 to measure over")
    options = parser.parse_args()
    print(f"variance of the gradient of a batch of 64 digits, over {options.batches} batches, after {options.steps} steps; weight 1-t")
    print(f"{'path':8} {'frequencies up to':>18} {'conditional':>12} {'marginal':>12} {'ratio':>8}")
    for path in ("linear", "vp"):
        for frequency in (20, 1000):
            conditional, marginal = measure(path, frequency, options.steps, options.batches)
            print(f"{path:8} {frequency:>14} rad {conditional:12.4g} {marginal:12.4g} {marginal / conditional:8.1f}", flush=True)


def measure(path_kind: str, frequency: float, steps: int, batches: int) -> tuple[float, float]:
    """Return the total gradient variance of the conditional and of the marginal form."""
    overrides = ["coupling.kind=independent", f"path.kind={path_kind}", f"action.time_frequency={frequency}"]
    options = config.load("digits", overrides)
    action, path = build_action(options), build_path(options)
    weight = TimeWeight(TIME_WEIGHTS["1-t"])
    conditional, marginal = ConditionalLoss(action, path, weight=weight), MarginalLoss(action, path, weight=weight)
    stream, times = TrainingStream(open_dataset(options.data), seed=0), StratifiedTimes()

    def sample(step: int) -> PathSample:
        batch = stream.__getitems__(range(64 * step, 64 * (step + 1)))
        return path.sample(times.draw(0, step, range(64), 64)[0].float(), batch.noise, batch.images, boundary=True, score=True)

    optimizer = torch.optim.Adam(action.parameters(), lr=1e-3)
    for step in range(steps):
        optimizer.zero_grad()
        conditional(sample(step)).loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(action.parameters(), 1.0)
        optimizer.step()
    parameters = list(action.parameters())
    samples = [sample(step) for step in range(steps, steps + batches)]
    return total_variance(conditional, samples, parameters), total_variance(marginal, samples, parameters)


def total_variance(loss: ActionMatchingLoss, samples: list[PathSample], parameters: list[Tensor]) -> float:
    """Return the variance over batches of the gradient, summed over its entries."""
    total, squares = 0.0, 0.0
    for sample in samples:
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss(sample).loss.mean(), parameters)]).double()
        total, squares = total + gradient, squares + gradient.square()
    count = len(samples)
    return float(((squares - total.square() / count) / (count - 1)).sum())


if __name__ == "__main__":
    main()
