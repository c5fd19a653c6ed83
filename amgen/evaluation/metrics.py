"""Distances between two sets of feature vectors."""

from dataclasses import dataclass

import torch
from torch import Tensor

from amgen.errors import UserError
from amgen.randomness import Purpose, permutation


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features, (N, D) and (M, D), by torch-fidelity.

    |mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)); called FID when the features are Inception-v3's (arXiv 1706.08500).
    """
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    for features in (first, second):
        if len(features) < 2:
            raise UserError(f"a Fréchet distance needs at least 2 images on each side, not {len(features)}")
    statistics = [fid_features_to_statistics(features.double()) for features in (first, second)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


@dataclass
class MatchedDistance:
    """Fréchet distances at equal sample sizes, whose bias therefore is the same.

    Attributes:
        n: images on each side.
        splits: random splits averaged over.
        generated: generated images against real ones.
        floor: real images against other real ones: what a perfect generator scores.
    """

    n: int
    splits: int
    generated: float
    floor: float

    @property
    def ratio(self) -> float:
        """Generated over floor; 1 means as close to the data as the data itself."""
        return self.generated / self.floor


def matched_distance(generated: Tensor, real: Tensor, seed: int, splits: int = 5) -> MatchedDistance:
    """Split the real features into two random halves A and B; compare generated with A, and B with A, at the same n.

    n is half the number of real images, or the number of generated ones if that is less.
    """
    n = min(len(generated), len(real) // 2)
    distances, floors = [], []
    for split in range(splits):
        order = permutation(seed, Purpose.EVALUATION_SPLIT, split, len(real))
        half, other = real[order[:n]], real[order[n : 2 * n]]
        chosen = permutation(seed, Purpose.EVALUATION_SPLIT, splits + split, len(generated))[:n]
        distances.append(frechet_distance(generated[chosen], half))
        floors.append(frechet_distance(other, half))
    return MatchedDistance(n, splits, _mean(distances), _mean(floors))


def _mean(values: list[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).mean())
