"""amgen export."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Debug, Ema, Raw, Run


def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="The file to write, .safetensors.")] = Path("model.safetensors"),
    ema: Ema = None,
    raw: Raw = False,
    debug: Debug = False,
) -> None:
    """Write one set of weights as a single file that amgen.load and amgen sample open; its configuration is inside."""
    from amgen.core import checks
    from amgen.core.files import check_output

    checks.check_export(out)
    checks.check_run(run)
    check_output("--out", out)

    from amgen.core.processes import require_single
    from amgen.model import checkpoints

    require_single("amgen export")
    weights = checkpoints.read_weights(run, ema, raw)
    checkpoints.export(weights, out)
    count = sum(tensor.numel() for tensor in weights.tensors.values())
    print(
        f"wrote {out}: {weights.name} of {weights.source}, SHA-256 {weights.sha256[:12]}, {weights.images:,} images of training, "
        f"{count:,} parameters"
    )
