"""Options that several commands share. Each is declared once, here; those that belong together are a group.

A group is a dataclass whose fields are options. A command that is `grouped` takes a group as one parameter:

    @grouped
    def export(run: Run, *, weights: WeightsOptions, debug: Debug = False) -> None:

has the options --ema, --raw and --debug. A default of None stands for the setting of the run.
"""

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args, get_type_hints

import typer

from amgen.core.names import ADAPTIVE_SOLVERS, FIXED_STEP_SOLVERS, SDE_SOLVERS, StepGridName

if TYPE_CHECKING:
    import torch

    from amgen.evaluation.features import FeatureExtractor
    from amgen.sampling import Model

SAMPLING, PREPARATION, WEIGHTS = "Sampling settings", "Preparation of images", "Weights of the model"
"""Panels of --help."""

FEWER = "--real N takes fewer"
"""Advice of the commands that extract the features of real images."""


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose groups of options are replaced by their options, as Typer reads them from the signature."""
    signature = inspect.signature(command, eval_str=True)
    entries = signature.parameters
    groups: dict[str, Any] = {name: entry.annotation for name, entry in entries.items() if is_dataclass(entry.annotation)}
    parameters: list[inspect.Parameter] = []
    for name, entry in entries.items():
        parameters += _options_of(groups[name]) if name in groups else [entry]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        made = {name: group(**{option.name: values.pop(option.name) for option in fields(group)}) for name, group in groups.items()}
        command(**values, **made)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _options_of(group: type[Any]) -> list[inspect.Parameter]:
    """Return the options of a group as parameters."""
    types = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=types[option.name])
        for option in fields(group)
    ]


def _debug(value: bool) -> bool:
    if value:
        os.environ["AMGEN_DEBUG"] = "1"
    return value


def debug_requested() -> bool:
    """Tell whether errors are to be shown with their traceback."""
    return os.environ.get("AMGEN_DEBUG", "") not in ("", "0")


Debug = Annotated[bool, typer.Option("--debug", callback=_debug, is_eager=True, help="Show errors with their traceback.")]
Run = Annotated[Path, typer.Argument(help="Run directory (its newest checkpoint), checkpoint folder or exported file.", show_default=False)]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Image i is a function of this seed and i, 0 to 2^63 - 1.")]
Label = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|NUMBER",
        help="Class of all images, by name (tried first) or number. Default: the class of each start image, or the classes in turn.",
        show_default=False,
    ),
]
ConditionData = Annotated[
    str | None,
    typer.Option(help="Start images of a model that completes or colours images. Default: its training images.", show_default=False),
]
Json = Annotated[Path | None, typer.Option("--json", help="File for the report. Default: in the run's eval/.", show_default=False)]
Guidance = Annotated[
    float | None, typer.Option(help="Strength of classifier-free guidance, 1 for none. Default: the run's.", rich_help_panel=SAMPLING)
]
ODE_SOLVERS = f"{', '.join(FIXED_STEP_SOLVERS)}; adaptive: {', '.join(ADAPTIVE_SOLVERS)}"


@dataclass(frozen=True)
class RuntimeOptions:
    """Where a command computes, and how it shows errors."""

    device: Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda, cuda:1, mps ...")] = "auto"
    debug: Debug = False


@dataclass(frozen=True)
class SolverOptions:
    """The solver of an ODE."""

    solver: Annotated[str | None, typer.Option(help=f"{ODE_SOLVERS}. Default: the run's.", rich_help_panel=SAMPLING)] = None
    steps: Annotated[int | None, typer.Option(help="Steps of a fixed-step solver. Default: the run's.", rich_help_panel=SAMPLING)] = None
    step_grid: Annotated[
        str | None, typer.Option(help=f"Steps: {', '.join(get_args(StepGridName))}. Default: the run's.", rich_help_panel=SAMPLING)
    ] = None
    rho: Annotated[
        float | None,
        typer.Option(
            help="Exponent of the polynomial grid; above 1, short steps near the data. Default: the run's.", rich_help_panel=SAMPLING
        ),
    ] = None
    tolerance: Annotated[
        float | None, typer.Option(help="Tolerance of an adaptive solver. Default: the run's.", rich_help_panel=SAMPLING)
    ] = None
    batch_size: Annotated[
        str | None,
        typer.Option(
            metavar="auto|N",
            help="Images in a batch; auto: as many as fit into memory and gain speed. Default: the run's.",
            rich_help_panel=SAMPLING,
        ),
    ] = None

    def given(self) -> dict[str, Any]:
        """Return the sampling settings that the user gave, by name; None for the others."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        return {**values, "batch_size": number_or_word(self.batch_size)}

    def changes(self) -> dict[str, Any]:
        """Return the sampling settings that differ from the run's, by name; None keeps that of the run."""
        return self.given()

    def check(self, combinations: Sequence[Mapping[str, Any]] = ({},), model: "Model | None" = None) -> None:
        """Refuse settings that do not exist or that the solver does not use.

        Args:
            combinations: settings of a sweep, each of which is used together with these.
            model: the model; before it is loaded, what depends on the settings of its run is not checked.
        """
        from amgen.evaluation.arguments import check_settings

        check_settings(self.given(), combinations, None if model is None else model.config.sampling)


@dataclass(frozen=True)
class SamplerOptions(SolverOptions):
    """How images are generated."""

    solver: Annotated[
        str | None,
        typer.Option(help=f"{ODE_SOLVERS}; for SDEs: {', '.join(SDE_SOLVERS)}. Default: the run's.", rich_help_panel=SAMPLING),
    ] = None
    noise_level: Annotated[
        float | None,
        typer.Option(
            help="Sample by an SDE with g(t) = G sqrt(a_t) and the same marginals, from balanced dynamics on a Gaussian path. "
            "Default: the run's.",
            rich_help_panel=SAMPLING,
        ),
    ] = None
    guidance: Guidance = None


@dataclass(frozen=True)
class AccurateSolverOptions(SolverOptions):
    """The solver of an ODE with a small error: adaptive by default, whatever the run uses."""

    TOLERANCE: ClassVar[float] = 1e-5

    solver: Annotated[str | None, typer.Option(help=f"{ODE_SOLVERS}.", rich_help_panel=SAMPLING)] = "dopri5"
    tolerance: Annotated[
        float | None,
        typer.Option(help=f"Tolerance of an adaptive solver. Default: {TOLERANCE:g}.", show_default=False, rich_help_panel=SAMPLING),
    ] = None

    def changes(self) -> dict[str, Any]:
        """Return the sampling settings that differ from the run's, by name; the tolerance is never the run's."""
        return {**self.given(), "tolerance": self.TOLERANCE if self.tolerance is None else self.tolerance}


@dataclass(frozen=True)
class PreparationOptions:
    """How images are prepared for a model."""

    resize: Annotated[
        str | None,
        typer.Option(
            metavar="forbid|crop|stretch",
            help="What to do with images of another size than the model's. Default: as the run does.",
            rich_help_panel=PREPARATION,
        ),
    ] = None
    convert: Annotated[
        bool | None,
        typer.Option(
            "--convert/--no-convert",
            help="Convert gray images to RGB, or RGB to gray, for the model. Default: as the run does.",
            rich_help_panel=PREPARATION,
        ),
    ] = None

    def changes(self) -> dict[str, Any]:
        """Return the options of the section `data` that differ from the run's, by name; None keeps that of the run."""
        return {"resize": self.resize, "convert": self.convert}

    def check(self) -> None:
        """Refuse unknown values."""
        from amgen import config

        config.change(config.DataConfig(), self.changes())


def _one_choice_of_weights(context: typer.Context, value: object) -> object:
    """Refuse --raw beside --ema; Typer calls this for both, and the second one sees the first."""
    from amgen.core.errors import UserError

    if value and any(context.params.get(name) for name in ("ema", "raw")):
        raise UserError("--raw and --ema each say which weights to use: give one of them")
    return value


@dataclass(frozen=True)
class WeightsOptions:
    """Which weights of a run are used."""

    ema: Annotated[
        float | None,
        typer.Option(
            callback=_one_choice_of_weights,
            help="Averaged weights to use: an entry of training.ema, such as 22200 or 0.998. Default: the run's first.",
            rich_help_panel=WEIGHTS,
        ),
    ] = None
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", callback=_one_choice_of_weights, help="Use the weights themselves instead of an average.", rich_help_panel=WEIGHTS
        ),
    ] = False

    def load(self, run: Path, device: str) -> "Model":
        """Load these weights of a run, a checkpoint or an exported file."""
        from amgen.sampling import load

        return load(run, self.ema, self.raw, device)


@dataclass(frozen=True)
class FeatureOptions:
    """The features of images that distances are measured on."""

    features: Annotated[
        str, typer.Option(help="inception (for the FID), efficientnet-lite0, digits, pixels, or a function of your own as module:callable.")
    ] = "inception"
    weights: Annotated[
        Path | None, typer.Option(help="File with the weights of the features, if they are not installed.", show_default=False)
    ] = None

    def check(self) -> None:
        """Refuse features of an unknown name."""
        from amgen.evaluation.arguments import check_features

        check_features(self.features)

    def extractor(self, channels: int, size: int, device: "torch.device") -> "FeatureExtractor":
        """Return the feature extractor for images with these channels and of this size."""
        from amgen.evaluation.features import make_extractor

        return make_extractor(self.features, channels, size, self.weights, device)


def number_or_word(text: str | None) -> int | str | None:
    """Read a batch size; a text that is neither a number nor auto is left for the configuration to refuse."""
    return int(text) if text is not None and _natural(text) else text


def _natural(text: str) -> bool:
    """Tell whether a text is a natural number of at most 18 digits."""
    return text.isascii() and text.isdecimal() and len(text) <= 18


def check_positive(counts: Mapping[str, int | None]) -> None:
    """Refuse counts below 1, by the name of their option."""
    from amgen.core.errors import UserError

    for option, value in counts.items():
        if value is not None and value < 1:
            raise UserError(f"{option} {value}: expected at least 1")


def check_outputs(files: Mapping[str, Path | None]) -> None:
    """Refuse files that cannot be written, by the name of their option."""
    from amgen.core.files import check_output

    for option, file in files.items():
        check_output(option, file)
