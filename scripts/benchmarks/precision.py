"""What does low precision do to the gradient? Its error in each layer, relative to that layer's gradient in single precision.

The network has its initial weights plus a little noise, so that no gradient is zero by construction. On a GPU tf32 is shown beside bf16.
Takes some seconds on one core.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from timing import new_parser, parse, print_conditions, print_table, script
from torch import Tensor

from amgen import config
from amgen.core.devices import device_of, tf32
from amgen.losses import ActionMatchingLoss
from amgen.model.build import build_action, build_loss, build_path
from amgen.paths import PathSample


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("--preset", type=str, default="cifar10-small", help="preset whose network and loss are taken")
    parser.add_argument("--batch", type=int, default=16, help="images in a batch")
    parser.add_argument("--device", type=str, default="cpu", help="where to compute")
    options = parse(parser, arguments)
    device = device_of(options.device)
    torch.manual_seed(0)
    settings = config.load(options.preset)
    action, path = build_action(settings).to(device), build_path(settings)
    for parameter in action.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    loss = build_loss(settings, action, path)
    noise, data = torch.randn(2, options.batch, *settings.image_shape, device=device)
    t = torch.rand(options.batch, device=device)
    sample = path.sample(t, noise, data, boundary=loss.needs_boundary, score=loss.needs_score)
    columns = {"bf16": layer_errors(loss, sample, torch.bfloat16)}
    if device.type == "cuda":
        columns["tf32"] = layer_errors(loss, sample, None)
    rows = [[layer, *(f"{errors[layer]:.4f}" for errors in columns.values())] for layer in columns["bf16"]]
    print_table(["layer", *columns], rows, "Relative error of the gradient:")
    print_conditions(options, f"{options.preset}, batch {options.batch}", "seed 0", device=device)


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
