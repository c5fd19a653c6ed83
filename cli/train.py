"""amgen train."""

from pathlib import Path
from typing import Annotated

import typer

from . import terminal
from .options import Debug


def train(
    preset: Annotated[
        str, typer.Argument(help="Preset, such as digits or cifar10-small (a wrong name lists them all), or path of a .yaml file.")
    ] = "digits",
    run_dir: Annotated[
        str | None, typer.Option(metavar="PATH", help="Folder of the run. Default: runs/ and the preset's name.", show_default=False)
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change an option, e.g. training.images=2000. Repeatable."),
    ] = None,
    compile_loss: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the whole loss: training.compile.", show_default=False)
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="auto|cpu", help="Where to compute: training.device.", show_default=False)] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Delete the contents of the run directory and start over.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved options, the parameter count and the steps; train nothing.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Train a model. The same command resumes a run that was stopped."""
    from amgen import config
    from amgen.core.errors import UserError

    if run_dir is not None and not run_dir.strip():
        raise UserError(f"--run-dir {run_dir!r}: expected the name of a folder")
    named = {"training.compile": None if compile_loss is None else str(compile_loss).lower(), "training.device": device}
    changes = [*(overrides or []), *(f"{key}={value}" for key, value in named.items() if value is not None)]
    options = config.load(preset, changes, terminal.note)
    if dry_run:
        _describe(options)
        return
    from amgen.training.main import train

    train(options, Path(run_dir or Path("runs", Path(preset).stem)), restart)


def _describe(options: "config.Config") -> None:  # type: ignore[name-defined] # noqa: F821
    import math

    import torch

    from amgen.model.build import build_action

    with torch.device("meta"):
        action = build_action(options)
    training = options.training
    print(options.to_yaml(), end="")
    print(f"# {sum(parameter.numel() for parameter in action.parameters()):,} parameters")
    print(f"# {math.ceil(training.images / training.batch_size):,} steps of {training.batch_size} images, all processes together")
