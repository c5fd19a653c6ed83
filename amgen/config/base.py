"""The base class of all sections, and types, bounds and marks of options."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field
from pydantic.config import JsonDict

Fraction = Annotated[float, Field(ge=0, lt=1)]
"""A number in [0, 1)."""

Positive = Annotated[int, Field(gt=0, le=10**15)]
"""A count of at least 1. The upper bound is an integer that a float represents exactly."""

Share = Annotated[float, Field(gt=0)]
"""A positive weight in any unit."""

Rate = Annotated[float, Field(ge=0, le=1e12)]
"""The memory of an exponential average: below 1 its decay per step, at 1 and above its half-life in images."""

LARGEST_IMAGE = 16_384
"""Most pixels of a side. Like all upper bounds of options, it is larger than any useful value, so that typing errors are found."""

MAY_CHANGE: JsonDict = {"may_change": True}
"""Marks the options that do not change what is learned: a run may be resumed with another value of them."""

NOT_PREPARATION: JsonDict = {"not_preparation": True}
"""Marks the options that change neither the pixels of an image nor which images are used; see `DataConfig.preparation`."""


class Section(BaseModel):
    """A group of options. It is immutable and strict: unknown keys, strings in place of numbers, infinity and NaN are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


SectionType = TypeVar("SectionType", bound=Section)


def by(key: str, default: str) -> Discriminator:
    """Return a discriminator that chooses among section classes by the option `key`, which has the value `default` if it is not given."""
    return Discriminator(lambda value: value.get(key, default) if isinstance(value, dict) else getattr(value, key, None))
