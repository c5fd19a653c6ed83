"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer


def _debug(value: bool) -> bool:
    if value:
        os.environ["AMGEN_DEBUG"] = "1"
    return value


def debug_requested() -> bool:
    """Tell whether errors are to be shown with their traceback."""
    return os.environ.get("AMGEN_DEBUG", "") not in ("", "0")


def _one_choice_of_weights(context: typer.Context, value: object) -> object:
    """Refuse --raw beside --ema: each is seen by whichever is read last."""
    from amgen.core.errors import UserError

    if value and any(context.params.get(name) for name in ("ema", "raw")):
        raise UserError("--raw and --ema each say which weights to use: leave one out")
    return value


FEWER = "--real N takes fewer"
"""Advice of the commands that extract the features of real images."""

Debug = Annotated[bool, typer.Option("--debug", callback=_debug, is_eager=True, help="Show errors with their traceback.")]
Run = Annotated[Path, typer.Argument(help="Run directory (its newest checkpoint), checkpoint folder or exported file.", show_default=False)]
Solver = Annotated[
    str | None,
    typer.Option(
        help="euler, midpoint, heun, ralston, rk4, ab2, ab3; adaptive: adaptive-heun, bosh3, dopri5, dopri8; for SDEs: euler-maruyama, "
        "stochastic-heun, sra1. Default: the run's."
    ),
]
Steps = Annotated[int | None, typer.Option(help="Steps of a fixed-step solver. Default: the run's.")]
StepGrid = Annotated[str | None, typer.Option(help="Steps: uniform, cosine or polynomial. Default: the run's.")]
Rho = Annotated[float | None, typer.Option(help="Exponent of the polynomial grid; above 1, short steps near the data. Default: the run's.")]
NoiseLevel = Annotated[
    float | None,
    typer.Option(help="Sample by an SDE with g(t) = G sqrt(a_t) and the same marginals, from balanced dynamics on a Gaussian path."),
]
Tolerance = Annotated[float | None, typer.Option(help="Tolerance of an adaptive solver. Default: the run's.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Image i is a function of this seed and i, 0 to 2^63 - 1.")]
BatchSize = Annotated[
    str | None,
    typer.Option(
        metavar="auto|N", help="Images carried together; auto: as many as the memory holds and speed gains from. Default: the run's."
    ),
]
Ema = Annotated[
    float | None,
    typer.Option(
        callback=_one_choice_of_weights,
        help="Averaged weights to use: an entry of training.ema, such as 22200 or 0.998. Default: the run's first.",
    ),
]
Raw = Annotated[bool, typer.Option("--raw", callback=_one_choice_of_weights, help="Use the weights themselves instead of an average.")]
Label = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|NUMBER",
        help="Class of all images, by name (which comes first) or number. Default: that of the image each is made from, or each in turn.",
        show_default=False,
    ),
]
Guidance = Annotated[float | None, typer.Option(help="Strength of classifier-free guidance, 1 for none. Default: the run's.")]
ConditionData = Annotated[
    str | None,
    typer.Option(help="Images that a model which completes or colours them starts from. Default: its training images.", show_default=False),
]
Resize = Annotated[
    str | None,
    typer.Option(
        metavar="forbid|crop|stretch", help="What is done with images of another size than the model's. Default: as the run has it."
    ),
]
Convert = Annotated[
    bool | None,
    typer.Option("--convert/--no-convert", help="Turn gray images into RGB and back as the model has them. Default: as the run has it."),
]
Device = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, cuda:1, mps ...")]


def number_or_word(text: str | None) -> int | str | None:
    """Read a batch size; what is neither a number nor auto is left for the configuration to refuse."""
    return int(text) if text is not None and _natural(text) else text


def _natural(text: str) -> bool:
    """Tell whether a text is a natural number, and one that can count something: of 18 digits at most."""
    return text.isascii() and text.isdecimal() and len(text) <= 18


def positive(option: str, value: int) -> None:
    """Refuse a count below 1."""
    from amgen.core.errors import UserError

    if value < 1:
        raise UserError(f"{option} {value}: expected at least 1")
