"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer


def _debug(value: bool) -> bool:
    if value:
        os.environ["AMGEN_DEBUG"] = "1"
    return value


def debug_requested() -> bool:
    """Tell whether errors are to be shown with their traceback."""
    return os.environ.get("AMGEN_DEBUG", "") not in ("", "0")


Debug = Annotated[bool, typer.Option("--debug", callback=_debug, is_eager=True, help="Show errors with their traceback.")]
Run = Annotated[Path, typer.Argument(help="Run directory (its newest checkpoint) or checkpoint folder.", show_default=False)]
Solver = Annotated[
    str | None,
    typer.Option(help="euler, midpoint, heun, rk4 or dopri5; euler-maruyama for entropic dynamics. Default: the run's."),
]
Steps = Annotated[int | None, typer.Option(help="Steps of a fixed-step solver. Default: the run's.")]
Tolerance = Annotated[float | None, typer.Option(help="Tolerance of an adaptive solver. Default: the run's.")]
Seed = Annotated[int, typer.Option(help="Image i is a function of this seed and i.")]
BatchSize = Annotated[int | None, typer.Option(help="Images drawn together. Default: the run's.")]
Ema = Annotated[float | None, typer.Option(help="Rate of the averaged weights to use. Default: the run's first.")]
Raw = Annotated[bool, typer.Option("--raw", help="Use the weights themselves instead of an average.")]
Label = Annotated[int | None, typer.Option(help="Class to draw. Default: each class in turn.")]
Guidance = Annotated[float | None, typer.Option(help="Strength of classifier-free guidance, 1 for none. Default: the run's.")]
ConditionData = Annotated[
    str | None,
    typer.Option(help="Images that a model which completes or colours them starts from. Default: its training images.", show_default=False),
]
Device = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, cuda:1, mps ...")]


def resolve(model: Any, changes: dict[str, Any]) -> Any:
    """Return the sampling options of a model's run, changed, and checked against the model as a whole."""
    from amgen import config

    options = config.change(model.config.sampling, changes)
    config.change(model.config, {"sampling": options.model_dump(mode="json")})
    return options


def positive(option: str, value: int) -> None:
    """Refuse a count below 1."""
    from amgen.errors import UserError

    if value < 1:
        raise UserError(f"{option} {value}: expected at least 1")
