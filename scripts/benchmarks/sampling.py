"""What does a velocity cost? One gradient of the action beside a plain forward pass without gradients, in time and in memory.

A gradient keeps the activations that a plain forward pass drops. Times are medians over rounds in which both take turns. Memory is the most
bytes that tensors made on the way held at once. A second table gives the velocities a second for batches of several sizes, among them the
one that `sampling.batch_size=auto` chooses (*). Takes some minutes on one core.
"""

from collections.abc import Sequence
from functools import partial
from statistics import median

import torch
from timing import counted, in_turn, new_parser, parse, print_conditions, print_table, script

from amgen import config
from amgen.core.batching import MOST, fitting
from amgen.core.devices import device_of
from amgen.core.memory import peak_bytes
from amgen.dynamics import Dynamics
from amgen.model.build import build_action

BATCHES = {"digits": 100, "cifar10-small": 16, "cifar10": 2}
"""Batch sizes of the first table by preset."""


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument(
        "--presets", nargs="+", type=str, choices=BATCHES, default=list(BATCHES), metavar="NAME", help="some of %(choices)s; default: all"
    )
    parser.add_argument("--rounds", type=int, default=9, help="rounds that the medians are taken over")
    parser.add_argument("--device", type=str, default="cpu", help="where to compute")
    options = parse(parser, arguments)
    device = device_of(options.device)
    print_table(
        ["preset", "batch", "forward, ms", "velocity, ms", "ratio", "memory: forward, MB", "velocity, MB", "ratio"],
        [velocity_and_forward(preset, device, options.rounds) for preset in options.presets],
    )
    print_table(
        ["preset", "batch size: velocities/s"],
        [[preset, throughput(preset, device, options.rounds)] for preset in options.presets],
        title="Velocities a second by batch size; `auto` chooses the one with a star:",
    )
    print_conditions(options, f"medians of {counted(options.rounds, 'round')}", device=device)


def velocity_and_forward(preset: str, device: torch.device, rounds: int) -> list[str]:
    """Return the cells of a preset: time and memory of a forward pass and of a velocity."""
    settings, batch = config.load(preset), BATCHES[preset]
    action = build_action(settings).to(device).requires_grad_(False).eval()
    dynamics = Dynamics(action)
    x, t = torch.randn(batch, *settings.image_shape, device=device), torch.rand(batch, device=device)

    def forward() -> None:
        with torch.no_grad():
            action(t, x)

    def velocity() -> None:
        assert dynamics.velocity(t, x).grad_fn is None

    works = {"forward": forward, "velocity": velocity}
    for work in works.values():
        work()
    plain, gradient = (1e3 * median(times) for times in in_turn(works, rounds).values())
    memory = [peak_bytes(work) / 2**20 for work in works.values()]
    numbers = [f"{plain:.1f}", f"{gradient:.1f}", f"{gradient / plain:.2f}"]
    return [preset, str(batch), *numbers, f"{memory[0]:.1f}", f"{memory[1]:.1f}", f"{memory[1] / memory[0]:.2f}"]


def throughput(preset: str, device: torch.device, rounds: int) -> str:
    """Return `batch size: velocities a second` for sizes up to twice the one that memory and speed suggest, which is starred."""
    settings = config.load(preset)
    dynamics = Dynamics(build_action(settings).to(device).requires_grad_(False).eval())

    def velocity(samples: Sequence[int]) -> None:
        dynamics.velocity(0.5, torch.zeros(len(samples), *settings.image_shape, device=device))

    chosen = fitting(velocity, range(MOST), device)
    sizes = sorted({4**power for power in range(7) if 4**power < chosen} | {chosen, 2 * chosen})
    velocity(range(chosen))
    times = in_turn({str(size): partial(velocity, range(size)) for size in sizes}, rounds)
    return ", ".join(f"{size}{'*' * (size == chosen)}: {size / median(times[str(size)]):.3g}" for size in sizes)


if __name__ == "__main__":
    main()
