"""amgen encode."""

from pathlib import Path
from typing import Annotated

import typer

from .options import BatchSize, Debug, Device, Ema, Label, Raw, Run, Seed, Solver, StepGrid, Steps, Tolerance, number_or_word, positive


def encode(
    run: Run,
    data: Annotated[str | None, typer.Option(help="Images to encode. Default: the training images.", show_default=False)] = None,
    num: Annotated[int, typer.Option("--num", "-n", help="Images to encode, the first ones.")] = 64,
    out: Annotated[Path, typer.Option(help="File for the noise, float32 (N, C, H, W), and each image's error.")] = Path("noise.npz"),
    solver: Solver = "dopri5",
    steps: Steps = None,
    step_grid: StepGrid = None,
    tolerance: Tolerance = 1e-6,
    seed: Seed = 0,
    label: Label = None,
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
    from amgen.data import open_dataset
    from amgen.output import save_noise
    from amgen.processes import require_single
    from amgen.sampling import Request, describe_solver, load
    from amgen.trajectory import encode_all

    require_single("amgen encode")
    positive("--num", num)
    changes = {
        "solver": solver,
        "steps": steps,
        "step_grid": step_grid,
        "tolerance": tolerance,
        "batch_size": number_or_word(batch_size),
        "noise_level": 0.0,  # the ODE, whatever the run samples with
    }
    config.change(config.SamplingConfig(), changes)
    model = load(run, ema, raw, device)
    options = model.options(changes)
    dataset = open_dataset(config.change(model.config.images, {"path": data}))
    request = Request(seed, label, images=dataset if model.path.guided else None)
    encoded = list(encode_all(model, options, dataset, range(min(num, len(dataset))), request))
    error = save_noise(out, encoded)
    print(f"wrote {out}")
    print(
        f"{len(error)} images of {dataset.source.description}: after the way back and forth at most {float(error.max()):.2g} from the "
        f"image (median over images {float(error.median()):.2g}), where a gray level is {2 / 255:.2g}"
    )
    settings = {**model.describe(), **describe_solver(options), "NFE": max(batch.evaluations for batch in encoded)}
    print(", ".join(f"{key} {value}" for key, value in settings.items()))
