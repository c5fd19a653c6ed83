"""amgen encode."""

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    BatchSize,
    Convert,
    Debug,
    Device,
    Ema,
    Guidance,
    Label,
    Raw,
    Resize,
    Rho,
    Run,
    Seed,
    Solver,
    StepGrid,
    Steps,
    Tolerance,
    number_or_word,
)


def encode(
    run: Run,
    data: Annotated[str | None, typer.Option(help="Images to encode. Default: the training images.", show_default=False)] = None,
    resize: Resize = None,
    convert: Convert = None,
    num: Annotated[int, typer.Option("--num", "-n", help="Images to encode, the first ones.")] = 64,
    out: Annotated[Path, typer.Option(help="File (.npz) for the noise, float32 (N, C, H, W), and each image's error and class.")] = Path(
        "noise.npz"
    ),
    solver: Solver = "dopri5",
    steps: Steps = None,
    step_grid: StepGrid = None,
    rho: Rho = None,
    tolerance: Tolerance = 1e-6,
    seed: Seed = 0,
    label: Label = None,
    guidance: Guidance = None,
    batch_size: BatchSize = None,
    ema: Ema = None,
    raw: Raw = False,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Carry images back to the noise that leads to them, and forth again to see what is lost.

    amgen sample --noise draws images from the noise.
    """
    from amgen import config
    from amgen.core import checks
    from amgen.core.errors import UserError
    from amgen.core.files import check_output

    checks.check_number("--num", num)
    changes = {
        "solver": solver,
        "steps": steps,
        "step_grid": step_grid,
        "rho": rho,
        "tolerance": tolerance,
        "batch_size": number_or_word(batch_size),
        "guidance": guidance,
        "noise_level": 0.0,  # the ODE, whatever the run samples with
    }
    config.change(config.SamplingConfig(), changes)
    preparation = {"path": data, "resize": resize, "convert": convert}
    config.change(config.DataConfig(), preparation)
    if out.suffix.lower() != ".npz":
        raise UserError(f"--out {out}: expected a file name that ends in .npz")
    checks.check_run(run)
    check_output("--out", out)

    from amgen.core.processes import require_single
    from amgen.data import open_dataset
    from amgen.model.classes import find_label
    from amgen.sampling import Request, describe_solver, load
    from amgen.sampling.inversion import encode_all, save_noise

    require_single("amgen encode")
    model = load(run, ema, raw, device)
    number = find_label(model.config, label)
    options = model.options(changes)
    dataset = open_dataset(config.change(model.config.images, preparation), print)
    request = Request(seed, number, options.guidance)
    encoded = list(encode_all(model, options, dataset, range(min(num, len(dataset))), request))
    rule = None if not model.config.action.classes else "given for all" if number is not None else "of each image"
    settings = {
        **model.describe(),
        **describe_solver(options),
        "NFE": max(batch.evaluations for batch in encoded),
        "guidance": options.guidance,
        "label": number,
        "classes": rule,
        "seed": seed,
        "data": dataset.source.description,
        "data_fingerprint": dataset.source.fingerprint(),
    }
    settings = {key: value for key, value in settings.items() if value is not None}
    error = save_noise(out, encoded, settings)
    print(f"wrote {out}")
    print(
        f"{len(error)} images of {dataset.source.description}: after the way back and forth at most {float(error.max()):.2g} from the "
        f"image (median over images {float(error.median()):.2g}), where a gray level is {2 / 255:.2g}"
    )
    print(model.in_words({key: value for key, value in settings.items() if not key.startswith("data")}))
