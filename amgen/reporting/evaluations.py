"""Tables of evaluations that can be compared, and charts of their scores."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from amgen.evaluation.report import Evaluation
from amgen.evaluation.scores import Score
from amgen.reporting.axes import Axis, fitting_axis, linear_axis, logarithmic_axis
from amgen.reporting.charts import Chart, Point, Series, make_chart, number
from amgen.reporting.collect import StoredEvaluation, nfe_of

COST_SETTINGS = ("NFE", "steps", "tolerance")
"""Settings of a solver that determine its cost."""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        found: the evaluation.
        sampling: the sampling settings in which the rows differ, as text.
        nfe: gradient evaluations per image; None if unknown.
        scores: the scores by column; None for a score that the evaluation does not have.
    """

    found: StoredEvaluation
    sampling: str
    nfe: float | None
    scores: list[Score | None]


@dataclass(frozen=True)
class Group:
    """A table of evaluations on the same features, with the same real images and the same numbers of images.

    Attributes:
        identifier: its identifier on the page.
        title: heading: the features.
        conditions: the conditions of all rows, as text.
        columns: names of the scores, without the features if all names contain them.
        rows: the evaluations.
        best: for each column of principal scores the best of several scores; otherwise None.
        charts: principal scores against NFE and against images of training, if there are several.
    """

    identifier: str
    title: str
    conditions: str
    columns: list[str]
    rows: list[Row]
    best: list[Score | None]
    charts: list[Chart]


def groups_of(found: Sequence[StoredEvaluation]) -> list[Group]:
    """Divide evaluations into groups that can be compared. The order of the evaluations stays."""
    by_conditions: dict[str, list[StoredEvaluation]] = {}
    for one in found:
        evaluation = one.evaluation
        conditions = [evaluation.features, evaluation.reference, evaluation.generated, evaluation.real]
        by_conditions.setdefault(json.dumps(conditions, sort_keys=True, default=str), []).append(one)
    return [_group(f"group-{number}", members) for number, members in enumerate(by_conditions.values(), start=1)]


def best_of(group: Group) -> tuple[Row, Score]:
    """Return the row with the best principal score of a group, and that score. Only scores with the first one's name are compared."""
    name = group.rows[0].found.evaluation.principal.name
    pairs = [(row, score) for row in group.rows for score in row.scores if score is not None and score.name == name]
    return reduce(lambda best, pair: pair if pair[1].better(best[1]) else best, pairs)


def _group(identifier: str, members: list[StoredEvaluation]) -> Group:
    names = list(dict.fromkeys(score.name for one in members for score in one.evaluation.scores))
    settings = [_describe({"weights": one.weights or None, **one.evaluation.sampling}, without=("NFE",)) for one in members]
    shared = {name: text for name, text in _common(settings).items() if name in ("weights", "seed")}
    rows = []
    for one, texts in zip(members, settings, strict=True):
        scores = {score.name: score for score in one.evaluation.scores}
        sampling = ", ".join(text for name, text in texts.items() if name not in shared)
        rows.append(Row(one, sampling, nfe_of(one.evaluation), [scores.get(name) for name in names]))
    first = members[0].evaluation
    features = first.features or {}
    return Group(
        identifier,
        f"Features: {features['name']}" if features.get("name") else first.principal.name,
        "; ".join([*_conditions(first), *shared.values()]),
        _short(names),
        rows,
        [_best([row.scores[column] for row in rows]) if name in _principals(members) else None for column, name in enumerate(names)],
        _charts(identifier, members),
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
    """Return the settings that all have in common."""
    return {name: text for name, text in settings[0].items() if all(other.get(name) == text for other in settings)}


def _short(names: Sequence[str]) -> list[str]:
    """Return names without the text in parentheses that all of them have."""
    found = re.search(r" \([^()]*\)", names[0])
    return [name.replace(found[0], "", 1) for name in names] if found and all(found[0] in name for name in names) else list(names)


def _principals(members: Sequence[StoredEvaluation]) -> list[str]:
    return list(dict.fromkeys(one.evaluation.principal.name for one in members))


def _best(scores: Iterable[Score | None]) -> Score | None:
    known = [score for score in scores if score is not None]
    return reduce(lambda best, score: score if score.better(best) else best, known) if len(known) > 1 else None


def _charts(identifier: str, members: list[StoredEvaluation]) -> list[Chart]:
    """Return charts of each principal score against NFE and against images of training, where one of these alone varies."""
    charts = []
    for index, name in enumerate(_principals(members), start=1):
        holders = [one for one in members if any(score.name == name for score in one.evaluation.scores)]
        by_cost = _several([one for one in holders if nfe_of(one.evaluation)], _model, lambda one: nfe_of(one.evaluation))
        if by_cost:
            series, note = _series(by_cost, name, lambda one: nfe_of(one.evaluation) or 0, COST_SETTINGS)
            x_axis = fitting_axis([point.x for one in series for point in one.points])
            title = f"{name} against gradient evaluations"
            charts.append(make_chart(f"{identifier}-nfe-{index}", title, series, x_axis, _y_axis(series), "NFE", name, note=note))
        by_training = _several(holders, _sampling, lambda one: one.images)
        if by_training:
            series, note = _series(by_training, name, lambda one: one.images, ("NFE", "images_trained"))
            x_axis = linear_axis([point.x for one in series for point in one.points], zero=True, tight=True)
            title = f"{name} against images of training"
            charts.append(
                make_chart(f"{identifier}-images-{index}", title, series, x_axis, _y_axis(series), "images seen", name, note=note)
            )
    return charts


def _several(
    found: Sequence[StoredEvaluation], alike: Callable[[StoredEvaluation], str], x: Callable[[StoredEvaluation], object]
) -> list[StoredEvaluation]:
    """Return the evaluations for which x takes several values among evaluations with the same `alike`."""
    values: dict[str, set[object]] = {}
    for one in found:
        values.setdefault(alike(one), set()).add(x(one))
    return [one for one in found if len(values[alike(one)]) > 1]


def _model(found: StoredEvaluation) -> str:
    return f"{found.images} {found.weights}"


def _sampling(found: StoredEvaluation) -> str:
    sampling = {key: value for key, value in found.evaluation.sampling.items() if key not in ("NFE", "seed") and value is not None}
    return json.dumps([sampling, found.weights], sort_keys=True, default=str)


def _series(
    found: Sequence[StoredEvaluation], name: str, x: Callable[[StoredEvaluation], float], varied: Sequence[str]
) -> tuple[list[Series], str]:
    """Return one series for each set of conditions, and a note on the conditions that all have in common.

    Labels name the conditions that differ. Other seeds repeat a measurement: they are points of the same series.
    """
    conditions = [_describe({**_of_model(one.evaluation), **one.evaluation.sampling}, without=varied) for one in found]
    common = _common(conditions)
    points: dict[str, list[Point]] = {}
    for one, texts in zip(found, conditions, strict=True):
        score = next(score for score in one.evaluation.scores if score.name == name)
        label = ", ".join(text for key, text in texts.items() if key not in common and key != "seed")
        points.setdefault(label, []).append(Point(x(one), score.value, score.standard_error or 0.0))
    series = [Series(label, sorted(found, key=lambda point: (point.x, point.y))) for label, found in points.items()]
    bars = ["bars: one standard error each way"] if any(point.error for found in points.values() for point in found) else []
    return series, ", ".join([*common.values(), *bars])


def _of_model(evaluation: Evaluation) -> dict[str, Any]:
    return {key: evaluation.model.get(key) for key in ("images_trained", "weights")}


def _describe(settings: Mapping[str, Any], without: Sequence[str]) -> dict[str, str]:
    """Return the settings that are set as texts, by name."""
    return {key: _describe_one(key, value) for key, value in settings.items() if value is not None and key not in without}


def _describe_one(key: str, value: Any) -> str:
    if key == "images_trained":
        return f"{value:,} images of training"
    if key == "steps":
        return f"{value} steps"
    return str(value) if key in ("solver", "weights") else f"{key.replace('_', ' ')} {value}"


def _y_axis(series: Sequence[Series]) -> Axis:
    """Return an axis that contains the error bars. On a logarithmic axis, their parts below 0 are left out."""
    points = [point for one in series for point in one.points]
    ends = [point.y + sign * point.error for point in points for sign in (-1, 1)]
    axis = fitting_axis([point.y for point in points])
    return logarithmic_axis([end for end in ends if end > 0]) if axis.logarithmic else linear_axis(ends)
