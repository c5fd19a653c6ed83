"""What to generate: seed, class, images to start from."""

from dataclasses import dataclass

from torch import Tensor

from amgen.core.errors import UserError
from amgen.data import ImageDataset, SnapshotDataset


@dataclass(frozen=True)
class Request:
    """What to generate.

    Attributes:
        seed: image i is a function of (model, solver, seed, i).
        label: class to draw; by default that of the image that it is made from, or i modulo the number of classes (`amgen.labels`).
        guidance: strength of classifier-free guidance, 1 for none.
        images: images that a model which completes or colours them starts from, or the population; image i modulo their number.
        noise_level: G of the SDE with g(t) = G sqrt(a_t) and the marginals of balanced dynamics; 0 for the ODE.
        between: indices of two images; the ones drawn then lie between them, their noise turned from one to the other in equal angles.
        count: how many images `between` is divided into.
        starts: points at t = 0 in place of the seed's, float (N, C, H, W), as encoding gives them; image i starts from entry i.
        classes: classes that belong to `starts`, int64 (N,), unless `label` says otherwise.

    Raises:
        UserError: for a seed that is negative or beyond 63 bits.
    """

    seed: int = 0
    label: int | None = None
    guidance: float = 1.0
    images: ImageDataset | SnapshotDataset | None = None
    noise_level: float = 0.0
    between: tuple[int, int] | None = None
    count: int = 0
    starts: Tensor | None = None
    classes: Tensor | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed={self.seed}: expected 0 to 2^63 - 1")
