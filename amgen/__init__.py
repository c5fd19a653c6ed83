"""amgen: image generators trained by Action Matching."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amgen.sampling.model import Model

__version__ = "0.1.0"
__all__ = ["load"]


def load(source: str | Path, ema: float | None = None, raw: bool = False, device: str = "auto") -> "Model":
    """Load a trained model from a run, a checkpoint or an exported file; see `amgen.sampling.load`. Torch is imported when called."""
    from amgen import sampling

    return sampling.load(source, ema, raw, device)
