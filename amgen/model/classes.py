"""The classes of a model: their numbers and names, and how the classes of other images correspond to them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from amgen.config import Config, DataConfig
from amgen.core.errors import UserError, nearest, short
from amgen.data import ImageDataset

LISTED = 20
"""Most class names in an error message."""


def class_numbers(config: Config, images: ImageDataset) -> Tensor:
    """Return the class of the model for each class of `images`, int64 (C,).

    It is the class of the same name if all names agree, else the class of the same number.

    Raises:
        UserError: if the model has another number of classes.
    """
    classes, found, names = config.action.classes, list(images.source.classes), class_names(config)
    if classes != len(found):
        raise UserError(
            f"this model knows {classes} classes, but {images.source.description} has {len(found)}: "
            "give images of the same classes, in one folder a class, or one class for all (--label)"
        )
    return numbers_by_name(names, found)


def numbers_by_name(names: Sequence[str] | None, found: Sequence[str]) -> Tensor:
    """Return the class of the model for each of C names, int64 (C,), as `class_numbers` does; `names` are the model's, or None."""
    if names is not None and set(names) == set(found):
        return torch.tensor([names.index(name) for name in found])
    return torch.arange(len(found))


def class_names(config: Config) -> list[str] | None:
    """Return the names of the model's classes in the order of their numbers; None if it has no classes or no names of them."""
    names = config.data.classes if isinstance(config.data, DataConfig) else None
    return names if names is not None and len(names) == config.action.classes else None


def class_name(config: Config, label: int) -> str:
    """Return the name of a class, or its number if it has no name."""
    names = class_names(config)
    return str(label) if names is None else names[label]


def find_label(config: Config, text: str | int | None) -> int | None:
    """Return the number of a class that is given by name or by number; a name that is a number is read as a name. None stays None.

    Raises:
        UserError: if the model has no such class.
    """
    if text is None or isinstance(text, int):
        number = text
    elif not config.action.classes:
        raise _no_classes(text)
    else:
        names = class_names(config) or []
        if text in names:
            return names.index(text)
        number = int(text) if text.isdecimal() and len(text) < 10 else None
        if number is None:
            choices = f"{', '.join(names)}, or a number from" if 0 < len(names) <= LISTED else "a number from"
            raise UserError(f"unknown class {text[:80]!r}{nearest(text[:80], names)}: choose {choices} 0 to {config.action.classes - 1}")
    if number is not None:
        check_label(config, number)
    return number


def check_label(config: Config, label: int) -> None:
    """Refuse a class that the model does not have."""
    classes = config.action.classes
    if not classes:
        raise _no_classes(label)
    if not 0 <= label < classes:
        raise UserError(f"label={label}: this model knows the classes 0 to {classes - 1}")


def _no_classes(label: int | str) -> UserError:
    given = short(label) if isinstance(label, str) and not label.isdecimal() else label
    return UserError(f"label={given}: this model was trained without classes (action.classes=0)")
