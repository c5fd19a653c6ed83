"""The page: what is said of a run, in which order, with the template's words around it."""

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
from amgen.reporting.charts import Chart, Point, Series, draw, number
from amgen.reporting.collect import Environment, Grid, RunRecord
from amgen.reporting.evaluations import Group, best_of, groups_of

TEMPLATE = "report.html.jinja"
SHOWN = 320
"""Pixels that a sample grid takes on the page, at least about."""
NAMED = 30
"""Most things named that could not be read."""
_X = "images seen"
MACHINE = ("images_per_second", "data_wait", "memory_mb")
"""What machine.jsonl tells, beside the step and the images."""


@dataclass(frozen=True)
class Fact:
    """A figure of the summary, what it is, and what it depends on."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Preset:
    """The preset nearest to a run's options, and what differs: key, value in the run, value in the preset."""

    name: str
    differences: list[tuple[str, Any, Any]]


def render(record: RunRecord, environment: Environment) -> str:
    """Return the page, HTML that refers to nothing outside itself."""
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
        named=NAMED,
    )
    # File names and JSON may hold halves of characters, which no file takes.
    return page.encode("utf-8", "replace").decode("utf-8")


def preset_of(options: Config) -> Preset:
    """Find the preset from which a run differs in the fewest options that alter what is learned."""
    presets = [(name, options.differences(config.load(name))) for name in config.preset_names()]
    name, differences = min(presets, key=lambda preset: len(preset[1]))
    return Preset(name, [(key, mine, theirs) for key, (mine, theirs) in differences.items()])


def parts_of(options: dict[str, Any]) -> list[str]:
    """Name the parts that a run is composed of, such as `path: linear`."""
    sections = {name: section for name, section in options.items() if isinstance(section, dict)}
    data = sections.get("data", {})
    parts = [f"data: {data['path']}"] if "path" in data else []
    kinds = {name: section.get("kind", section.get("form")) for name, section in sections.items()}
    return parts + [f"{name}: {kind}" for name, kind in kinds.items() if kind is not None]


def classes_of(options: Config | None) -> list[str]:
    """Name the classes that the model knows, each with its number, where the run has kept their names."""
    names = getattr(options.data, "classes", None) if options else None
    return [f"classes: {', '.join(f'{number} {name}' for number, name in enumerate(names))}"] if names else []


def facts_of(record: RunRecord, groups: Sequence[Group]) -> list[Fact]:
    """Choose the figures of the summary."""
    facts = []
    if record.metrics:
        last = record.metrics[-1]
        before = record.metrics[-2]["images"] if len(record.metrics) > 1 else 0.0
        facts.append(Fact("images seen", number(last["images"]), _share(last["images"], record.config)))
        if "loss" in last:
            facts.append(Fact("loss", f"{last['loss']:.4g}", f"mean over the last {number(last['images'] - before)} images"))
        seconds = _training_seconds(record.metrics)
        if seconds:
            facts.append(Fact("training time", duration(seconds), "about, by the throughput"))
    for group in groups:
        row, figure = best_of(group)
        several = f"best of {len(group.rows)}: " if len(group.rows) > 1 else ""
        count = row.found.evaluation.generated or row.found.evaluation.real
        images = f"{count:,} images, " if count else ""
        note = f"{several}{row.sampling}; {images}{row.found.images:,} of training"
        facts.append(Fact(figure.name, _with_error(figure.value, figure.standard_error), note))
    return facts


def curves_of(metrics: Sequence[dict[str, float]]) -> list[Chart]:
    """Draw what the records tell against the images seen: loss, its terms where there are several, norms and the progress of training."""
    known = {"step", "images", "loss", "gradient_norm", "learning_rate", "weight_norm", "skipped", *MACHINE}
    names = list(dict.fromkeys(key for values in metrics for key in values))
    terms = [name for name in names if name not in known and "/" not in name]
    averages = [name for name in names if name.startswith("ema_distance/")]
    # A single term is the loss itself.
    several = [_metric(metrics, name, name.replace("_", " ")) for name in terms] if len(terms) > 1 else []
    drawn = [
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
    return [chart for chart in drawn if chart is not None]


def _metric(metrics: Sequence[dict[str, float]], name: str, label: str = "") -> Series:
    return Series(label, [Point(values["images"], values[name]) for values in metrics if name in values])


def _curve(key: str, title: str, series: Sequence[Series], y_name: str, zero: bool = False) -> Chart | None:
    """Draw a chart against images seen, from 0 upwards or else on the axis that fits; None if there is nothing to draw."""
    series = [one for one in series if one.points]
    if not series:
        return None
    points = [point for one in series for point in one.points]
    heights = [point.y for point in points]
    x_axis = linear_axis([point.x for point in points], zero=True, tight=True)
    return draw(key, title, series, x_axis, linear_axis(heights, zero=True) if zero else fitting_axis(heights), _X, y_name)


def data_uri(grid: Grid) -> str:
    """Return a picture as an address that holds it."""
    return f"data:{grid.mime};base64,{b64encode(grid.data).decode()}"


def enlarged(grid: Grid) -> int:
    """Return by which whole number a small grid is enlarged on the page."""
    return max(1, round(SHOWN / max(grid.width, grid.height)))


def duration(seconds: float) -> str:
    """Write a time for people."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60} min"


def settings(values: Mapping[str, Any]) -> str:
    """Write names and values for people, such as `splits 5, floor 0.645`."""
    return ", ".join(f"{name} {number(value) if isinstance(value, int | float) else value}" for name, value in values.items())


def _share(images: float, options: Config | None) -> str:
    if options is None:
        return ""
    training = options.training
    total = math.ceil(training.images / training.batch_size) * training.batch_size
    return f"of {total:,}, {100 * images / total:.0f} %"


def _training_seconds(metrics: Sequence[dict[str, float]]) -> float:
    """Add up images over images a second, 0 if that is not known for every line."""
    seconds, before = 0.0, 0.0
    for values in metrics:
        rate = values.get("images_per_second", 0.0)
        if rate <= 0:
            return 0.0
        seconds, before = seconds + (values["images"] - before) / rate, values["images"]
    return seconds


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.4g}" if error is None else f"{value:.4g} ± {error:.2g}"
