"""The report of an evaluation: scores with all conditions that give them meaning."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from amgen.core.errors import UserError
from amgen.core.files import make_folder, write_json
from amgen.evaluation.scores import Score

OLD_KEYS = {"figures": "scores", "choices": "metric_options"}
"""Keys of reports that amgen 0.1.0 wrote before their renaming, and the current keys."""


@dataclass
class Evaluation:
    """Scores and their conditions.

    Attributes:
        scores: the scores; models are compared by the first one, the principal score.
        generated: number of generated images; 0 for a likelihood.
        real: number of real images; None if the reference does not say.
        reference: the source of the real images.
        features: name, dimension, preparation and checksum of the features; None if none were used.
        model: checkpoint, weights and number of training images.
        sampling: solver, its settings, NFE, seed and label.
        seconds: time of each part of the work, on the main process.
        warnings: what a reader must know before comparing the scores with others.
        metric_options: the metrics with their options, and hashes of the image sets that took part. Empty in reports of old versions.
    """

    scores: list[Score]
    generated: int
    real: int | None
    reference: str
    features: dict[str, Any] | None
    model: dict[str, Any]
    sampling: dict[str, Any]
    seconds: dict[str, float]
    warnings: list[str] = field(default_factory=list)
    metric_options: dict[str, Any] = field(default_factory=dict)

    @property
    def principal(self) -> Score:
        """The first score, by which models are compared."""
        return self.scores[0]

    @classmethod
    def from_dict(cls, contents: Mapping[str, Any]) -> "Evaluation":
        """Return an evaluation from the result of its `to_dict`, in this version or an older one.

        Example:
            >>> old = {"figures": [{"name": "FID", "value": 3.5}], "generated": 9, "real": 9, "reference": "photos", "features": None}
            >>> old |= {"model": {}, "sampling": {}, "seconds": {}, "choices": {"metrics": ["fid"]}}
            >>> Evaluation.from_dict(old).principal.line()
            'FID 3.5'
        """
        current = with_current_keys(contents)
        return cls(**{**current, "scores": [Score(**score) for score in current["scores"]]})

    def conditions(self) -> dict[str, Any]:
        """Return all conditions of the scores but the model.

        Results of the computation are left out, such as the NFE: an adaptive solver chooses it by the weights.
        """
        return {
            "generated": self.generated,
            "real": self.real,
            "reference": self.reference,
            "features": self.features,
            "sampling": {key: value for key, value in self.sampling.items() if key != "NFE" and value is not None},
            "metric_options": self.metric_options,
        }

    def comparable(self, other: "Evaluation") -> bool:
        """Tell whether the scores of the two differ by the model only. Metric options are not compared if one of them has none."""
        conditions = [found.conditions() for found in (self, other)]
        if not (self.metric_options and other.metric_options):
            conditions = [{**one, "metric_options": {}} for one in conditions]
        return self.principal.name == other.principal.name and conditions[0] == conditions[1]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a dict for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the report as lines of text: conditions, scores, warnings."""
        found = [f"model: {self.model['checkpoint']}, {self.model['weights']}, {self.model['images_trained']:,} images of training"]
        found.append("sampling: " + ", ".join(f"{key} {value}" for key, value in self.sampling.items() if value is not None))
        if self.features is not None:
            checksum = f", sha256 {self.features['sha256'][:8]}" if self.features["sha256"] else ""
            found.append(
                f"features: {self.features['name']}, {self.features['dimension']} dimensions{checksum}; "
                f"preparation: {self.features['preparation']}"
            )
        real = "real images" if self.real is None else f"{self.real:,} real images"
        found.append(f"reference: {real} of {self.reference}")
        total = sum(self.seconds.values())
        shares = ", ".join(f"{name} {seconds:.1f} s ({100 * seconds / total:.0f} %)" for name, seconds in self.seconds.items())
        found.append(f"time: {shares}")
        found += [score.line() for score in self.scores]
        return found + [f"warning: {warning}" for warning in self.warnings]


def with_current_keys(contents: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of a report with old keys replaced by the current ones."""
    return {OLD_KEYS.get(key, key): value for key, value in contents.items()}


def file_name(evaluations: Sequence[Evaluation]) -> str:
    """Return the file name of a report: features (or "bpd"), images of training, and a hash of the model and of all conditions.

    So a repeated evaluation replaces its own report, and no other one.
    """
    hashed = []
    for evaluation in evaluations:
        model = {key: value for key, value in evaluation.model.items() if key != "checkpoint"}
        model.setdefault("weights_sha256", Path(str(evaluation.model["checkpoint"])).name)
        # Hashed under their old name, so that a repeated evaluation replaces the report of an older version too.
        conditions = evaluation.conditions()
        conditions["choices"] = conditions.pop("metric_options")
        hashed.append([evaluation.principal.name, model, conditions])
    digest = hashlib.sha256(json.dumps(hashed, sort_keys=True, default=str).encode()).hexdigest()[:10]
    last = evaluations[-1]
    what = "bpd" if last.features is None else str(last.features["name"]).replace(":", "-")
    return f"{'sweep-' if len(evaluations) > 1 else ''}{what}-{last.model['images_trained']:09d}-{digest}.json"


def save_report(evaluations: Sequence[Evaluation], folder: Path, file: Path | None = None) -> str:
    """Save a report and return a line that says where it is.

    If the folder cannot be written to, such as a folder of another user, the line is a warning: the scores are not lost.

    Args:
        evaluations: one evaluation, or those of a sweep.
        folder: folder of the report, which gets a file name of its own.
        file: the file to write instead.

    Raises:
        UserError: if `file` cannot be written.
    """
    target = file or folder / file_name(evaluations)
    found = [evaluation.to_dict() for evaluation in evaluations]
    try:
        make_folder(target.parent)
        write_json(target, {"evaluations": found} if len(found) > 1 else found[0])
    except UserError as error:
        if file is not None:
            raise
        return f"warning: the report is not saved: {error}; --json FILE saves it elsewhere"
    return f"wrote {target}"


def table(evaluations: Sequence[Evaluation], settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each evaluation, for CSV: settings, NFE, images of training, and every score with its standard error.

    The column `pareto` is True if no other row has a better principal score at the same or a smaller NFE.

    Args:
        evaluations: the evaluations.
        settings: for each evaluation, the settings that distinguish it.
    """
    rows = []
    for evaluation, setting in zip(evaluations, settings, strict=True):
        row: dict[str, Any] = {**setting, "NFE": evaluation.sampling["NFE"], "images_trained": evaluation.model["images_trained"]}
        for score in evaluation.scores:
            row[score.name] = score.value
            if score.standard_error is not None:
                row[f"{score.name} standard error"] = score.standard_error
        rows.append(row)
    for row, evaluation in zip(rows, evaluations, strict=True):
        cheaper = [other for other in evaluations if other.sampling["NFE"] <= evaluation.sampling["NFE"]]
        row["pareto"] = evaluation.principal.lower_is_better is not None and not any(
            other.principal.better(evaluation.principal) for other in cheaper
        )
    return rows
