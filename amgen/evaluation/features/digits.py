"""Features of the embedded 8x8 digits: the hidden layer of a small classifier, which comes with the package."""

import hashlib
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn

from amgen.core.errors import UserError
from amgen.data import to_float
from amgen.evaluation.features.base import FeatureExtractor
from amgen.evaluation.features.weights import check_no_weights

WEIGHTS = "digits.safetensors"
"""File beside this module, written by scripts/train_digit_classifier.py."""


class DigitClassifier(nn.Module):
    """Two convolutions and two linear layers; input (B, 1, 8, 8) in [-1, 1]."""

    FEATURES = 64

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, self.FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(self.FEATURES, 10)

    def features(self, images: Tensor) -> Tensor:
        """Return the hidden layer, (B, 64), non-negative."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the ten digits, (B, 10)."""
        return self.head(self.features(images))


def weights_bytes() -> bytes:
    """Return the contents of the weights file."""
    return resources.files("amgen.evaluation.features").joinpath(WEIGHTS).read_bytes()


def pretrained() -> DigitClassifier:
    """Return the classifier with the weights of the package, frozen and in evaluation mode."""
    classifier = DigitClassifier()
    classifier.load_state_dict(load(weights_bytes()))
    return classifier.eval().requires_grad_(False)


def training_loss(classifier: DigitClassifier, images: Tensor, labels: Tensor) -> Tensor:
    """Return the training loss of the classifier: cross entropy with label smoothing 0.05, a scalar."""
    return nn.functional.cross_entropy(classifier(images), labels, label_smoothing=0.05)


def accuracy(classifier: DigitClassifier, images: Tensor, labels: Tensor) -> float:
    """Return the fraction of images that are classified correctly, from 0 to 1."""
    with torch.no_grad():
        return (classifier(images).argmax(dim=1) == labels).double().mean().item()


class DigitFeatures(FeatureExtractor):
    """The hidden layer of `DigitClassifier`, 64 numbers, for gray 8x8 images."""

    name, distance_name = "digits", "FD (digits features)"
    preparation = "none"
    dimension = DigitClassifier.FEATURES

    def __init__(self, weights: Path | None, device: torch.device):
        check_no_weights(self.name, weights)
        self.device = device
        self.network = pretrained().to(device)
        self.checksum = hashlib.sha256(weights_bytes()).hexdigest()

    def check(self, channels: int, size: int) -> None:
        """Accept gray 8x8 images only."""
        if (channels, size) != (1, 8):
            raise UserError(f"features=digits score gray 8x8 images, not {channels}x{size}x{size}: choose other features")

    def __call__(self, images: Tensor) -> Tensor:
        """Return the hidden layer, (B, 64)."""
        with torch.no_grad():
            return self.network.features(to_float(images.to(self.device))).cpu()

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits of the ten digits, (B, 10)."""
        return self.network.head(features.to(self.device)).cpu()
