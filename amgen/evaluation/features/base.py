"""The base class of feature extractors."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor


class FeatureExtractor(ABC):
    """Maps images to feature vectors. `make_extractor` returns one by its name.

    Attributes:
        name: the value of `--features`.
        distance_name: what the Fréchet distance on these features is called, such as "FID" or "FD (pixels)".
        dimension: length of a feature vector.
        preparation: how images are resized and converted for the network, as text.
        checksum: SHA-256 of the weights, hexadecimal; empty for extractors without weights.
        reproducible: whether name, preparation and checksum determine the features. If so, features may be cached.
    """

    name: str
    distance_name: str
    preparation: str
    dimension: int
    checksum: str
    reproducible: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of images.

        Args:
            images: uint8, (B, C, H, W), on any device.

        Returns:
            float32, (B, dimension), on the CPU.
        """

    def check(self, channels: int, size: int) -> None:  # noqa: B027 -- most extractors take any image
        """Check that the extractor accepts images of `channels` and `size` x `size` pixels.

        Raises:
            UserError: if it does not.
        """

    def logits(self, features: Tensor) -> Tensor | None:
        """Return the class logits of the network, float, (B, classes), computed from its features (B, dimension).

        Returns None if the network has no classes.
        """
        return None

    @property
    def suffix(self) -> str:
        """The end of a score's name that tells the features, such as " (pixels)"; empty for Inception-v3, the standard choice."""
        return "" if self.distance_name == "FID" else self.distance_name.removeprefix("FD")

    def score_name(self, name: str) -> str:
        """Return the name of a score on these features, such as "KID" for Inception-v3 and "KID (pixels)" for pixels."""
        return name + self.suffix

    def describe(self) -> dict[str, Any]:
        """Return the description of the features for reports and cache keys."""
        return {
            "name": self.name,
            "dimension": self.dimension,
            "preparation": self.preparation,
            "sha256": self.checksum,
        }


def as_rgb(images: Tensor) -> Tensor:
    """Repeat the channel of gray images (B, 1, H, W) three times; return RGB images unchanged."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
