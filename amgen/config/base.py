"""What the sections of the configuration have in common: strictness, bounds and marks."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field
from pydantic.config import JsonDict

Fraction = Annotated[float, Field(ge=0, lt=1)]

Positive = Annotated[int, Field(gt=0, le=10**15)]  # beyond any use, and within what a float counts exactly

Share = Annotated[float, Field(gt=0)]

Rate = Annotated[float, Field(ge=0, le=1e12)]
"""How fast something is forgotten: below 1 what is left of it after a step, at 1 and above its half-life in images."""

LARGEST_IMAGE = 16_384
"""Most pixels of a side. This and the other upper bounds are beyond what any machine computes: they tell slips from options."""

MAY_CHANGE: JsonDict = {"may_change": True}
"""Marks the options that do not alter what is learned: a run may be resumed with another value of these."""

NOT_PREPARATION: JsonDict = {"not_preparation": True}
"""Marks the options of images that neither what an image looks like depends on nor which ones are taken; see `DataConfig.preparation`."""


class Section(BaseModel):
    """A group of options. Strict: no unknown keys, no coercion of strings to numbers, no NaN, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


SectionType = TypeVar("SectionType", bound=Section)


def by(key: str, default: str) -> Discriminator:
    """Choose among sections by the value of `key`, which need not be given."""
    return Discriminator(lambda value: value.get(key, default) if isinstance(value, dict) else getattr(value, key, None))
