"""What to generate: the seed, the classes and the images to start from. How to generate it is in the `SamplingConfig`."""

from dataclasses import dataclass

from torch import Tensor

from amgen.core.errors import UserError
from amgen.data import ImageDataset, SnapshotDataset


@dataclass(frozen=True)
class Request:
    """What to generate, beside the indices of the images.

    Attributes:
        seed: image i is a function of (model, sampling settings, seed, i). From 0 to 2^63 - 1.
        label: class of all images; None for the class that `amgen.sampling.labels_of` finds for each.
        images: start images of an image-to-image model, or the start population of a model of points; image i starts from entry i modulo
            their number. None for a model that starts from noise.
        between: two indices (i, j). The images are then an interpolation: their noise goes from that of image i to that of image j in equal
            angles.
        count: number of images of the interpolation `between`.
        starts: points at t = 0 that replace the noise of the seed, float (N, C, H, W), such as latent codes; image i starts from entry i.
        classes: class of each of the `starts`, int64 (N,); `label` replaces them.

    Raises:
        UserError: for a seed that is negative or above 2^63 - 1.
    """

    seed: int = 0
    label: int | None = None
    images: ImageDataset | SnapshotDataset | None = None
    between: tuple[int, int] | None = None
    count: int = 0
    starts: Tensor | None = None
    classes: Tensor | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed={self.seed}: expected 0 to 2^63 - 1")
