"""The layout of charts: positions of lines, marks, ticks and texts. The template of the page turns it into SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from amgen.reporting.axes import Axis

WIDTH, PLOT_HEIGHT = 480, 200
TOP, RIGHT, BOTTOM = 30, 14, 44
CHARACTER, ROW = 6.4, 18
"""Approximate width of a character and height of a line of text in charts, in pixels."""
MAX_MARKED = 60
"""Most points of a line that are drawn with marks."""
MAX_POINTS = 480
"""Most points of a line, about; longer lines are thinned."""
STYLES = 8
"""Number of colours, dashes and marks. Further series repeat the colours with hollow marks and other dashes."""


@dataclass(frozen=True)
class Point:
    """A point of a series; `error` is the standard error of y, 0 if there is none."""

    x: float
    y: float
    error: float = 0.0


@dataclass(frozen=True)
class Series:
    """Points of one line, in rising order of x, and its label. The label of a single series may be empty."""

    label: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Tick:
    """A tick: its position in the chart, in pixels, and its text."""

    at: float
    label: str


@dataclass(frozen=True)
class Mark:
    """A point in the chart: its position, the ends of its error bar, and the text of its tooltip. `low` equals `high` without an error."""

    x: float
    y: float
    low: float
    high: float
    tooltip: str


@dataclass(frozen=True)
class Line:
    """A series in the chart.

    Attributes:
        label: its name in the legend; empty for a single series.
        style: number of its colour and mark.
        dash: number of its dash pattern.
        hollow: whether its marks are hollow.
        path: the line, as an SVG path.
        marks: its points; empty if there are too many to show.
        legend: position of its entry in the legend.
    """

    label: str
    style: int
    dash: int
    hollow: bool
    path: str
    marks: list[Mark]
    legend: tuple[float, float]


@dataclass(frozen=True)
class Chart:
    """The layout of a chart, in pixels; y points downwards.

    Attributes:
        identifier: its identifier on the page.
        title: heading.
        note: conditions of all series; may be empty.
        description: the content as text, for screen readers.
        x_label: name and unit of the horizontal axis.
        y_label: name and unit of the vertical axis.
        left: left end of the plot.
        height: height of the chart; the width is WIDTH.
        x_ticks: ticks of the horizontal axis.
        y_ticks: ticks of the vertical axis.
        lines: the series.
        right: right end of the plot.
        top: upper end of the plot.
        bottom: lower end of the plot.
    """

    identifier: str
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


def make_chart(
    identifier: str, title: str, series: Sequence[Series], x_axis: Axis, y_axis: Axis, x_name: str, y_name: str, note: str = ""
) -> Chart:
    """Return the layout of a chart.

    Args:
        identifier: its identifier on the page.
        title: heading.
        series: one or more series, none of them empty.
        x_axis: the horizontal axis.
        y_axis: the vertical axis.
        x_name: name of the horizontal axis.
        y_name: name of the vertical axis.
        note: conditions of all series.
    """
    left = 12 + CHARACTER * max(map(len, y_axis.labels))
    right, bottom = WIDTH - RIGHT, TOP + PLOT_HEIGHT
    inset = 10 if x_axis.logarithmic else 0  # keeps marks away from the ends of the axis

    def x_position(x: float) -> float:
        return round(left + inset + (right - left - 2 * inset) * x_axis.position(x), 1)

    def y_position(y: float) -> float:
        return round(bottom - PLOT_HEIGHT * y_axis.position(y), 1)

    def mark(label: str, point: Point) -> Mark:
        error = f" ± {point.error:.2g}" if point.error else ""
        tooltip = f"{label + ': ' if label else ''}{point.y:.4g}{error} at {number(point.x)} {x_name}"
        return Mark(x_position(point.x), y_position(point.y), y_position(point.y - point.error), y_position(point.y + point.error), tooltip)

    legend, rows = _legend([one.label for one in series], left)
    lines = []
    for index, one in enumerate(series):
        means = [Point(x, _mean([point.y for point in points])) for x, points in groupby(thin(one.points), key=lambda point: point.x)]
        path = "M" + "L".join(f"{x_position(point.x)},{y_position(point.y)}" for point in means) if len(means) > 1 else ""
        marks = [mark(one.label, point) for point in one.points] if len(one.points) <= MAX_MARKED else []
        repetition, style = divmod(index, STYLES)
        lines.append(Line(one.label, style, (style + 3 * repetition) % STYLES, repetition % 2 == 1, path, marks, legend[index]))
    return Chart(
        identifier=identifier,
        title=title,
        note=note,
        description=_describe(series, x_name, y_name, y_axis),
        x_label=_axis_label(x_name, x_axis),
        y_label=_axis_label(y_name, y_axis),
        left=left,
        height=bottom + BOTTOM + ROW * rows,
        x_ticks=[Tick(x_position(tick), label) for tick, label in zip(x_axis.ticks, x_axis.labels, strict=True)],
        y_ticks=[Tick(y_position(tick), label) for tick, label in zip(y_axis.ticks, y_axis.labels, strict=True)],
        lines=lines,
    )


def thin(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """Return about `most` points of a long line: its ends, and the lowest and highest point of each section. So no spike is lost."""
    if len(points) <= most:
        return list(points)
    length = math.ceil(2 * len(points) / most)
    kept = {0, len(points) - 1}
    for start in range(0, len(points), length):
        section = range(start, min(start + length, len(points)))
        kept |= {min(section, key=lambda index: points[index].y), max(section, key=lambda index: points[index].y)}
    return [points[index] for index in sorted(kept)]


def number(value: float) -> str:
    """Return a number as text: whole numbers with thousands separators, others with four digits."""
    return f"{value:,.0f}" if abs(value) < 1e15 and value == int(value) else f"{value:.4g}"


def _legend(labels: Sequence[str], left: float) -> tuple[list[tuple[float, float]], int]:
    """Return the position of each entry of the legend below the plot, and the number of rows; 0 rows without labels."""
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
    """Return the content of a chart as text."""
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
