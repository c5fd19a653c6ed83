"""What an evaluation found, with the conditions that give it meaning."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from amgen.core.errors import UserError
from amgen.core.files import make_folder, write_json
from amgen.evaluation.metrics import Figure


@dataclass
class Evaluation:
    """Figures and their conditions.

    Attributes:
        figures: the numbers, the principal one first.
        generated: number of generated images; 0 where none were.
        real: number of real images; None where the reference does not say.
        reference: where the real images come from.
        features: name, dimension, preparation and checksum of the features; None where none were used.
        model: checkpoint, weights and images trained on.
        sampling: solver, its setting, NFE, seed and label.
        seconds: time spent, by what it was spent on, on the main process.
        warnings: what a reader must know before comparing the figures with others.
        choices: what else was asked for: the metrics, and hashes of the images that took part. Empty in evaluations of older versions.
    """

    figures: list[Figure]
    generated: int
    real: int | None
    reference: str
    features: dict[str, Any] | None
    model: dict[str, Any]
    sampling: dict[str, Any]
    seconds: dict[str, float]
    warnings: list[str] = field(default_factory=list)
    choices: dict[str, Any] = field(default_factory=dict)

    @property
    def principal(self) -> Figure:
        """Return the first figure, by which models are compared."""
        return self.figures[0]

    @classmethod
    def from_dict(cls, contents: Mapping[str, Any]) -> "Evaluation":
        """Return the evaluation of which `to_dict` made `contents`."""
        return cls(**{**contents, "figures": [Figure(**figure) for figure in contents["figures"]]})

    def asked(self) -> dict[str, Any]:
        """Return what was asked for but the model; not what came out, such as the NFE, which adaptive solvers choose by the weights."""
        return {
            "generated": self.generated,
            "real": self.real,
            "reference": self.reference,
            "features": self.features,
            "sampling": {key: value for key, value in self.sampling.items() if key != "NFE" and value is not None},
            "choices": self.choices,
        }

    def comparable(self, other: "Evaluation") -> bool:
        """Tell whether figures of the two differ by the model alone; choices that one of them does not tell are not looked at."""
        conditions = [found.asked() for found in (self, other)]
        if not (self.choices and other.choices):
            conditions = [{**one, "choices": {}} for one in conditions]
        return self.principal.name == other.principal.name and conditions[0] == conditions[1]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the report in words: conditions, figures, warnings."""
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
        found += [figure.line() for figure in self.figures]
        return found + [f"warning: {warning}" for warning in self.warnings]


def file_name(evaluations: Sequence[Evaluation]) -> str:
    """Return the name of a report: features, or else the figure, images of training, and a hash of the model and of all that was asked for.

    So the same evaluation again takes the place of its report, and no other does.
    """
    asked = []
    for evaluation in evaluations:
        model = {key: value for key, value in evaluation.model.items() if key != "checkpoint"}
        model.setdefault("weights_sha256", Path(str(evaluation.model["checkpoint"])).name)
        asked.append([evaluation.principal.name, model, evaluation.asked()])
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:10]
    last = evaluations[-1]
    what = "bpd" if last.features is None else str(last.features["name"]).replace(":", "-")
    return f"{'sweep-' if len(evaluations) > 1 else ''}{what}-{last.model['images_trained']:09d}-{digest}.json"


def keep(evaluations: Sequence[Evaluation], folder: Path, file: Path | None = None) -> str:
    """Write a report to `file`, or else to a file of its own in `folder`, and return a line that says where it is.

    That the folder cannot be written to, as one of somebody else's, costs nobody the figures: the line then says so.

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
        return f"warning: the report is not kept: {error}; --json FILE keeps it elsewhere"
    return f"wrote {target}"


def table(evaluations: Sequence[Evaluation], settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each evaluation: what was set, NFE, images trained on, and every figure with its standard error; ready for CSV.

    `pareto` marks what no other row beats in the principal figure at as few evaluations of the gradient.
    """
    rows = []
    for evaluation, setting in zip(evaluations, settings, strict=True):
        row: dict[str, Any] = {**setting, "NFE": evaluation.sampling["NFE"], "images_trained": evaluation.model["images_trained"]}
        for figure in evaluation.figures:
            row[figure.name] = figure.value
            if figure.standard_error is not None:
                row[f"{figure.name} standard error"] = figure.standard_error
        rows.append(row)
    for row, evaluation in zip(rows, evaluations, strict=True):
        rivals = [other for other in evaluations if other.sampling["NFE"] <= evaluation.sampling["NFE"]]
        row["pareto"] = evaluation.principal.lower_is_better is not None and not any(
            rival.principal.better(evaluation.principal) for rival in rivals
        )
    return rows
