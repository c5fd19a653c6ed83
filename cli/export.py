"""amgen export."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Debug, Run, WeightsOptions, check_outputs, grouped


@grouped
def export(
    run: Run,
    *,
    out: Annotated[Path, typer.Option(help="The file to write, .safetensors.")] = Path("model.safetensors"),
    weights: WeightsOptions,
    debug: Debug = False,
) -> None:
    """Write one set of weights as a single file that amgen.load and amgen sample open; its configuration is inside."""
    from amgen.core import checks

    checks.check_export(out)
    checks.check_run(run)
    check_outputs({"--out": out})

    from amgen.core.processes import require_single
    from amgen.model import export

    require_single("amgen export")
    found = export.read_weights(run, weights.ema, weights.raw)
    export.export(found, out)
    count = sum(tensor.numel() for tensor in found.tensors.values())
    origin = f"{found.name} of {found.source}, SHA-256 {found.sha256[:12]}, {found.images:,} images of training"
    print(f"wrote {out}: {origin}, {count:,} parameters")
