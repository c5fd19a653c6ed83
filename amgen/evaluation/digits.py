"""A small classifier of the embedded 8x8 digits, whose hidden layer serves as features for their Fréchet distance."""

from importlib import resources

import torch
from safetensors.torch import load
from torch import Tensor, nn

WEIGHTS = "digits.safetensors"


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
    """Return the shipped weights as a safetensors file."""
    return resources.files("amgen.evaluation").joinpath(WEIGHTS).read_bytes()


def pretrained() -> DigitClassifier:
    """Return the classifier with the shipped weights (made by scripts/train_digit_classifier.py)."""
    classifier = DigitClassifier()
    classifier.load_state_dict(load(weights_bytes()))
    return classifier.eval().requires_grad_(False)


def training_loss(classifier: DigitClassifier, images: Tensor, labels: Tensor) -> Tensor:
    """Return the label-smoothed cross entropy that the weights are trained with."""
    return nn.functional.cross_entropy(classifier(images), labels, label_smoothing=0.05)


def accuracy(classifier: DigitClassifier, images: Tensor, labels: Tensor) -> float:
    """Return the share of images classified as labelled."""
    with torch.no_grad():
        return (classifier(images).argmax(dim=1) == labels).double().mean().item()
