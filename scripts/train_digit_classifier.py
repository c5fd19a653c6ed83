"""Train the classifier behind the `digits` features and write amgen/evaluation/features/digits.safetensors.

Usage: python scripts/train_digit_classifier.py

It first trains on four fifths of the images and prints the accuracy on the rest. The weights that ship are then trained on all images.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from amgen.config import DataConfig
from amgen.data import open_dataset, to_float
from amgen.evaluation.features.digits import WEIGHTS, DigitClassifier, accuracy, training_loss

OUTPUT = Path(__file__).parent.parent / "amgen" / "evaluation" / "features" / WEIGHTS
EPOCHS, BATCH = 60, 64


def fit(images: Tensor, labels: Tensor) -> DigitClassifier:
    """Train from scratch, on images jittered by noise so that features vary smoothly."""
    torch.manual_seed(0)
    classifier = DigitClassifier()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=1e-2)
    steps = EPOCHS * len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(len(images), (BATCH,))
        noisy = images[chosen] + 0.1 * torch.randn(BATCH, *images.shape[1:])
        optimizer.zero_grad()
        training_loss(classifier, noisy, labels[chosen]).backward()
        optimizer.step()
        schedule.step()
    return classifier


def main() -> None:
    """Report the accuracy of a held-out fit, then write the weights of a fit to all images."""
    dataset = open_dataset(DataConfig())
    images, labels = to_float(dataset.images(range(len(dataset)))), dataset.labels
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, test = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
    held_out = accuracy(fit(images[train], labels[train]), images[test], labels[test])
    print(f"trained on {len(train)}: accuracy {held_out:.4f} on {len(test)} others")
    classifier = fit(images, labels)
    save_file(classifier.state_dict(), OUTPUT)
    print(f"trained on all: accuracy {accuracy(classifier, images, labels):.4f}; wrote {OUTPUT}")


if __name__ == "__main__":
    main()
