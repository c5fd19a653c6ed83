"""How much does a training step on a scalar action cost beside one on a vector field with the same network?

For each shape, in one process and in turn: a plain forward pass, the velocity that sampling evaluates, a step of vector-field flow matching
(PyTorch's layers, the same body, Adam), and steps of Action Matching: as one would write them with plain autograd, and as amgen takes them.
A step zeroes the gradients, evaluates the loss, goes back and lets Adam move the weights. In units of a sample's convolutions the least
that can be is 1 for a forward pass, 2 for a velocity, 3 for the vector field, 6 for the conditional form (6/3 = 2.0) and 12 for the
marginal form with boundaries of their own (12/3 = 4.0).

Ratios are medians over rounds of the time in a round to that of the vector field in the same round, with the quartiles; memory is the most
that tensors made on the way held at once. Where torchcfm is installed, its own U-Net and loss stand beside.
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from benchmark_sampling import seconds
from experiments import save_report
from torch import Tensor, nn

from amgen import config
from amgen.actions import Action
from amgen.config import ActionConfig, Config, DataConfig
from amgen.core.devices import device_of
from amgen.core.errors import UserError
from amgen.core.files import make_folder
from amgen.core.memory import peak_bytes
from amgen.data import ImageDataset, training_stream
from amgen.data.sources import ArraySource
from amgen.dynamics import Dynamics, Entropic, Unbalanced
from amgen.losses import ActionMatchingLoss, ConditionalLoss, MarginalLoss
from amgen.model.build import build_action, build_coupling, build_path, build_times
from amgen.paths import PathSample
from amgen.training.coupled import CoupledStream

Work = Callable[[], None]

FIELD, FORWARD, VELOCITY = "vector field", "plain forward", "velocity"
SHAPES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "digits": ("digits", 64, {}),
    "cifar10-small": ("cifar10-small", 16, {}),
    "cifar10-like": ("cifar10", 16, {"action": {"width": 64, "dropout": 0.0}}),
}
"""Name, preset, batch size and what differs from the preset."""


def main() -> None:
    """Print the tables, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--seconds", type=float, default=60, help="about how long to time each shape")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="run all networks under autocast to bfloat16")
    parser.add_argument("--channels-last", action="store_true", help="keep weights and images channels-last")
    parser.add_argument("--json", type=Path, help="file for the tables")
    options = parser.parse_args()
    try:  # before minutes of timing
        device_of(options.device)
        if options.json:
            make_folder(options.json.parent)
    except UserError as error:
        parser.exit(error.exit_code, f"{parser.prog}: {error}\n")
    machine = {
        "device": torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "bf16": options.bf16,
        "channels_last": options.channels_last,
    }
    print("  ".join(f"{key} {value}" for key, value in machine.items()))
    tables = []
    for name in options.shapes:
        preset, batch, changes = SHAPES[name]
        settings = config.change(config.load(preset), changes)
        ways = all_ways(settings, batch, options)
        rows = measure(ways, options.seconds)
        tables.append({"shape": name, "image": settings.image_shape, "batch": batch, "rows": rows})
        print(f"\n{name}: {'x'.join(map(str, settings.image_shape))}, batch {batch}\n{table(rows)}", flush=True)
    if options.json:
        save_report({"machine": machine, "tables": tables}, options.json)


def all_ways(settings: Config, batch: int, options: argparse.Namespace) -> dict[str, Work]:
    """Return the work to be timed, by name."""
    torch.manual_seed(0)
    device, layout = options.device, torch.channels_last if options.channels_last else torch.contiguous_format
    action, path = build_action(settings).to(device, memory_format=layout), build_path(settings)
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
        return torch.autocast(torch.device(device).type, torch.bfloat16, options.bf16)

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

    def amgens(loss: ActionMatchingLoss, drawn: PathSample = sample) -> Work:
        return step(action, lambda: loss(drawn).loss.mean())

    ways = {
        FIELD: step(action, lambda: vector_field(action.body, sample)),
        FORWARD: forward,
        VELOCITY: velocity,
        "AM, plain autograd": step(action, lambda: conditional(action, sample)),
        "AM": amgens(ConditionalLoss(action, path)),
        "eAM": amgens(ConditionalLoss(action, path, Entropic(lambda t: 1 - t))),
        "uAM": amgens(ConditionalLoss(action, path, Unbalanced(1.0))),
        "AM marginal, plain autograd": step(action, lambda: marginal(action, independent)),
        "AM marginal": amgens(MarginalLoss(action, path), independent),
        "data of a step": data_of_a_step(settings, batch),
    }
    outside = torchcfm_loss(settings, noise, data)
    return ways if outside is None else {**ways, "torchcfm's U-Net and loss": step(*outside)}


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
        drawn = stream.__getitems__(range(step * batch, (step + 1) * batch))
        t, _ = times.draw(0, step, range(batch), batch)
        path.sample(t.float(), drawn.noise, drawn.images, boundary=True, score=True)

    return work


def measure(ways: dict[str, Work], budget: float) -> dict[str, dict[str, float]]:
    """Time all work in turn for about `budget` seconds, three rounds at least."""
    once = sum(seconds(work) for _ in range(2) for work in ways.values()) / 2
    rounds = max(3, round(budget / once))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            times[name].append(seconds(work))
    rows = {}
    for name, work in ways.items():
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


def table(rows: dict[str, dict[str, float]]) -> str:
    """Return the rows as text."""
    field = rows[FIELD]
    lines = [f"{'':28} {'ms':>8} {'to vector field':>16} {'quartiles':>14} {'to forward':>11} {'MB':>8} {'to vector field':>16}"]
    lines += [
        f"{name:28} {row['milliseconds']:8.1f} {row['ratio']:16.3f} {row['lower_quartile']:7.3f}{row['upper_quartile']:7.3f} "
        f"{row['to_forward']:11.2f} {row['megabytes']:8.1f} {row['megabytes'] / field['megabytes']:16.2f}"
        for name, row in rows.items()
    ]
    return "\n".join([*lines, f"medians of {int(field['rounds'])} rounds"])


if __name__ == "__main__":
    main()
