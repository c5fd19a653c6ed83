"""The HTML page of a report, made from the contents of a run directory and the template."""

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment as Templates
from jinja2 import PackageLoader, StrictUndefined

from amgen import config
from amgen.config import Config
from amgen.reporting.axes import fitting_axis, linear_axis
from amgen.reporting.charts import Chart, Point, Series, make_chart, number
from amgen.reporting.collect import Environment, Grid, RunRecord
from amgen.reporting.evaluations import Group, best_of, groups_of

TEMPLATE = "report.html.jinja"
MIN_SIZE = 320
"""Smaller image grids are enlarged by a whole number to about this size, in pixels."""
MAX_SKIPPED = 30
"""Most skipped files and entries that the page lists."""
_X = "images seen"
MACHINE = ("images_per_second", "data_wait", "memory_mb")
"""Keys of machine.jsonl, beside the step and the images."""


@dataclass(frozen=True)
class Fact:
    """An entry of the summary: its name, its value as text, and a note on it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Preset:
    """The preset most similar to the options of a run, and the differences: key, value in the run, value in the preset."""

    name: str
    differences: list[tuple[str, Any, Any]]


def render(record: RunRecord, environment: Environment) -> str:
    """Return the page as HTML that needs no other file and no network.

    Args:
        record: the contents of the run directory.
        environment: time and software of the report.

    Example:
        >>> from pathlib import Path
        >>> from amgen.reporting.collect import Environment, collect
        >>> from amgen.reporting.page import render
        >>> page = render(collect(Path("runs/digits")), Environment.here())
        >>> page.startswith("<!DOCTYPE html>")
        True
    """
    templates = Templates(
        loader=PackageLoader("amgen.reporting", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters |= {"data_uri": data_uri, "enlarged": enlarged, "number": number, "seconds": duration, "settings": settings}
    groups = groups_of(record.evaluations)
    page = templates.get_template(TEMPLATE).render(
        run=record,
        environment=environment,
        preset=preset_of(record.config) if record.config else None,
        parts=[*parts_of(record.options), *classes_of(record.config)],
        facts=facts_of(record, groups),
        curves=curves_of(record.metrics),
        groups=groups,
        max_skipped=MAX_SKIPPED,
    )
    # File names and JSON may contain lone surrogates, which UTF-8 cannot encode.
    return page.encode("utf-8", "replace").decode("utf-8")


def preset_of(options: Config) -> Preset:
    """Return the preset with the fewest differences from the options of a run. Only options that change the trained model count."""
    presets = [(name, options.differences(config.load(name))) for name in config.preset_names()]
    name, differences = min(presets, key=lambda preset: len(preset[1]))
    return Preset(name, [(key, mine, theirs) for key, (mine, theirs) in differences.items()])


def parts_of(options: dict[str, Any]) -> list[str]:
    """Return the parts of a run as texts, such as `path: linear`."""
    sections = {name: section for name, section in options.items() if isinstance(section, dict)}
    data = sections.get("data", {})
    parts = [f"data: {data['path']}"] if "path" in data else []
    kinds = {name: section.get("kind", section.get("form")) for name, section in sections.items()}
    return parts + [f"{name}: {kind}" for name, kind in kinds.items() if kind is not None]


def classes_of(options: Config | None) -> list[str]:
    """Return the classes of the model with their numbers, as a list of one text; empty if their names are unknown."""
    names = getattr(options.data, "classes", None) if options else None
    return [f"classes: {', '.join(f'{number} {name}' for number, name in enumerate(names))}"] if names else []


def facts_of(record: RunRecord, groups: Sequence[Group]) -> list[Fact]:
    """Return the entries of the summary."""
    facts = []
    if record.metrics:
        last = record.metrics[-1]
        before = record.metrics[-2]["images"] if len(record.metrics) > 1 else 0.0
        facts.append(Fact("images seen", number(last["images"]), _share(last["images"], record.config)))
        if "loss" in last:
            facts.append(Fact("loss", f"{last['loss']:.4g}", f"mean over the last {number(last['images'] - before)} images"))
        seconds = _training_seconds(record.metrics)
        if seconds:
            facts.append(Fact("training time", duration(seconds), "estimated from the throughput"))
    for group in groups:
        row, score = best_of(group)
        several = f"best of {len(group.rows)}: " if len(group.rows) > 1 else ""
        count = row.found.evaluation.generated or row.found.evaluation.real
        images = f"{count:,} images, " if count else ""
        note = f"{several}{row.sampling}; {images}{row.found.images:,} of training"
        facts.append(Fact(score.name, _with_error(score.value, score.standard_error), note))
    return facts


def curves_of(metrics: Sequence[dict[str, float]]) -> list[Chart]:
    """Return charts of the training metrics against images seen: loss, its terms if there are several, norms, learning rate, throughput."""
    known = {"step", "images", "loss", "gradient_norm", "learning_rate", "weight_norm", "skipped", *MACHINE}
    names = list(dict.fromkeys(key for values in metrics for key in values))
    terms = [name for name in names if name not in known and "/" not in name]
    averages = [name for name in names if name.startswith("ema_distance/")]
    # A single term is the loss itself.
    several = [_metric(metrics, name, name.replace("_", " ")) for name in terms] if len(terms) > 1 else []
    charts = [
        _curve("loss", "Loss", [_metric(metrics, "loss")], "loss"),
        _curve("terms", "Terms of the loss", several, "mean"),
        _curve("gradient-norm", "Gradient norm, before clipping", [_metric(metrics, "gradient_norm")], "gradient norm"),
        _curve("learning-rate", "Learning rate", [_metric(metrics, "learning_rate")], "learning rate", zero=True),
        _curve("weight-norm", "Norm of the weights", [_metric(metrics, "weight_norm")], "norm"),
        _curve(
            "averages",
            "Distance of the averaged weights",
            [_metric(metrics, name, name.removeprefix("ema_distance/")) for name in averages],
            "relative to the norm",
        ),
        _curve("throughput", "Throughput", [_metric(metrics, "images_per_second")], "images per second", zero=True),
    ]
    return [chart for chart in charts if chart is not None]


def _metric(metrics: Sequence[dict[str, float]], name: str, label: str = "") -> Series:
    return Series(label, [Point(values["images"], values[name]) for values in metrics if name in values])


def _curve(identifier: str, title: str, series: Sequence[Series], y_name: str, zero: bool = False) -> Chart | None:
    """Return a chart against images seen; None if there are no points. With `zero` the vertical axis is linear and begins at 0."""
    series = [one for one in series if one.points]
    if not series:
        return None
    points = [point for one in series for point in one.points]
    heights = [point.y for point in points]
    x_axis = linear_axis([point.x for point in points], zero=True, tight=True)
    return make_chart(identifier, title, series, x_axis, linear_axis(heights, zero=True) if zero else fitting_axis(heights), _X, y_name)


def data_uri(grid: Grid) -> str:
    """Return an image grid as a data URI."""
    return f"data:{grid.mime};base64,{b64encode(grid.data).decode()}"


def enlarged(grid: Grid) -> int:
    """Return the whole number by which a small image grid is enlarged on the page."""
    return max(1, round(MIN_SIZE / max(grid.width, grid.height)))


def duration(seconds: float) -> str:
    """Return a time as text, such as "1 h 40 min"."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60} min"


def settings(values: Mapping[str, Any]) -> str:
    """Return names and values as text, such as `splits 5, floor 0.645`."""
    return ", ".join(f"{name} {number(value) if isinstance(value, int | float) else value}" for name, value in values.items())


def _share(images: float, options: Config | None) -> str:
    if options is None:
        return ""
    training = options.training
    total = math.ceil(training.images / training.batch_size) * training.batch_size
    return f"of {total:,}, {100 * images / total:.0f} %"


def _training_seconds(metrics: Sequence[dict[str, float]]) -> float:
    """Return the training time from the throughput; 0 if a line has none."""
    seconds, before = 0.0, 0.0
    for values in metrics:
        rate = values.get("images_per_second", 0.0)
        if rate <= 0:
            return 0.0
        seconds, before = seconds + (values["images"] - before) / rate, values["images"]
    return seconds


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.4g}" if error is None else f"{value:.4g} ± {error:.2g}"
