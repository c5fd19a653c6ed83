"""The configuration of a run as a whole, and the differences between two of them."""

from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import BaseModel, model_validator
from pydantic.fields import FieldInfo

from amgen.config.base import Section
from amgen.config.combinations import mismatches
from amgen.config.data import DataConfig
from amgen.config.options import Options
from amgen.config.wording import sections
from amgen.core.errors import UserError


class Config(Options):
    """The configuration of a run: all options, checked by themselves and against each other."""

    @model_validator(mode="after")
    def _sections_fit(self) -> "Config":
        for problem in mismatches(self):
            raise ValueError(problem)
        return self

    @property
    def images(self) -> DataConfig:
        """The section `data` of a model of images.

        Raises:
            UserError: if the model is of points.
        """
        if not isinstance(self.data, DataConfig):
            raise UserError(
                f"this model is of points (data.kind={self.data.kind}), and this is for images only: try amgen sample, or scripts/"
            )
        return self.data

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of an image, (C, H, W).

        Raises:
            UserError: if the model is of points.
        """
        return self.images.channels, self.images.size, self.images.size

    @property
    def modality(self) -> str:
        """What a sample is: `images` for runs on images, `points` for runs on the populations of tables and simulations."""
        return "images" if isinstance(self.data, DataConfig) else "points"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a sample: (C, H, W) of an image, (D,) of a point."""
        return self.image_shape if isinstance(self.data, DataConfig) else (self.data.dimension,)

    def to_yaml(self) -> str:
        """Return all options, with their defaults, as YAML. `amgen.config.load` reads it."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, default_flow_style=None)

    def differences(self, other: "Config") -> dict[str, tuple[Any, Any]]:
        """Return the options that differ and change what is learned: each dotted key with its values here and in `other`.

        An option that only one of them has, since the other has another kind of section, has the value None there.
        """
        mine, theirs = flatten(self), flatten(other)
        keys = [*mine, *(key for key in theirs if key not in mine)]
        changed = {key: (mine.get(key), theirs.get(key)) for key in keys if mine.get(key) != theirs.get(key)}
        # If the learning rate decays towards the end of training, a later end changes the learning rate of every step of the decay.
        bound = {"training.images"} if self.training.decay else set()
        return {key: values for key, values in changed.items() if key in bound or not _may_change(key)}


def flatten(section: Section, prefix: str = "") -> dict[str, Any]:
    """Return dotted keys with their values."""
    flat: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Section) else {prefix + name: value}
    return flat


def _may_change(key: str) -> bool:
    """Return whether a run may be resumed with another value of an option."""
    extra = fields(key.split("."))[0].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("may_change"))


def fields(keys: Sequence[str]) -> list[FieldInfo]:
    """Return the fields of an option, one for each kind of section that has it.

    Args:
        keys: the dotted key, split.
    """
    candidates: list[type[BaseModel]] = [Config]
    for key in keys[:-1]:
        candidates = [
            inner for section in candidates if key in section.model_fields for inner in sections(section.model_fields[key]).values()
        ]
    return [section.model_fields[keys[-1]] for section in candidates if keys[-1] in section.model_fields]


def section_kinds(keys: Sequence[str]) -> dict[str, type[BaseModel]]:
    """Return the kinds of the section named by the split dotted key; it is empty for an option."""
    return next((sections(field) for field in fields(keys)), {})
