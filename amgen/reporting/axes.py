"""Axes of charts: the numbers that they run between, and ticks at round ones."""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

ROUND = (1, 2, 5)
"""What the first digit of a step may be."""
SPREAD = 5
"""Largest over smallest of values from which on a logarithmic axis shows them better."""
_UNITS = {0: "", 3: "thousands", 6: "millions", 9: "billions"}
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        low: where it begins.
        high: where it ends.
        ticks: round numbers between the ends, rising.
        logarithmic: whether equal distances are equal ratios.
        exponent: labels are in units of 10^exponent, which keeps them short.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False
    exponent: int = 0

    def place(self, value: float) -> float:
        """Map a value to [0, 1], those beyond the ends to the nearer one."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    @property
    def labels(self) -> list[str]:
        """What to write at the ticks."""
        write = _scientific if self.logarithmic else _plain
        return [write(Decimal(repr(tick)).scaleb(-self.exponent)) for tick in self.ticks]

    @property
    def unit(self) -> str:
        """What to say of the labels' unit, such as thousands; empty for ones."""
        return _UNITS.get(self.exponent, f"× {_power(self.exponent)}")


def fitting_axis(values: Sequence[float]) -> Axis:
    """Return a logarithmic axis where values are positive and range over a factor of SPREAD or more, or else a linear one."""
    if min(values) > 0 and max(values) / min(values) >= SPREAD:
        return logarithmic_axis(values)
    return linear_axis(values)


def linear_axis(values: Sequence[float], zero: bool = False, tight: bool = False, count: int = 5) -> Axis:
    """Return a linear axis around `values` with about `count` ticks.

    It begins at zero if asked to, or if that takes no more than a third of it. It ends at ticks, or if `tight` at the values. Equal
    values are put in its middle.
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
    slack = 1e-9 if tight else -1e-9  # against rounding of what is a tick itself
    first, last = bottom(low / step - slack), top(high / step + slack)
    # Written and read again, since multiples of 0.1 are not what they should be.
    ticks = tuple(float(f"{digit * multiple}e{exponent}") for multiple in range(first, last + 1))
    if not tight:
        low, high = ticks[0], ticks[-1]
    return Axis(low, high, ticks, exponent=_unit_exponent(max(abs(low), abs(high))))


def logarithmic_axis(values: Sequence[float]) -> Axis:
    """Return a logarithmic axis around `values`, which ends at numbers of one digit.

    Ticks are all of these in less than a decade, those that begin with 1, 2 or 5 over up to three, and powers of 10 beyond.

    Raises:
        ValueError: unless all values are positive.
    """
    if min(values) <= 0:
        raise ValueError(f"a logarithmic axis has no place for {min(values)}")
    bottom, top = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    candidates = [float(f"{digit}e{exponent}") for exponent in range(bottom - 1, top + 2) for digit in range(1, 10)]
    low = max(number for number in candidates if number <= min(values))
    high = min(number for number in candidates if number >= max(values))
    if low == high:
        low, high = low / 2, low * 2
    decades = math.log10(high) - math.log10(low)  # their ratio may be infinite
    digits = range(1, 10) if decades < 0.8 else ROUND if decades <= 3 else (1,)
    stride = math.ceil(decades / 7)
    rounds = [float(f"{digit}e{exponent}") for exponent in range(bottom - 1, top + 2) if exponent % stride == 0 for digit in digits]
    return Axis(low, high, tuple(number for number in rounds if low <= number <= high), logarithmic=True)


def _round_step(rough: float) -> tuple[int, int]:
    """Return digit and exponent of the least round number that is not below `rough`."""
    return next((digit, exponent) for digit, exponent in _round_numbers(rough) if float(f"{digit}e{exponent}") >= rough * (1 - 1e-9))


def _round_numbers(least: float) -> Iterator[tuple[int, int]]:
    exponent = math.floor(math.log10(least))
    yield from ((digit, exponent) for digit in ROUND)
    yield 1, exponent + 1


def _unit_exponent(largest: float) -> int:
    """Return a multiple of 3, other than 0 where numbers would take many digits."""
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
