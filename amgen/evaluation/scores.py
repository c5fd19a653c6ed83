"""A score: the value of a metric with its standard error."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Score:
    """The value of a metric.

    Attributes:
        name: name of the metric, such as "FID" or "FD (pixels)".
        value: the value.
        standard_error: the standard error of the value; None if it is unknown.
        note: conditions of the value, as text.
        details: the same conditions for JSON, and more.
        lower_is_better: whether a better model has a lower value; None if neither a low nor a high value is good.

    Example:
        >>> score = Score("FID", 12.3456, 0.125, "10,000 generated against 50,000 real images")
        >>> score.line()
        'FID 12.35 +- 0.12: 10,000 generated against 50,000 real images'
        >>> score.better(Score("FID", 20.0))
        True
    """

    name: str
    value: float
    standard_error: float | None = None
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    lower_is_better: bool | None = True

    def better(self, other: "Score") -> bool:
        """Tell whether this score is better than another score of the same name. Equal values are not better."""
        if self.lower_is_better is None:
            return False
        return self.value < other.value if self.lower_is_better else self.value > other.value

    def line(self) -> str:
        """Return the score as one line of text."""
        error = "" if self.standard_error is None else f" +- {self.standard_error:.2g}"
        return f"{self.name} {self.value:.4g}{error}" + (f": {self.note}" if self.note else "")


Computation = Callable[[], list[Score]]
"""A part of the work of an evaluation, which returns the scores that it computes."""
