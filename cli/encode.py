"""amgen encode."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from .options import (
    SAMPLING,
    AccurateSolverOptions,
    Guidance,
    Label,
    PreparationOptions,
    Run,
    RuntimeOptions,
    Seed,
    WeightsOptions,
    check_outputs,
    grouped,
)

if TYPE_CHECKING:
    from amgen.config import SamplingConfig
    from amgen.data import ImageDataset
    from amgen.sampling import Model, Request
    from amgen.sampling.inversion import Encoded


@dataclass(frozen=True)
class EncoderOptions(AccurateSolverOptions):
    """How images are encoded."""

    TOLERANCE: ClassVar[float] = 1e-6

    tolerance: Annotated[
        float | None,
        typer.Option(help=f"Tolerance of an adaptive solver. Default: {TOLERANCE:g}.", show_default=False, rich_help_panel=SAMPLING),
    ] = None
    guidance: Guidance = None

    def changes(self) -> dict[str, Any]:
        """Return the sampling settings that differ from the run's; only the ODE has latent codes."""
        return {**super().changes(), "noise_level": 0.0}


@grouped
def encode(
    run: Run,
    *,
    data: Annotated[str | None, typer.Option(help="Images to encode. Default: the training images.", show_default=False)] = None,
    num: Annotated[int, typer.Option("--num", "-n", help="Number of images to encode, the first ones.")] = 64,
    seed: Seed = 0,
    label: Label = None,
    out: Annotated[Path, typer.Option(help="File (.npz) for the noise, float32 (N, C, H, W), and each image's error and class.")] = Path(
        "noise.npz"
    ),
    sampler: EncoderOptions,
    preparation: PreparationOptions,
    weights: WeightsOptions,
    runtime: RuntimeOptions,
) -> None:
    """Encode images as noise, by the ODE from the images back to t = 0, and decode them again to measure the error.

    amgen sample --noise decodes the noise.
    """
    from amgen import config
    from amgen.core import checks
    from amgen.core.errors import UserError

    checks.check_number("--num", num)
    sampler.check()
    preparation.check()
    if out.suffix.lower() != ".npz":
        raise UserError(f"--out {out}: expected a file name that ends in .npz")
    checks.check_run(run)
    check_outputs({"--out": out})

    from amgen.core.processes import require_single
    from amgen.data import open_dataset
    from amgen.model.classes import find_label
    from amgen.sampling import Request
    from amgen.sampling.codes import save_codes
    from amgen.sampling.inversion import encode_all

    require_single("amgen encode")
    model = weights.load(run, runtime.device)
    request = Request(seed, find_label(model.config, label))
    options = model.options(sampler.changes())
    dataset = open_dataset(config.change(model.config.images, {"path": data, **preparation.changes()}), print)
    encoded = list(encode_all(model, options, dataset, range(min(num, len(dataset))), request))
    settings = _describe(model, options, request, dataset, encoded)
    error = save_codes(out, encoded, settings)
    print(f"wrote {out}")
    print(
        f"{len(error)} images of {dataset.source.description}: after encoding and decoding at most {float(error.max()):.2g} from the "
        f"image (median over images {float(error.median()):.2g}), where a gray level is {2 / 255:.2g}"
    )
    print(model.in_words({key: value for key, value in settings.items() if not key.startswith("data")}))


def _describe(
    model: "Model", options: "SamplingConfig", request: "Request", dataset: "ImageDataset", encoded: "list[Encoded]"
) -> dict[str, Any]:
    """Return the settings that the noise depends on, for its file."""
    from amgen.sampling import describe_solver

    settings = {
        **model.describe(),
        **describe_solver(options),
        "NFE": max(batch.evaluations for batch in encoded),
        "guidance": options.guidance,
        "label": request.label,
        "classes": None if not model.config.action.classes else "of each image" if request.label is None else "given for all",
        "seed": request.seed,
        "data": dataset.source.description,
        "data_fingerprint": dataset.source.fingerprint(),
    }
    return {key: value for key, value in settings.items() if value is not None}
