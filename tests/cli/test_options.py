"""Options that commands share: declared once, alike in every command, and refused where the solver does not use them."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from helpers import run_cli

from amgen_cli.app import app
from amgen_cli.options import RuntimeOptions, grouped

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
SAMPLING = ["solver", "steps", "step_grid", "rho", "tolerance", "batch_size"]
OPTIONS = {
    "sample": [*SAMPLING, "noise_level", "guidance", "ema", "raw", "resize", "convert", "device", "debug", "seed", "label"],
    "encode": [*SAMPLING, "guidance", "ema", "raw", "resize", "convert", "device", "debug", "seed", "label"],
    "eval-fid": [*SAMPLING, "noise_level", "guidance", "ema", "raw", "resize", "convert", "device", "debug", "seed", "label"],
    "eval-bpd": [*SAMPLING, "ema", "raw", "resize", "convert", "device", "debug", "seed"],
    "reference-stats": ["resize", "convert", "device", "debug", "features", "weights"],
    "export": ["ema", "raw", "debug"],
}


@dataclass(frozen=True)
class Shapes:
    width: Annotated[int, typer.Option(help="Pixels.")] = 3
    name: Annotated[str | None, typer.Option("--called")] = None


def test_a_group_is_its_options() -> None:
    """In their place on the command line, with their defaults; the command gets one object of each group."""
    found: list[object] = []

    @grouped
    def command(run: str, *, shapes: Shapes, count: int = 1, runtime: RuntimeOptions) -> None:
        """A command."""
        found.append((run, shapes, count, runtime))

    assert list(inspect.signature(command).parameters) == ["run", "width", "name", "count", "device", "debug"]
    application = typer.Typer()
    application.command()(command)
    run = typer.main.get_command(application)
    run.main(["r", "--called", "x", "--count", "2"], standalone_mode=False)
    run.main(["r", "--width", "7", "--device", "cpu"], standalone_mode=False)
    assert found == [("r", Shapes(3, "x"), 2, RuntimeOptions()), ("r", Shapes(7), 1, RuntimeOptions("cpu"))]


def test_shared_options_are_alike_in_every_command() -> None:
    """They have one meaning; only the solver and its tolerance have defaults of a command's own."""
    described: dict[str, tuple[object, ...]] = {}
    for command, names in OPTIONS.items():
        parameters = {parameter.name: parameter for parameter in COMMANDS[command].params}
        assert parameters.keys() >= set(names), command
        for name in names:
            option = parameters[name]
            found: tuple[object, ...] = (option.opts, option.secondary_opts)
            found += () if name in ("solver", "tolerance") or command == "reference-stats" else (option.help, option.default)
            assert described.setdefault(f"{name}{len(found)}", found) == found, (command, name)
    defaults = {command: {entry.name: entry.default for entry in COMMANDS[command].params} for command in OPTIONS}
    assert [defaults[command]["solver"] for command in ("sample", "encode", "eval-fid", "eval-bpd")] == [None, "dopri5", None, "dopri5"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "--tolerance", "1e-3"], "--tolerance 0.001: the solver ab2 takes a fixed number of --steps: leave it out"),
        (["sample", "--solver", "heun", "--tolerance", "1e-3"], "--tolerance 0.001: the solver heun takes a fixed number of --steps"),
        (["sample", "--solver", "dopri5", "--steps", "3"], "--steps 3: the solver dopri5 chooses its own steps by --tolerance"),
        (["sample", "--rho", "3"], "--rho 3.0: it is the exponent of --step-grid polynomial, and the steps are uniform"),
        (["encode", "--steps", "3"], "--steps 3: the solver dopri5 chooses its own steps by --tolerance"),
        (["encode", "--solver", "heun", "--tolerance", "1e-3"], "--tolerance 0.001: the solver heun takes a fixed number of --steps"),
    ],
)
def test_settings_that_the_solver_does_not_use_are_refused(arguments: list[str], message: str, trained: Path, tmp_path: Path) -> None:
    """Of the run's solver as of one that is asked for, before anything is written."""
    option = "--grid" if arguments[0] == "sample" else "--out"
    file = tmp_path / ("g.png" if arguments[0] == "sample" else "n.npz")
    outcome = run_cli(arguments[0], trained, *arguments[1:], option, file)
    assert (outcome.code, message in outcome.err, outcome.err.count("\n")) == (2, True, 1), outcome.err
    assert list(tmp_path.iterdir()) == []
