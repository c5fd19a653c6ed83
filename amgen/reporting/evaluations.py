"""Evaluations side by side: tables of those that may be compared, and what their distances depend on."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from amgen.evaluation.metrics import Figure
from amgen.evaluation.report import Evaluation
from amgen.reporting.axes import Axis, fitting_axis, linear_axis, logarithmic_axis
from amgen.reporting.charts import Chart, Point, Series, draw, number
from amgen.reporting.collect import Evaluated, nfe_of

SETTING_OF_COST = ("NFE", "steps", "tolerance")
"""Settings of a solver that say how much it may cost."""


@dataclass(frozen=True)
class Row:
    """An evaluation in a table: how images were drawn, as far as not all were drawn so, and figures by column, None where it has none."""

    found: Evaluated
    sampling: str
    nfe: float | None
    figures: list[Figure | None]


@dataclass(frozen=True)
class Group:
    """Evaluations on the same features, against the same real images and with as many generated ones.

    Attributes:
        key: identifies it on the page.
        title: the features.
        conditions: what holds for all of them.
        columns: names of the figures, without the features where all name them.
        rows: the evaluations.
        best: for each column of principal figures the best of several, or else None.
        charts: principal figures against NFE and against images of training, where there are several.
    """

    key: str
    title: str
    conditions: str
    columns: list[str]
    rows: list[Row]
    best: list[Figure | None]
    charts: list[Chart]


def groups_of(found: Sequence[Evaluated]) -> list[Group]:
    """Sort evaluations into groups whose figures may be compared, in the order in which they come."""
    sorted_: dict[str, list[Evaluated]] = {}
    for one in found:
        evaluation = one.evaluation
        conditions = [evaluation.features, evaluation.reference, evaluation.generated, evaluation.real]
        sorted_.setdefault(json.dumps(conditions, sort_keys=True, default=str), []).append(one)
    return [_group(f"group-{place}", members) for place, members in enumerate(sorted_.values(), start=1)]


def best_of(group: Group) -> tuple[Row, Figure]:
    """Return the best principal figure of a group, of those with the first one's name, and its row."""
    name = group.rows[0].found.evaluation.principal.name
    pairs = [(row, figure) for row in group.rows for figure in row.figures if figure is not None and figure.name == name]
    return reduce(lambda best, pair: pair if pair[1].better(best[1]) else best, pairs)


def _group(key: str, members: list[Evaluated]) -> Group:
    names = list(dict.fromkeys(figure.name for one in members for figure in one.evaluation.figures))
    settings = [_phrases({"weights": one.weights or None, **one.evaluation.sampling}, without=("NFE",)) for one in members]
    shared = {name: words for name, words in _common(settings).items() if name in ("weights", "seed")}
    rows = []
    for one, words in zip(members, settings, strict=True):
        figures = {figure.name: figure for figure in one.evaluation.figures}
        sampling = ", ".join(phrase for name, phrase in words.items() if name not in shared)
        rows.append(Row(one, sampling, nfe_of(one.evaluation), [figures.get(name) for name in names]))
    first = members[0].evaluation
    features = first.features or {}
    return Group(
        key,
        f"Features: {features['name']}" if features.get("name") else first.principal.name,
        "; ".join([*_conditions(first), *shared.values()]),
        _short(names),
        rows,
        [_best([row.figures[place] for row in rows]) if name in _principals(members) else None for place, name in enumerate(names)],
        _charts(key, members),
    )


def _conditions(evaluation: Evaluation) -> list[str]:
    features = evaluation.features or {}
    parts = [f"{evaluation.generated:,} generated images" if evaluation.generated else ""]
    parts.append(f"{'real images' if evaluation.real is None else f'{evaluation.real:,} real images'} of {evaluation.reference}")
    parts.append(f"{number(features['dimension'])} dimensions" if isinstance(features.get("dimension"), int) else "")
    parts.append(f"preparation: {features['preparation']}" if features.get("preparation") else "")
    parts.append(f"SHA-256 of the features {str(features['sha256'])[:8]}" if features.get("sha256") else "")
    return [part for part in parts if part]


def _common(settings: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return what is the same in all of them."""
    return {name: words for name, words in settings[0].items() if all(other.get(name) == words for other in settings)}


def _short(names: Sequence[str]) -> list[str]:
    """Leave out the words in parentheses that all names have."""
    found = re.search(r" \([^()]*\)", names[0])
    return [name.replace(found[0], "", 1) for name in names] if found and all(found[0] in name for name in names) else list(names)


def _principals(members: Sequence[Evaluated]) -> list[str]:
    return list(dict.fromkeys(one.evaluation.principal.name for one in members))


def _best(figures: Iterable[Figure | None]) -> Figure | None:
    there = [figure for figure in figures if figure is not None]
    return reduce(lambda best, figure: figure if figure.better(best) else best, there) if len(there) > 1 else None


def _charts(key: str, members: list[Evaluated]) -> list[Chart]:
    """Draw each principal figure against what it costs and against training, where one of these alone makes several points."""
    charts = []
    for place, name in enumerate(_principals(members), start=1):
        holders = [one for one in members if any(figure.name == name for figure in one.evaluation.figures)]
        by_cost = _several([one for one in holders if nfe_of(one.evaluation)], _model, lambda one: nfe_of(one.evaluation))
        if by_cost:
            series, note = _series(by_cost, name, lambda one: nfe_of(one.evaluation) or 0, SETTING_OF_COST)
            x_axis = fitting_axis([point.x for one in series for point in one.points])
            title = f"{name} against evaluations of the gradient"
            charts.append(draw(f"{key}-nfe-{place}", title, series, x_axis, _y_axis(series), "NFE", name, note=note))
        by_training = _several(holders, _sampling, lambda one: one.images)
        if by_training:
            series, note = _series(by_training, name, lambda one: one.images, ("NFE", "images_trained"))
            x_axis = linear_axis([point.x for one in series for point in one.points], zero=True, tight=True)
            title = f"{name} against images of training"
            charts.append(draw(f"{key}-images-{place}", title, series, x_axis, _y_axis(series), "images seen", name, note=note))
    return charts


def _several(found: Sequence[Evaluated], alike: Callable[[Evaluated], str], x: Callable[[Evaluated], object]) -> list[Evaluated]:
    """Keep the evaluations that, among those alike, take more than one value of x."""
    values: dict[str, set[object]] = {}
    for one in found:
        values.setdefault(alike(one), set()).add(x(one))
    return [one for one in found if len(values[alike(one)]) > 1]


def _model(found: Evaluated) -> str:
    return f"{found.images} {found.weights}"


def _sampling(found: Evaluated) -> str:
    sampling = {key: value for key, value in found.evaluation.sampling.items() if key not in ("NFE", "seed") and value is not None}
    return json.dumps([sampling, found.weights], sort_keys=True, default=str)


def _series(found: Sequence[Evaluated], name: str, x: Callable[[Evaluated], float], varied: Sequence[str]) -> tuple[list[Series], str]:
    """Return a series for each set of conditions, named by those that differ, and a note of those that do not.

    Other seeds repeat a measurement: they are points of the same series.
    """
    conditions = [_phrases({**_of_model(one.evaluation), **one.evaluation.sampling}, without=varied) for one in found]
    common = _common(conditions)
    points: dict[str, list[Point]] = {}
    for one, words in zip(found, conditions, strict=True):
        figure = next(figure for figure in one.evaluation.figures if figure.name == name)
        label = ", ".join(phrase for key, phrase in words.items() if key not in common and key != "seed")
        points.setdefault(label, []).append(Point(x(one), figure.value, figure.standard_error or 0.0))
    series = [Series(label, sorted(found, key=lambda point: (point.x, point.y))) for label, found in points.items()]
    bars = ["bars: one standard error each way"] if any(point.error for found in points.values() for point in found) else []
    return series, ", ".join([*common.values(), *bars])


def _of_model(evaluation: Evaluation) -> dict[str, Any]:
    return {key: evaluation.model.get(key) for key in ("images_trained", "weights")}


def _phrases(settings: Mapping[str, Any], without: Sequence[str]) -> dict[str, str]:
    """Put settings in words, those left out that are not set."""
    return {key: _phrase(key, value) for key, value in settings.items() if value is not None and key not in without}


def _phrase(key: str, value: Any) -> str:
    if key == "images_trained":
        return f"{value:,} images of training"
    if key == "steps":
        return f"{value} steps"
    return str(value) if key in ("solver", "weights") else f"{key.replace('_', ' ')} {value}"


def _y_axis(series: Sequence[Series]) -> Axis:
    """Return an axis that the standard errors fit on, but for what of them is beyond a logarithmic one."""
    points = [point for one in series for point in one.points]
    ends = [point.y + sign * point.error for point in points for sign in (-1, 1)]
    axis = fitting_axis([point.y for point in points])
    return logarithmic_axis([end for end in ends if end > 0]) if axis.logarithmic else linear_axis(ends)
