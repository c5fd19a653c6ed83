"""What does optimal transport cost? The time of one assignment of noise to images beside that of a training step of `cifar10-small`.

Takes half a minute on one core.
"""

from collections.abc import Sequence
from statistics import median

import torch
from timing import counted, in_turn, new_parser, parse, print_conditions, print_table, script

from amgen import config
from amgen.model.build import build_action, build_loss, build_path
from amgen.paths import OptimalTransportCoupling


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Print both times and their ratio."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("--preset", type=str, default="cifar10-small", help="preset whose network and images are taken")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that the medians are taken over")
    options = parse(parser, arguments)
    settings = config.load(options.preset)
    action, path = build_action(settings), build_path(settings)
    loss = build_loss(settings, action, path)
    optimizer = torch.optim.Adam(action.parameters(), fused=True)
    noise, data = torch.randn(2, options.batch, *settings.image_shape)
    t = torch.rand(options.batch)

    def assign() -> None:
        OptimalTransportCoupling(options.batch).assign(noise, data)

    def step() -> None:
        optimizer.zero_grad()
        loss(path.sample(t, noise, data, boundary=loss.needs_boundary, score=loss.needs_score)).loss.mean().backward()
        optimizer.step()

    times = in_turn({"assignment": assign, "step": step}, options.rounds)
    assignment, training = median(times["assignment"]), median(times["step"])
    print_table(
        ["batch", "assignment, ms", "training step, ms", "assignment / step"],
        [[options.batch, f"{1e3 * assignment:.1f}", f"{1e3 * training:.0f}", f"{assignment / training:.2%}"]],
    )
    print_conditions(
        options, f"{options.preset}, images of {shape_in_words(settings.image_shape)}", f"medians of {counted(options.rounds, 'round')}"
    )


def shape_in_words(shape: Sequence[int]) -> str:
    """Return (C, H, W) as HxWxC."""
    channels, height, width = shape
    return f"{height}x{width}x{channels}"


if __name__ == "__main__":
    main()
