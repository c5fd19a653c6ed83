"""What does low precision do to the gradient? Its error in each layer, relative to that layer's gradient in single precision.

The network starts from its initial weights plus a little noise, so that no gradient is zero by construction. On a GPU tf32 is shown beside
bf16.
"""

import argparse
from collections import defaultdict

import torch
from torch import Tensor

from amgen import config
from amgen.core.devices import tf32
from amgen.losses import ActionMatchingLoss
from amgen.model.build import build_action, build_loss, build_path
from amgen.paths import PathSample


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="cifar10-small")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    settings = config.load(options.preset)
    action, path = build_action(settings).to(options.device), build_path(settings)
    for parameter in action.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    noise, data = torch.randn(2, options.batch, *settings.image_shape, device=options.device)
    loss, sample = (
        build_loss(settings, action, path),
        path.sample(torch.rand(options.batch, device=options.device), noise, data, boundary=True, score=True),
    )
    columns = {"bf16": layer_errors(loss, sample, torch.bfloat16)}
    if options.device.startswith("cuda"):
        columns["tf32"] = layer_errors(loss, sample, None)
    print(f"{options.preset}, batch {options.batch}, {options.device}: relative error of the gradient")
    print(f"{'layer':32}" + "".join(f"{name:>10}" for name in columns))
    for layer in columns["bf16"]:
        print(f"{layer:32}" + "".join(f"{errors[layer]:10.4f}" for errors in columns.values()))


def layer_errors(loss: ActionMatchingLoss, sample: PathSample, dtype: torch.dtype | None) -> dict[str, float]:
    """Return |g - g32| / |g32| of each layer's gradient g in mixed precision (None: tf32), and of `all` together."""
    with tf32(False):  # torch by itself allows it in convolutions
        whole = gradients(loss, sample)
    if dtype is None:
        with tf32(True):
            low = gradients(loss, sample)
    else:
        with torch.autocast(sample.x.device.type, dtype):
            low = gradients(loss, sample)
    squares: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, gradient in whole.items():
        for key in (name.removeprefix("action.").rpartition(".")[0], "all"):
            squares[key][0] += float((low[name] - gradient).double().square().sum())
            squares[key][1] += float(gradient.double().square().sum())
    return {key: (error / size) ** 0.5 for key, (error, size) in squares.items()}


def gradients(loss: ActionMatchingLoss, sample: PathSample) -> dict[str, Tensor]:
    """Return the gradient of the mean loss in each parameter; the outer backward pass lies outside mixed precision, as in training."""
    value = loss(sample).loss.mean()
    with torch.autocast(sample.x.device.type, enabled=False):
        found = torch.autograd.grad(value, list(loss.parameters()))
    return dict(zip(dict(loss.named_parameters()), found, strict=True))


if __name__ == "__main__":
    main()
