"""The conditions of samples: the class of each image, and the image that it starts from. Every command uses these rules."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from amgen.config import Config, change
from amgen.core.errors import UserError
from amgen.core.randomness import Purpose, uniforms
from amgen.data import ImageDataset, SnapshotDataset, open_dataset
from amgen.model.classes import check_label, class_numbers
from amgen.model.trained import TrainedAction
from amgen.paths import Conditioning
from amgen.sampling.request import Request


def labels_of(config: Config, indices: Sequence[int], request: Request) -> Tensor | None:
    """Return the class of each image, int64 (B,); None for a model without classes.

    The first of these that exists is the class of image i:

    1. `request.label`, one class for all;
    2. entry i of `request.classes`, the classes of given points at t = 0;
    3. the class of the start image, entry i modulo their number of `request.images`;
    4. the class of the first end of an interpolation, `request.between`;
    5. i modulo the number of classes.

    Args:
        config: configuration of the model.
        indices: indices of the B images.
        request: what to generate; its seed does not matter here.

    Raises:
        UserError: if the model has no such class, or the start images have other classes than the model.
    """
    classes = config.action.classes
    if request.label is not None:
        check_label(config, request.label)
    if not classes:
        return None
    if request.label is not None:
        return torch.full((len(indices),), request.label)
    if request.classes is not None:
        return request.classes[torch.as_tensor(indices)]
    if isinstance(request.images, ImageDataset):
        images = request.images
        numbers = class_numbers(config, images)
        return numbers[images.labels[[images.readable(index % len(images)) for index in indices]]]
    if request.between is not None:
        return torch.full((len(indices),), request.between[0] % classes)
    return torch.tensor([index % classes for index in indices])


def start_images(
    model: TrainedAction, path: str | None, say: Callable[[str], None] | None = None, preparation: Mapping[str, Any] | None = None
) -> ImageDataset | SnapshotDataset | None:
    """Open the start images of an image-to-image model, or the start population of a model of points.

    Args:
        model: the model.
        path: a folder, zip or data set of images, or a table of points; None for the training data.
        say: takes lines about images that are converted or skipped; None for no such lines.
        preparation: options of the section `data` that prepare the images, such as `resize`, and differ from the run's.

    Returns:
        The data, or None for a model that starts from noise.

    Raises:
        UserError: if a path is given for a model that starts from noise, or the images cannot be opened.
    """
    if model.path.conditional:
        return open_dataset(change(model.config.data, {"path": path, **(preparation or {})}), say, model.loadings)
    if path is not None:
        raise UserError(f"this model starts from noise alone and cannot use the images {path}: leave them out")
    return None


def start_batch(model: TrainedAction, indices: Sequence[int], request: Request) -> tuple[Tensor | None, Conditioning]:
    """Return the start data of a batch and their conditioning by the path, both on the model's device.

    Args:
        model: the model.
        indices: indices of the B images.
        request: what to generate.

    Returns:
        Start images in [-1, 1], float (B, C, H, W), or multi-marginal tuples of a population; None for a model that starts from noise.
        The conditioning, empty for a model that starts from noise.

    Raises:
        UserError: if the model needs start images and the request has none.
    """
    path = model.path
    if not path.conditional:
        return None, Conditioning()
    if request.images is None:
        raise UserError("this model starts from images: give some (--condition-data)")
    data = request.images.floats([index % len(request.images) for index in indices]).to(model.device)
    auxiliary = uniforms(request.seed, Purpose.SAMPLE_AUXILIARY, indices, path.auxiliary).to(model.device) if path.auxiliary else None
    return data, path.conditioning(data, auxiliary)
