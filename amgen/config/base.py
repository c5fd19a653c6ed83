"""The base class of all sections, and types, bounds and marks of options."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.config import JsonDict
from pydantic_core import PydanticKnownError, core_schema

LARGEST_COUNT = 10**15
"""Largest number of images, steps or anything else. A float represents it exactly."""


class _AtMost:
    """An upper bound of a type, beside which an option may have a lower one.

    Of two bounds `le`, one in the type and one in the field, pydantic keeps that of the type alone.
    """

    def __init__(self, most: int):
        self.most = most

    def _check(self, value: int) -> int:
        if value > self.most:
            raise PydanticKnownError("less_than_equal", {"le": self.most})
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"maximum": self.most, **handler(schema)}


Fraction = Annotated[float, Field(ge=0, lt=1)]
"""A number in [0, 1)."""

Positive = Annotated[int, Field(gt=0), _AtMost(LARGEST_COUNT)]
"""A count of at least 1 and at most `LARGEST_COUNT`, or what the option itself allows at most."""

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
