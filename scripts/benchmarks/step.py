"""How much does a training step on a scalar action cost beside one on a vector field with the same network?

For each shape, in one process and in turn: a plain forward pass, the velocity that sampling evaluates, a step of vector-field flow matching
(PyTorch's layers, the same body, Adam), and steps of Action Matching: as one would write them with plain autograd, and as amgen takes them.
A step zeroes the gradients, evaluates the loss, goes back and lets Adam move the weights. Counted in convolutions, the least that a step
can cost is 1 for a forward pass, 2 for a velocity, 3 for the vector field, 6 for the conditional form (6/3 = 2.0) and 12 for the marginal
form with boundaries of their own (12/3 = 4.0).

The ratio is the median over rounds of the time in a round to that of the vector field in the same round, with the quartiles. Memory is the
most bytes that tensors made by a step held at once. Where torchcfm is installed, a step of its own U-Net and loss stands beside. Takes
about --seconds and the first two rounds for each shape: five minutes on one core.
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from timing import (
    Work,
    add_outputs,
    describe_machine,
    in_turn,
    new_parser,
    parse,
    print_conditions,
    print_table,
    save_report,
    script,
)
from torch import Tensor, nn

from amgen import config
from amgen.actions import Action
from amgen.config import ActionConfig, Config, DataConfig
from amgen.core.devices import device_of
from amgen.core.memory import peak_bytes
from amgen.data import ImageDataset, training_stream
from amgen.data.sources import ArraySource
from amgen.dynamics import Dynamics, Entropic, Unbalanced
from amgen.losses import ActionMatchingLoss, ConditionalLoss, MarginalLoss
from amgen.model.build import build_action, build_coupling, build_path, build_times
from amgen.paths import PathSample
from amgen.training.batches import CoupledStream

COLUMNS = ("step", "time, ms", "to vector field", "quartiles", "to forward", "memory, MB", "to vector field")
FIELD, FORWARD, VELOCITY = "vector field", "plain forward", "velocity"
SHAPES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "digits": ("digits", 64, {}),
    "cifar10-small": ("cifar10-small", 16, {}),
    "cifar10-like": ("cifar10", 16, {"action": {"width": 64, "dropout": 0.0}}),
}
"""Name, preset, batch size and what differs from the preset."""


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table for each shape; with --json, write them."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument(
        "--shapes", nargs="+", type=str, choices=SHAPES, default=list(SHAPES), metavar="NAME", help="some of %(choices)s; default: all"
    )
    parser.add_argument("--seconds", type=float, default=60, help="about how long to time each shape, seconds")
    parser.add_argument("--device", type=str, default="cpu", help="where to compute")
    parser.add_argument("--bf16", action="store_true", help="run all networks under autocast to bfloat16")
    parser.add_argument("--channels-last", action="store_true", help="keep weights and images channels-last")
    add_outputs(parser, figure=False)
    options = parse(parser, arguments)
    device = device_of(options.device)
    tables = []
    for name in options.shapes:
        preset, batch, changes = SHAPES[name]
        settings = config.change(config.load(preset), changes)
        rows = measure(all_works(settings, batch, device, options), options.seconds)
        tables.append({"shape": name, "image": settings.image_shape, "batch": batch, "rows": rows})
        title = f"`{name}`: {'x'.join(map(str, settings.image_shape))}, batch {batch}, medians of {rows[FIELD]['rounds']} rounds"
        print_table(COLUMNS, [[work, *cells(row, rows[FIELD])] for work, row in rows.items()], title)
    print_conditions(options, device=device)
    if options.json:
        machine = {
            "device": torch.cuda.get_device_name() if device.type == "cuda" else options.device,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "machine": describe_machine(device),
            "bf16": options.bf16,
            "channels_last": options.channels_last,
        }
        save_report({"machine": machine, "tables": tables}, options.json)


def all_works(settings: Config, batch: int, device: torch.device, options: argparse.Namespace) -> dict[str, Work]:
    """Return the work to be timed, by name."""
    torch.manual_seed(0)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    action, path = build_action(settings).to(device).to(memory_format=layout), build_path(settings)
    for parameter in action.parameters():
        if parameter.dim() == 4:  # the layers that start at zero would make it too easy
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    noise, data = torch.randn(2, batch, *settings.image_shape, device=device)
    noise, data = noise.to(memory_format=layout), data.to(memory_format=layout)
    sample = path.sample(torch.rand(batch, device=device), noise, data, boundary=True, score=True)
    others = path.sample(sample.t, noise.flip(0), data.flip(0), boundary=True, score=True).boundary
    independent = replace(sample, boundary=others)
    frozen = Dynamics(copy.deepcopy(action))

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, options.bf16)

    def forward() -> None:
        with torch.no_grad(), autocast():
            action(sample.t, sample.x)

    def velocity() -> None:
        with autocast():
            frozen.velocity(sample.t, sample.x)

    def step(network: nn.Module, loss: Callable[[], Tensor]) -> Work:
        optimizer = torch.optim.Adam(network.parameters(), lr=0, fused=True)

        def work() -> None:
            optimizer.zero_grad()
            with autocast():
                value = loss()
            value.backward()
            optimizer.step()

        return work

    def matching(loss: ActionMatchingLoss, points: PathSample = sample) -> Work:
        return step(action, lambda: loss(points).loss.mean())

    works = {
        FIELD: step(action, lambda: vector_field(action.body, sample)),
        FORWARD: forward,
        VELOCITY: velocity,
        "AM, plain autograd": step(action, lambda: conditional(action, sample)),
        "AM": matching(ConditionalLoss(action, path)),
        "eAM": matching(ConditionalLoss(action, path, Entropic(lambda t: 1 - t))),
        "uAM": matching(ConditionalLoss(action, path, Unbalanced(1.0))),
        "AM marginal, plain autograd": step(action, lambda: marginal(action, independent)),
        "AM marginal": matching(MarginalLoss(action, path), independent),
        "data of a step": data_of_a_step(settings, batch),
    }
    reference = torchcfm_loss(settings, noise, data)
    return works if reference is None else {**works, "torchcfm's U-Net and loss": step(*reference)}


def torchcfm_loss(settings: Config, noise: Tensor, data: Tensor) -> tuple[nn.Module, Callable[[], Tensor]] | None:
    """Return torchcfm's network of the same widths, and its flow-matching loss; None where it is not installed, or has no such network."""
    try:
        from torchcfm.conditional_flow_matching import ConditionalFlowMatcher
        from torchcfm.models.unet import UNetModel
    except ImportError:
        return None
    options, size = settings.action, settings.image_shape[1]
    assert isinstance(options, ActionConfig)
    if options.width % 32:  # its norms have 32 groups
        return None
    network = UNetModel(
        dim=settings.image_shape,
        num_channels=options.width,
        num_res_blocks=options.blocks,
        channel_mult=list(options.multipliers),
        attention_resolutions=",".join(map(str, options.attention)) or str(2 * size),  # twice the size: nowhere
    ).to(data.device)
    matcher = ConditionalFlowMatcher(sigma=0.0)

    def loss() -> Tensor:
        t, x, velocity = matcher.sample_location_and_conditional_flow(noise, data)
        return (network(t, x) - velocity).square().mean()

    return network, loss


def vector_field(body: nn.Module, sample: PathSample) -> Tensor:
    """Flow matching: 1/2 |f - u|^2."""
    return (0.5 * (body(sample.t, sample.x) - sample.velocity).square().flatten(1).sum(dim=1)).mean()


def conditional(action: Callable[[Tensor, Tensor], Tensor], sample: PathSample) -> Tensor:
    """Action Matching in conditional form, by PyTorch alone."""
    x = sample.x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(action(sample.t, x).sum(), x, create_graph=True)
    return (0.5 * (gradient - sample.velocity).square().flatten(1).sum(dim=1)).mean()


def marginal(action: Action, sample: PathSample) -> Tensor:
    """The paper's loss, by PyTorch alone: an evaluation for each of its three terms."""
    t, x = sample.t.detach().requires_grad_(), sample.x.detach().requires_grad_()
    in_t, in_x = torch.autograd.grad(action(t, x).sum(), (t, x), create_graph=True)
    assert sample.boundary is not None
    start = action(torch.zeros_like(sample.t), sample.boundary.start)
    end = action(torch.ones_like(sample.t), sample.boundary.end)
    return (start - end + 0.5 * in_x.square().flatten(1).sum(dim=1) + in_t).mean()


def data_of_a_step(settings: Config, batch: int) -> Work:
    """What comes before a step: images from memory, flipped, with their noise coupled to them, times, and points along the path."""
    assert isinstance(settings.data, DataConfig)
    channels, size, _ = settings.image_shape
    pixels = np.random.default_rng(0).integers(0, 256, (2_000, size, size, channels), dtype=np.uint8)
    source = ArraySource(pixels.squeeze(-1) if channels == 1 else pixels, [0] * len(pixels), ["any"], "random images")
    stream = CoupledStream(training_stream(ImageDataset(source, settings.data), 0), build_coupling(settings), False)
    path, times, steps = build_path(settings), build_times(settings), iter(range(10**9))

    def work() -> None:
        step = next(steps)
        items = stream.__getitems__(range(step * batch, (step + 1) * batch))
        t, _ = times.sample(0, step, range(batch), batch)
        path.sample(t.float(), items.noise, items.images, boundary=True, score=True)

    return work


def measure(works: dict[str, Work], budget: float) -> dict[str, dict[str, float]]:
    """Time all work in turn for about `budget` seconds, three rounds at least, after two rounds that warm up."""
    once = sum(map(sum, in_turn(works, 2).values())) / 2
    rounds = max(3, round(budget / once))
    times = in_turn(works, rounds)
    rows = {}
    for name, work in works.items():
        ratios = [own / field for own, field in zip(times[name], times[FIELD], strict=True)]
        low, middle, high = quantiles(ratios, n=4)
        rows[name] = {
            "milliseconds": 1e3 * median(times[name]),
            "ratio": middle,
            "lower_quartile": low,
            "upper_quartile": high,
            "to_forward": median(own / plain for own, plain in zip(times[name], times[FORWARD], strict=True)),
            "megabytes": peak_bytes(work) / 2**20,
            "rounds": rounds,
        }
    return rows


def cells(row: dict[str, float], field: dict[str, float]) -> list[str]:
    """Return the cells of a row under COLUMNS, but for its name; `field` is the row of the vector field."""
    return [
        f"{row['milliseconds']:.1f}",
        f"{row['ratio']:.3f}",
        f"{row['lower_quartile']:.3f} to {row['upper_quartile']:.3f}",
        f"{row['to_forward']:.2f}",
        f"{row['megabytes']:.1f}",
        f"{row['megabytes'] / field['megabytes']:.2f}",
    ]


if __name__ == "__main__":
    main()
