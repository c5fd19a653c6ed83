"""Which metrics to compute, and what each of them needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from amgen.config import METRICS
from amgen.evaluation.arguments import UNWEIGHTED, parse_metrics
from amgen.evaluation.features import FeatureExtractor
from amgen.evaluation.reference import Reference


@dataclass(frozen=True)
class MetricOptions:
    """Which metrics to compute, and their options.

    Attributes:
        metrics: some of METRICS: fid (Fréchet distance), kid, is (Inception Score), prc (precision and recall), nearest.
        kid_subsets: number of random subsets that KID is averaged over.
        kid_subset_size: images in each subset.
    """

    metrics: Sequence[str] = ("fid",)
    kid_subsets: int = 100
    kid_subset_size: int = 1_000

    def describe(self) -> dict[str, Any]:
        """Return the options that have an effect, for reports."""
        kid = {"kid_subsets": self.kid_subsets, "kid_subset_size": self.kid_subset_size} if "kid" in self.metrics else {}
        return {"metrics": [name for name in METRICS if name in self.metrics], **kid}


def select_metrics(text: str, extractor: FeatureExtractor, reference: Reference, weighted: bool = False) -> tuple[str, ...]:
    """Return the metrics of a text such as "fid,kid". "all" selects every metric that can be computed.

    Args:
        text: the names.
        extractor: the features.
        reference: the real images.
        weighted: whether generated images carry weights, as those of unbalanced dynamics do.

    Raises:
        UserError: for an unknown name.
    """
    if text == "all":
        return tuple(name for name in METRICS if not (missing(name, extractor, reference) or (weighted and name in UNWEIGHTED)))
    return parse_metrics(text)


def missing(metric: str, extractor: FeatureExtractor, reference: Reference) -> str:
    """Return what a metric needs and does not have, as text; empty if it can be computed."""
    if metric not in ("fid", "is") and reference.features is None:
        return f"the features of the real images, and {reference.description} holds mean and covariance only"
    if metric == "is" and extractor.logits(torch.zeros(1, extractor.dimension)) is None:
        return f"features with classes, and features={extractor.name} have none"
    return ""
