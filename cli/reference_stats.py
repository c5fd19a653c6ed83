"""amgen reference-stats."""

from pathlib import Path
from typing import Annotated

import typer

from .options import FEWER, Convert, Debug, Device, Resize, positive


def reference_stats(
    preset: Annotated[str, typer.Argument(help="Preset, YAML file or run directory: says what the images are and how to prepare them.")],
    features: Annotated[
        str, typer.Option(help="inception, efficientnet-lite0, digits, pixels, or a function of your own as module:callable.")
    ] = "inception",
    weights: Annotated[
        Path | None, typer.Option(help="File with the weights of the features, where they are not installed.", show_default=False)
    ] = None,
    data: Annotated[str | None, typer.Option(help="Images instead of the training images.", show_default=False)] = None,
    resize: Resize = None,
    convert: Convert = None,
    real: Annotated[
        int | None, typer.Option("--real", "-n", help="How many of the images to take. Default: all.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File (.npz) to write beside the cache, for --data of amgen eval-fid.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images looked at together.")] = 100,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Extract the features of real images ahead of amgen eval-fid. Under torchrun the processes share the work."""
    from amgen import config
    from amgen.core.errors import UserError
    from amgen.core.files import check_output
    from amgen.evaluation.arguments import check_features

    # Everything that can be wrong is looked at before anything slow is done, and before torch is loaded, which takes seconds.
    positive("--batch-size", batch_size)
    if real is not None:
        positive("--real", real)
    if out is not None and out.suffix != ".npz":
        raise UserError(f"--out {out}: expected a file name that ends in .npz")
    check_features(features)
    run = Path(preset) / "config.yaml"
    preparation = {"path": data, "resize": resize, "convert": convert}
    options = config.change(config.load(str(run) if run.is_file() else preset).images, preparation)
    check_output("--out", out)

    from amgen.core.devices import device_of
    from amgen.core.processes import Processes
    from amgen.data import open_dataset
    from amgen.evaluation.features import make_extractor
    from amgen.evaluation.reference import cache_file, reference_from_images

    processes = Processes.join(device)
    extractor = make_extractor(features, options.channels, options.size, weights, device_of(processes.device))
    dataset = open_dataset(options, print if processes.main else None)
    reference = reference_from_images(dataset, extractor, processes, real, batch_size, advice=FEWER)
    if not processes.main:
        return
    if out is not None:
        reference.write(out)
        print(f"wrote {out}")
    print(f"{reference.count:,} images of {reference.description}, features {features}, {extractor.dimension} dimensions")
    if not extractor.reproducible:
        print("not cached: the weights of such features are not known")
    elif cache_file(reference.about).is_file():
        print(f"cached in {cache_file(reference.about)}")
