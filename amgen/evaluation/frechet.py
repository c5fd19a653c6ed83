"""The Fréchet distance between two sets of features, its standard error and its bias.

    d = |mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

mu, C: mean and covariance of the features. d is the squared Wasserstein-2 distance between two Gaussians with these moments. On
Inception-v3 features it is called FID (Heusel et al. 2017, arXiv 1706.08500); on others "FD (features)". d >= 0, and 0 is best.

Bias: d of n images is too large on average, by about a constant over n. So distances are comparable at equal n only. Three functions deal
with this: `extrapolate_to_infinity` removes the leading term, `matched_distance` gives the distance between two sets of real images
of the same size, and `frechet_error` the random error, which does not contain the bias.

Features are float (N, D) for generated and (M, D) for real images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from amgen.core.randomness import Purpose, permutation
from amgen.evaluation.moments import ROWS, Moments, power


def frechet_distance(first: Tensor | Moments, second: Tensor | Moments) -> float:
    """Return the Fréchet distance between two sets of features, or between their moments.

    d = |mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)), at least 0 up to rounding (Heusel et al. 2017, arXiv 1706.08500, equation 6).
    It is biased upwards for small sets; see the module.

    Args:
        first: features (N, D), N >= 2, or their moments.
        second: features (M, D), M >= 2, or their moments.

    Raises:
        UserError: if a set has fewer than two vectors.

    Example:
        Two sets with the same covariance: the distance is the squared distance of the means.

        >>> import torch
        >>> from amgen.evaluation.frechet import frechet_distance
        >>> real = torch.randn(500, 3)
        >>> generated = real + torch.tensor([1.0, 2.0, 2.0])
        >>> round(frechet_distance(generated, real), 3)
        9.0
    """
    one, other = (value if isinstance(value, Moments) else Moments.of(value) for value in (first, second))
    offset = one.mean - other.mean
    return float(offset @ offset) + one.variance + other.variance - 2 * _overlap(one, other)


def _overlap(first: Moments, second: Moments) -> float:
    """Return tr (C_1 C_2)^(1/2). The matrices are N x N or D x D, whichever is smaller.

    With C = F'F it is the sum of the singular values of F_1 F_2', or of the roots of the eigenvalues of F_1 C_2 F_1'.
    """
    if first.factor is not None and second.factor is not None:
        return float(torch.linalg.svdvals(first.factor @ second.factor.T).sum())
    if first.factor is not None:
        product = second.between(first.factor)
    elif second.factor is not None:
        product = first.between(second.factor)
    else:
        product = second.root @ first.covariance @ second.root
    return float(torch.linalg.eigvalsh(product).clamp(min=0).sqrt().sum())


def frechet_error(generated: Tensor, own: Moments, real: Moments) -> float:
    """Return the standard error of the Fréchet distance over new sets of generated images; the real images stay the same.

    By the infinitesimal jackknife: an image x changes the distance d by IF(x)/N, where

        IF(x) = 2 (mu_1 - mu_2).y + y'(1 - T) y - tr(C_1 (1 - T)),  y = x - mu_1,

    is the derivative of d with respect to the weight of x, and T = C_2^(1/2) (C_2^(1/2) C_1 C_2^(1/2))^(-1/2) C_2^(1/2) is the linear map
    from the first Gaussian to the second. The error is the standard deviation of IF divided by sqrt(N).

    It does not contain the bias. If the two distributions are almost equal, the first derivative is almost zero and the error is too large,
    by a factor of 2 at most.

    Args:
        generated: features, (N, D).
        own: the moments of `generated`.
        real: the moments of the real features.

    Example:
        >>> import torch
        >>> from amgen.evaluation.frechet import frechet_error
        >>> from amgen.evaluation.moments import Moments
        >>> generated, real = torch.randn(1000, 3) + 2, torch.randn(5000, 3)
        >>> error = frechet_error(generated, Moments.of(generated), Moments.of(real))
        >>> 0.1 < error < 0.4  # the distance is 12, and its error about 2 |mu_1 - mu_2| / sqrt(N) = 0.22
        True
    """
    n, offset = len(generated), own.mean - real.mean
    if n < len(own.mean):  # then y'Ty of all images are the diagonal of (n - 1) (F C_2 F')^(1/2), where F = y / sqrt(n - 1)
        y = generated.double() - own.mean
        transported = power(real.between(y), 0.5).diagonal() * (n - 1) ** 0.5
        influence = 2 * y @ offset + y.square().sum(dim=1) - transported
    else:
        transport = real.root @ power(real.root @ own.covariance @ real.root, -0.5) @ real.root
        parts = (part.double() - own.mean for part in generated.split(ROWS))
        influence = torch.cat([2 * y @ offset + (y * (y - y @ transport)).sum(dim=1) for y in parts])
    return float(influence.std() / n**0.5)


def frechet_by_sample_size(generated: Tensor, real: Moments, seed: int) -> list[tuple[int, float]]:
    """Return the mean Fréchet distances of disjoint random subsets of n/4, n/2 and n images, as pairs (size, distance).

    Example:
        >>> import torch
        >>> from amgen.evaluation.frechet import extrapolate_to_infinity, frechet_by_sample_size
        >>> from amgen.evaluation.moments import Moments
        >>> real = Moments(torch.zeros(8).double(), torch.eye(8).double())
        >>> found = frechet_by_sample_size(torch.randn(400, 8), real, seed=0)
        >>> [size for size, _ in found]
        [100, 200, 400]
        >>> found[0][1] > found[1][1] > found[2][1] > extrapolate_to_infinity(found)
        True
    """
    order = permutation(seed, Purpose.EVALUATION_SPLIT, -2, len(generated))
    found = []
    for parts in (4, 2, 1):
        size = len(generated) // parts
        subsets = [order[part * size : (part + 1) * size] for part in range(parts)]
        found.append((size, _mean([frechet_distance(Moments.of(generated, rows), real) for rows in subsets])))
    return found


def extrapolate_to_infinity(by_sample_size: Sequence[tuple[int, float]]) -> float:
    """Return the Fréchet distance extrapolated to infinitely many generated images, which removes most of the bias.

    It is the intercept of the least-squares line of the distance over 1/n (Chong and Forsyth 2020, arXiv 1911.07023). It is
    noisier than the distance of all images, and may be below 0.

    Args:
        by_sample_size: pairs (size, distance) of at least two sizes.

    Example:
        >>> round(extrapolate_to_infinity([(100, 3.0), (200, 2.0), (400, 1.5)]), 6)  # 1 + 200 / n
        1.0
    """
    inverse = torch.tensor([1 / size for size, _ in by_sample_size], dtype=torch.float64)
    values = torch.tensor([value for _, value in by_sample_size], dtype=torch.float64)
    line = torch.linalg.lstsq(torch.stack([torch.ones_like(inverse), inverse], dim=1), values[:, None]).solution
    return float(line[0, 0])


@dataclass
class MatchedDistance:
    """Two Fréchet distances at the same sample size, so with the same bias.

    Attributes:
        n: number of images on each side.
        splits: number of random splits that are averaged.
        generated: distance of generated from real images.
        floor: distance of real images from other real images: the value of a perfect generator.
        generated_error: standard error of `generated` over the splits.
        floor_error: standard error of `floor` over the splits.
    """

    n: int
    splits: int
    generated: float
    floor: float
    generated_error: float
    floor_error: float

    @property
    def ratio(self) -> float:
        """`generated` divided by `floor`; 1 for a perfect generator, infinite if the floor is 0."""
        return self.generated / self.floor if self.floor > 0 else math.inf


def matched_distance(generated: Tensor, real: Tensor, seed: int, splits: int = 5) -> MatchedDistance:
    """Return the Fréchet distance of generated images beside that of real images, at the same sample size n.

    Each split divides the real features at random into halves A and B. It measures generated images against A, and B against A. n is half
    the number of real images, or the number of generated images if that is smaller.

    Args:
        generated: features, (N, D).
        real: features, (M, D).
        seed: seed of the splits.
        splits: number of splits.

    Example:
        >>> import torch
        >>> from amgen.evaluation.frechet import matched_distance
        >>> real, generated = torch.randn(2000, 4), torch.randn(2000, 4)
        >>> found = matched_distance(generated, real, seed=0)
        >>> found.n, found.splits, 0.5 < found.ratio < 2
        (1000, 5, True)
        >>> matched_distance(generated + 1, real, seed=0).ratio > 50
        True
    """
    n = min(len(generated), len(real) // 2)
    distances, floors = [], []
    for split in range(splits):
        order = permutation(seed, Purpose.EVALUATION_SPLIT, split, len(real))
        half, other = Moments.of(real, order[:n]), Moments.of(real, order[n : 2 * n])
        subset = permutation(seed, Purpose.EVALUATION_SPLIT, splits + split, len(generated))[:n]
        distances.append(frechet_distance(Moments.of(generated, subset), half))
        floors.append(frechet_distance(other, half))
    errors = [float(torch.tensor(values, dtype=torch.float64).std()) / splits**0.5 for values in (distances, floors)]
    return MatchedDistance(n, splits, _mean(distances), _mean(floors), *errors)


def _mean(values: list[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).mean())
