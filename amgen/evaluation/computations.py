"""The computations that turn features into scores. Each is independent of the others, so processes share them."""

import math
from collections.abc import Sequence
from dataclasses import asdict

from torch import Tensor

from amgen.config import METRICS
from amgen.evaluation import frechet, metrics
from amgen.evaluation.arguments import NEIGHBOURS, SPLITS
from amgen.evaluation.features import FeatureExtractor
from amgen.evaluation.metric_options import MetricOptions
from amgen.evaluation.moments import Moments
from amgen.evaluation.reference import Reference
from amgen.evaluation.scores import Computation, Score


class FeatureScores:
    """The scores of generated images by their features.

    Args:
        features: features of the generated images, float32, (N, D). Images with weights are resampled by their weights before.
        reference: the real images.
        extractor: the extractor that computed the features.
        options: the metrics.
        seed: seed of random splits and subsets.
        weighted: whether the generated images were resampled by weights. Then standard errors are unknown.
    """

    def __init__(
        self, features: Tensor, reference: Reference, extractor: FeatureExtractor, options: MetricOptions, seed: int, weighted: bool = False
    ):
        self.features, self.reference, self.extractor = features, reference, extractor
        self.options, self.seed, self.weighted = options, seed, weighted
        real = "an unknown number of" if reference.count is None else f"{reference.count:,}"
        self.numbers = f"{len(features):,} generated against {real} real images"

    def computations(self, nearest: Computation) -> list[Computation]:
        """Return the computations of all metrics, in the order of reports.

        Args:
            nearest: the computation of the metric `nearest`, which needs the features before resampling.
        """
        distances: list[Computation] = [self.frechet, self.frechet_at_infinity]
        if self.reference.features is not None and not self.weighted:
            distances.append(self.frechet_matched)
        by_metric: dict[str, Sequence[Computation]] = {
            "fid": distances,
            "kid": [self.kernel_distance],
            "is": [self.inception_score],
            "prc": [self.precision_recall],
            "nearest": [nearest],
        }
        return [computation for name in METRICS if name in self.options.metrics for computation in by_metric[name]]

    def frechet(self) -> list[Score]:
        """Return the Fréchet distance of all images."""
        own, real = Moments.of(self.features), self.reference.moments
        error = None if self.weighted else frechet.frechet_error(self.features, own, real)
        return [Score(self.extractor.distance_name, frechet.frechet_distance(own, real), error, self.numbers)]

    def frechet_at_infinity(self) -> list[Score]:
        """Return the Fréchet distance extrapolated to infinitely many generated images."""
        found = frechet.frechet_by_sample_size(self.features, self.reference.moments, self.seed)
        note = "extrapolated from " + ", ".join(f"{value:.4g} at n = {number:,}" for number, value in found)
        name = f"{self.extractor.distance_name} at infinite n"
        return [Score(name, frechet.extrapolate_to_infinity(found), None, note, {"by_n": found})]

    def frechet_matched(self) -> list[Score]:
        """Return the Fréchet distance at the sample size at which real images can be compared with real images."""
        found = frechet.matched_distance(self.features, self._real, self.seed)
        floor = f"{found.floor:.4g} +- {found.floor_error:.2g}"
        note = f"{found.ratio:.2f} times the floor {floor} (real against real; errors over {found.splits} splits)"
        details = {**asdict(found), "ratio": found.ratio if math.isfinite(found.ratio) else None}
        name = f"{self.extractor.distance_name} at n = {found.n:,} a side"
        return [Score(name, found.generated, found.generated_error, note, details)]

    def kernel_distance(self) -> list[Score]:
        """Return KID."""
        subsets, size = self.options.kid_subsets, self.options.kid_subset_size
        value, error = metrics.kernel_distance(self.features, self._real, subsets, size, self.seed)
        note = f"{subsets} subsets of {size:,} images"
        return [Score(self.extractor.score_name("KID"), value, error, note, {"subsets": subsets, "subset_size": size})]

    def inception_score(self) -> list[Score]:
        """Return the Inception Score."""
        logits = self.extractor.logits(self.features)
        assert logits is not None
        value, error = metrics.inception_score(logits, self.seed)
        note = f"{SPLITS} parts of {len(self.features):,} images"
        return [Score(self.extractor.score_name("IS"), value, None if self.weighted else error, note, lower_is_better=False)]

    def precision_recall(self) -> list[Score]:
        """Return precision and recall."""
        found = metrics.precision_recall(self.features, self._real)
        note = f"{NEIGHBOURS} neighbours, {self.numbers}"
        return [Score(self.extractor.score_name(name), value, None, note, lower_is_better=False) for name, value in found._asdict().items()]

    @property
    def _real(self) -> Tensor:
        assert self.reference.features is not None
        return self.reference.features
