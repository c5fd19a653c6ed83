"""amgen reference-stats."""

from pathlib import Path
from typing import Annotated

import typer

from .options import FEWER, FeatureOptions, PreparationOptions, RuntimeOptions, check_outputs, check_positive, grouped


@grouped
def reference_stats(
    preset: Annotated[str, typer.Argument(help="Preset, YAML file or run directory: says what the images are and how to prepare them.")],
    *,
    features: FeatureOptions,
    data: Annotated[str | None, typer.Option(help="Images instead of the training images.", show_default=False)] = None,
    real: Annotated[int | None, typer.Option("--real", "-n", help="Number of images to take. Default: all.", show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option(help="File (.npz) to write beside the cache, for --data of amgen eval-fid.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images in a batch.")] = 100,
    preparation: PreparationOptions,
    runtime: RuntimeOptions,
) -> None:
    """Extract the features of real images ahead of amgen eval-fid. Under torchrun the processes share the work."""
    from amgen import config
    from amgen.core.errors import UserError

    # Options are checked before torch is loaded, which takes seconds.
    check_positive({"--batch-size": batch_size, "--real": real})
    if out is not None and out.suffix != ".npz":
        raise UserError(f"--out {out}: expected a file name that ends in .npz")
    features.check()
    run = Path(preset) / "config.yaml"
    trained = config.load(str(run) if run.is_file() else preset).images
    options = config.change(trained, {"path": data, **preparation.changes()})
    check_outputs({"--out": out})

    from amgen.core.devices import device_of
    from amgen.core.processes import Processes
    from amgen.data import open_dataset
    from amgen.evaluation.reference import cache_file, reference_from_images

    processes = Processes.join(runtime.device)
    extractor = features.extractor(options.channels, options.size, device_of(processes.device))
    dataset = open_dataset(options, print if processes.main else None)
    reference = reference_from_images(dataset, extractor, processes, real, batch_size, advice=FEWER)
    if not processes.main:
        return
    if out is not None:
        reference.write(out)
        print(f"wrote {out}")
    print(f"{reference.count:,} images of {reference.description}, features {features.features}, {extractor.dimension} dimensions")
    if not extractor.reproducible:
        print("not cached: the weights of such features are not known")
    elif cache_file(reference.about).is_file():
        print(f"cached in {cache_file(reference.about)}")
