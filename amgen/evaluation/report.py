"""What an evaluation found, with the conditions that give it meaning."""

from dataclasses import asdict, dataclass
from typing import Any

from amgen.evaluation.metrics import MatchedDistance


@dataclass
class Report:
    """A Fréchet distance and its conditions.

    Attributes:
        metric: name of the figure: FID for Inception-v3 features, FD (...) for others.
        value: distance of all generated images from all real ones.
        generated: number of generated images.
        real: number of real images.
        reference: where the real images come from.
        matched: the distance and its floor at equal n.
        features: name, dimension, preparation and checksum of the features.
        model: checkpoint, weights and images trained on.
        sampling: solver, its setting, NFE, seed and label.
        seconds: time spent on generating, extracting and measuring.
    """

    metric: str
    value: float
    generated: int
    real: int
    reference: str
    matched: MatchedDistance
    features: dict[str, Any]
    model: dict[str, Any]
    sampling: dict[str, Any]
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {**asdict(self), "matched": {**asdict(self.matched), "ratio": self.matched.ratio}}

    def lines(self) -> list[str]:
        """Return the report in words, the figures last."""
        checksum = f", sha256 {self.features['sha256'][:8]}" if self.features["sha256"] else ""
        sampling = ", ".join(f"{key} {value}" for key, value in self.sampling.items() if value is not None)
        matched = self.matched
        return [
            f"model: {self.model['checkpoint']}, {self.model['weights']}, {self.model['images_trained']:,} images of training",
            f"sampling: {sampling}",
            f"features: {self.features['name']}, {self.features['dimension']} dimensions{checksum}; "
            f"preparation: {self.features['preparation']}",
            f"{self.metric} {self.value:.4g}: {self.generated:,} generated against {self.real:,} real images of {self.reference}",
            f"{self.metric} {matched.generated:.4g} at n = {matched.n:,} a side, {matched.ratio:.2f} times the floor "
            f"{matched.floor:.4g} (real against real, mean of {matched.splits} splits)",
        ]
