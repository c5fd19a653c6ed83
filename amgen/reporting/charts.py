"""Charts: where the lines, marks, ticks and words go. The page's template turns them into SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from amgen.reporting.axes import Axis

WIDTH, PLOT_HEIGHT = 480, 200
TOP, RIGHT, BOTTOM = 30, 14, 44
CHARACTER, ROW = 6.4, 18
"""Width of a character and height of a line of words, about, in the font of the page's charts."""
MARKED = 60
"""Points of a line up to which each has a mark."""
THINNED = 480
"""Points of a line beyond which only the extremes of each stretch are drawn."""
STYLES = 8
"""Colours, dashes and marks that differ; the next series of the same colours have hollow marks and other dashes."""


@dataclass(frozen=True)
class Point:
    """A point; `error` is the standard error of y, 0 where it has none."""

    x: float
    y: float
    error: float = 0.0


@dataclass(frozen=True)
class Series:
    """Points that belong together, by rising x, and what they are; the label may be empty where there is one series."""

    label: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Tick:
    """A tick: its place in the drawing, and what is written there."""

    at: float
    label: str


@dataclass(frozen=True)
class Mark:
    """A point in the drawing, its standard error from `low` to `high` if it has one, and what it says when pointed at."""

    x: float
    y: float
    low: float
    high: float
    words: str


@dataclass(frozen=True)
class Line:
    """A series in the drawing.

    Attributes:
        label: what it is; empty for a single one.
        style: number of its colour and mark.
        dash: number of its dashes.
        hollow: whether marks are.
        path: the line, in SVG's words.
        marks: its points; empty where they would run into each other.
        key: place of its entry in the legend.
    """

    label: str
    style: int
    dash: int
    hollow: bool
    path: str
    marks: list[Mark]
    key: tuple[float, float]


@dataclass(frozen=True)
class Chart:
    """A drawing, y downwards, and what it says to those who do not see it.

    Attributes:
        key: identifies it on the page.
        title: heading.
        note: conditions that hold for all that is drawn; may be empty.
        description: what is to be seen.
        x_label: name and unit of the horizontal axis.
        y_label: of the vertical one.
        left: where the plot begins.
        height: of the drawing; the width is WIDTH.
        x_ticks: along the bottom.
        y_ticks: along the side.
        lines: the series.
    """

    key: str
    title: str
    note: str
    description: str
    x_label: str
    y_label: str
    left: float
    height: float
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = TOP + PLOT_HEIGHT


def draw(key: str, title: str, series: Sequence[Series], x_axis: Axis, y_axis: Axis, x_name: str, y_name: str, note: str = "") -> Chart:
    """Lay out a chart of one or more series, none of them empty."""
    left = 12 + CHARACTER * max(map(len, y_axis.labels))
    right, bottom = WIDTH - RIGHT, TOP + PLOT_HEIGHT
    inset = 10 if x_axis.logarithmic else 0  # where nothing else keeps marks from the ends

    def across(x: float) -> float:
        return round(left + inset + (right - left - 2 * inset) * x_axis.place(x), 1)

    def down(y: float) -> float:
        return round(bottom - PLOT_HEIGHT * y_axis.place(y), 1)

    def mark(label: str, point: Point) -> Mark:
        error = f" ± {point.error:.2g}" if point.error else ""
        words = f"{label + ': ' if label else ''}{point.y:.4g}{error} at {number(point.x)} {x_name}"
        return Mark(across(point.x), down(point.y), down(point.y - point.error), down(point.y + point.error), words)

    keys, rows = _legend([one.label for one in series], left)
    lines = []
    for place, one in enumerate(series):
        means = [Point(x, _mean([point.y for point in points])) for x, points in groupby(thin(one.points), key=lambda point: point.x)]
        path = "M" + "L".join(f"{across(point.x)},{down(point.y)}" for point in means) if len(means) > 1 else ""
        marks = [mark(one.label, point) for point in one.points] if len(one.points) <= MARKED else []
        turn, style = divmod(place, STYLES)
        lines.append(Line(one.label, style, (style + 3 * turn) % STYLES, turn % 2 == 1, path, marks, keys[place]))
    return Chart(
        key=key,
        title=title,
        note=note,
        description=_describe(series, x_name, y_name, y_axis),
        x_label=_axis_label(x_name, x_axis),
        y_label=_axis_label(y_name, y_axis),
        left=left,
        height=bottom + BOTTOM + ROW * rows,
        x_ticks=[Tick(across(tick), label) for tick, label in zip(x_axis.ticks, x_axis.labels, strict=True)],
        y_ticks=[Tick(down(tick), label) for tick, label in zip(y_axis.ticks, y_axis.labels, strict=True)],
        lines=lines,
    )


def thin(points: Sequence[Point], most: int = THINNED) -> list[Point]:
    """Keep the ends of a long line and the extremes of each stretch of it, about `most` points in all: no spike is lost."""
    if len(points) <= most:
        return list(points)
    length = math.ceil(2 * len(points) / most)
    kept = {0, len(points) - 1}
    for start in range(0, len(points), length):
        stretch = range(start, min(start + length, len(points)))
        kept |= {min(stretch, key=lambda place: points[place].y), max(stretch, key=lambda place: points[place].y)}
    return [points[place] for place in sorted(kept)]


def number(value: float) -> str:
    """Write a number for people: counts with separators, others with four digits."""
    return f"{value:,.0f}" if abs(value) < 1e15 and value == int(value) else f"{value:.4g}"


def _legend(labels: Sequence[str], left: float) -> tuple[list[tuple[float, float]], int]:
    """Return the place of each entry of the legend, below the plot, and how many rows they take; none without labels."""
    if not any(labels):
        return [(0.0, 0.0) for _ in labels], 0
    places: list[tuple[float, float]] = []
    row, x = 1, left
    for label in labels:
        width = 44 + CHARACTER * len(label)
        if x > left and x + width > WIDTH - RIGHT:
            row, x = row + 1, left
        places.append((x, TOP + PLOT_HEIGHT + BOTTOM - 8 + ROW * row))
        x += width
    return places, row


def _axis_label(name: str, axis: Axis) -> str:
    parts = [part for part in (axis.unit, "log scale" if axis.logarithmic else "") if part]
    return f"{name} ({', '.join(parts)})" if parts else name


def _describe(series: Sequence[Series], x_name: str, y_name: str, y_axis: Axis) -> str:
    """Say in words what a chart shows."""
    sentences = [f"{y_name} against {x_name}{', on a logarithmic scale' if y_axis.logarithmic else ''}."]
    for one in series:
        first, last = one.points[0], one.points[-1]
        lowest, highest = (choose(one.points, key=lambda point: point.y) for choose in (min, max))
        where = f"{one.label}: " if one.label else ""
        if len(one.points) == 1:
            sentences.append(f"{where}{first.y:.4g} at {number(first.x)}.")
        else:
            sentences.append(
                f"{where}{len(one.points):,} points, from {first.y:.4g} at {number(first.x)} to {last.y:.4g} at {number(last.x)}; "
                f"lowest {lowest.y:.4g} at {number(lowest.x)}, highest {highest.y:.4g} at {number(highest.x)}."
            )
    return " ".join(sentences)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
