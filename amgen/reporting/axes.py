"""Axes of charts: their ranges, and ticks at round numbers."""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

ROUND = (1, 2, 5)
"""First digits of round numbers."""
SPREAD = 5
"""Ratio of the largest to the smallest value from which a logarithmic axis is used."""
_UNITS = {0: "", 3: "thousands", 6: "millions", 9: "billions"}
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        low: the lower end.
        high: the upper end.
        ticks: round numbers between the ends, in rising order.
        logarithmic: whether the scale is logarithmic.
        exponent: labels are in units of 10^exponent, to be short.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False
    exponent: int = 0

    def position(self, value: float) -> float:
        """Return the position of a value on the axis, from 0 (lower end) to 1; values outside are clipped."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    @property
    def labels(self) -> list[str]:
        """The texts at the ticks."""
        write = _scientific if self.logarithmic else _plain
        return [write(Decimal(repr(tick)).scaleb(-self.exponent)) for tick in self.ticks]

    @property
    def unit(self) -> str:
        """The unit of the labels, such as "thousands"; empty for exponent 0."""
        return _UNITS.get(self.exponent, f"× {_power(self.exponent)}")


def fitting_axis(values: Sequence[float]) -> Axis:
    """Return a logarithmic axis if the values are positive and span a factor of SPREAD or more, otherwise a linear axis."""
    if min(values) > 0 and max(values) / min(values) >= SPREAD:
        return logarithmic_axis(values)
    return linear_axis(values)


def linear_axis(values: Sequence[float], zero: bool = False, tight: bool = False, count: int = 5) -> Axis:
    """Return a linear axis that contains `values`. Equal values are in its middle.

    Args:
        values: the values.
        zero: whether the axis contains 0. It also does if 0 extends it by a third or less.
        tight: whether the axis ends at the values; by default it ends at ticks.
        count: the number of ticks, about.
    """
    low, high = min(values), max(values)
    if zero or 0 < low <= high / 3 or low / 3 <= high < 0:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), sys.float_info.min):
        around = abs(low) / 2 or 1.0
        low, high = (0.0, 1.0) if low == high == 0 else (low - around, high + around)
    digit, exponent = _round_step((high - low) / count)
    step = float(f"{digit}e{exponent}")
    bottom, top = (math.ceil, math.floor) if tight else (math.floor, math.ceil)
    slack = 1e-9 if tight else -1e-9  # a value that is a tick up to rounding counts as one
    first, last = bottom(low / step - slack), top(high / step + slack)
    # From decimal text, because multiples of 0.1 are not exact in binary.
    ticks = tuple(float(f"{digit * multiple}e{exponent}") for multiple in range(first, last + 1))
    if not tight:
        low, high = ticks[0], ticks[-1]
    return Axis(low, high, ticks, exponent=_unit_exponent(max(abs(low), abs(high))))


def logarithmic_axis(values: Sequence[float]) -> Axis:
    """Return a logarithmic axis that contains `values`. Its ends are numbers with one digit.

    Ticks are all numbers with one digit if the axis is shorter than a decade, those with 1, 2 or 5 up to three decades, and powers of 10
    on longer axes.

    Raises:
        ValueError: unless all values are positive.
    """
    if min(values) <= 0:
        raise ValueError(f"a logarithmic axis needs positive values, not {min(values)}")
    bottom, top = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    candidates = [float(f"{digit}e{exponent}") for exponent in range(bottom - 1, top + 2) for digit in range(1, 10)]
    low = max(number for number in candidates if number <= min(values))
    high = min(number for number in candidates if number >= max(values))
    if low == high:
        low, high = low / 2, low * 2
    decades = math.log10(high) - math.log10(low)  # a difference, since the ratio high / low may overflow
    digits = range(1, 10) if decades < 0.8 else ROUND if decades <= 3 else (1,)
    stride = math.ceil(decades / 7)
    rounds = [float(f"{digit}e{exponent}") for exponent in range(bottom - 1, top + 2) if exponent % stride == 0 for digit in digits]
    return Axis(low, high, tuple(number for number in rounds if low <= number <= high), logarithmic=True)


def _round_step(rough: float) -> tuple[int, int]:
    """Return digit and exponent of the smallest round number that is at least `rough`."""
    return next((digit, exponent) for digit, exponent in _round_numbers(rough) if float(f"{digit}e{exponent}") >= rough * (1 - 1e-9))


def _round_numbers(least: float) -> Iterator[tuple[int, int]]:
    exponent = math.floor(math.log10(least))
    yield from ((digit, exponent) for digit in ROUND)
    yield 1, exponent + 1


def _unit_exponent(largest: float) -> int:
    """Return the exponent of the labels' unit, a multiple of 3; 0 unless numbers would have many digits."""
    return 0 if 1e-2 <= largest < 1e4 else 3 * math.floor(math.log10(largest) / 3)


def _plain(value: Decimal) -> str:
    return f"{value.normalize():,f}".replace("-", "−")


def _scientific(value: Decimal) -> str:
    if Decimal("0.001") <= value < 100_000:
        return _plain(value)
    digit = value.scaleb(-value.adjusted()).normalize()
    return _power(value.adjusted()) if digit == 1 else f"{digit:f}×{_power(value.adjusted())}"


def _power(exponent: int) -> str:
    return "10" + str(exponent).translate(_SUPERSCRIPTS)
