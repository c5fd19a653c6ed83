"""What an evaluation found, with the conditions that give it meaning."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

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

    @property
    def principal(self) -> Figure:
        """Return the first figure, by which models are compared."""
        return self.figures[0]

    @classmethod
    def from_dict(cls, contents: Mapping[str, Any]) -> "Evaluation":
        """Return the evaluation of which `to_dict` made `contents`."""
        return cls(**{**contents, "figures": [Figure(**figure) for figure in contents["figures"]]})

    def comparable(self, other: "Evaluation") -> bool:
        """Tell whether figures of the two differ by the model alone."""
        conditions = [
            (found.principal.name, found.generated, found.real, found.reference, found.features, found.sampling) for found in (self, other)
        ]
        return conditions[0] == conditions[1]

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
