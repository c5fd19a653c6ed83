"""What samples are conditioned on: one rule for the class of each, and the images that a model starts from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from amgen.config import Config, change
from amgen.core.errors import UserError
from amgen.data import ImageDataset, SnapshotDataset, open_dataset
from amgen.model.classes import check_label, class_numbers
from amgen.model.trained import TrainedAction


def labels_of(
    config: Config,
    indices: Sequence[int],
    label: int | None = None,
    images: ImageDataset | SnapshotDataset | None = None,
    given: Tensor | None = None,
    between: tuple[int, int] | None = None,
) -> Tensor | None:
    """Return the class of each image, int64 (B,); None for a model without classes.

    The class of image i is `label` where one is asked for; else the one given for it; else that of the image that it is made from; else i
    modulo the number of classes.

    Args:
        config: configuration of the model.
        indices: which images.
        label: the class of all of them.
        images: images that the model starts from or that are encoded; image i belongs to entry i modulo their number.
        given: classes that belong to given points at t = 0, int64 (N,); image i has entry i.
        between: images between two of these indices are of the class of the first.

    Raises:
        UserError: if the model has no such class, or the images have other classes.
    """
    classes = config.action.classes
    if label is not None:
        check_label(config, label)
    if not classes:
        return None
    if label is not None:
        return torch.full((len(indices),), label)
    if given is not None:
        return given[torch.as_tensor(indices)]
    if isinstance(images, ImageDataset):
        numbers = class_numbers(config, images)
        return numbers[images.labels[[images.readable(index % len(images)) for index in indices]]]
    if between is not None:
        return torch.full((len(indices),), between[0] % classes)
    return torch.tensor([index % classes for index in indices])


def start_images(
    model: TrainedAction, path: str | None, say: Callable[[str], None] | None = None, preparation: Mapping[str, Any] | None = None
) -> ImageDataset | SnapshotDataset | None:
    """Open the images that a model which completes or colours them starts from, or the population: at `path`, by default the training data.

    Args:
        model: the model.
        path: a folder, zip or data set of images, or a table of points.
        say: takes lines that say what of them is not taken as it is; None for no such lines.
        preparation: options of the section `data` that bring them into the model's form, such as `resize`, where they are not the run's.

    Raises:
        UserError: if the model starts from noise alone, or the images cannot be opened.
    """
    if model.path.conditional:
        return open_dataset(change(model.config.data, {"path": path, **(preparation or {})}), say)
    if path is not None:
        raise UserError(f"this model starts from noise alone: it has no use for the images {path}")
    return None


def conditions(model: TrainedAction, images: ImageDataset | SnapshotDataset | None, indices: Sequence[int]) -> Tensor | None:
    """Return the images to start from, in [-1, 1], or the chains of a population, on the device, where the model needs some."""
    if not model.path.conditional:
        return None
    if images is None:
        raise UserError("this model completes given images: give some (--condition-data)")
    return images.floats([index % len(images) for index in indices]).to(model.device)
