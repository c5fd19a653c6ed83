"""amgen: image generators trained by Action Matching."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amgen.sampling.model import Model

__version__ = "0.1.0"
__all__ = ["load"]


def load(source: str | Path, ema: float | None = None, raw: bool = False, device: str = "auto") -> "Model":
    """Load a trained model. Torch is imported when this function is called, not with `import amgen`.

    Args:
        source: a run directory (its newest checkpoint is loaded), a checkpoint folder, or a file of `amgen export`.
        ema: rate of the averaged weights, an entry of `training.ema`; by default the first.
        raw: load the weights themselves instead of an average.
        device: a torch device such as "cuda:1", or "auto" for a GPU if there is one.

    Returns:
        An `amgen.sampling.Model`, whose methods `sample` and `generate` make images.

    Raises:
        amgen.core.errors.UserError: if there is no such checkpoint or average, or a file is damaged.

    Example:
        >>> import amgen
        >>> model = amgen.load("runs/digits")
        >>> model.sample(4).shape
        torch.Size([4, 1, 8, 8])
    """
    from amgen import sampling

    return sampling.load(source, ema, raw, device)
