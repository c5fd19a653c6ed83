"""Figures that compare generated with real images through their features, with their errors; all but Fréchet distances by torch-fidelity.

Features are (N, D) for generated and (M, D) for real images. Everything random is a function of the seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from amgen.core.errors import UserError
from amgen.core.randomness import Purpose, permutation
from amgen.evaluation.moments import ROWS, Moments, power
from amgen.evaluation.names import NEIGHBOURS, SPLITS


@dataclass
class Figure:
    """A number with a name.

    Attributes:
        name: what it is called.
        value: the number.
        standard_error: its standard error; None where it is not known.
        note: what it means and depends on, in words.
        details: the same for JSON, and more.
        lower_is_better: whether a better model has a lower value; None where neither extreme is good.
    """

    name: str
    value: float
    standard_error: float | None = None
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    lower_is_better: bool | None = True

    def better(self, other: "Figure") -> bool:
        """Tell whether this is the better one of two figures of the same name."""
        if self.lower_is_better is None:
            return False
        return self.value < other.value if self.lower_is_better else self.value > other.value

    def line(self) -> str:
        """Return the figure in words."""
        error = "" if self.standard_error is None else f" +- {self.standard_error:.2g}"
        return f"{self.name} {self.value:.4g}{error}" + (f": {self.note}" if self.note else "")


def distance(first: Moments, second: Moments) -> float:
    """Fréchet distance between Gaussians of these moments.

    |mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)); called FID when the features are Inception-v3's (arXiv 1706.08500).
    """
    offset = first.mean - second.mean
    return float(offset @ offset) + first.variance + second.variance - 2 * _overlap(first, second)


def _overlap(first: Moments, second: Moments) -> float:
    """Return tr (C_1 C_2)^(1/2), from matrices no larger than the vectors or the dimensions are many, whichever is less.

    With C = F'F it is the sum of the singular values of F_1 F_2', or that of the roots of the eigenvalues of F_1 C_2 F_1'.
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


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Fréchet distance between two sets of features, each of at least 2."""
    return distance(Moments.of(first), Moments.of(second))


def frechet_error(generated: Tensor, own: Moments, real: Moments) -> float:
    """Standard error of the Fréchet distance that comes of drawing other images, whose `own` moments are given, and the same real ones.

    By the infinitesimal jackknife: image x moves the distance d by IF(x)/N, where

        IF(x) = 2 (mu_1 - mu_2).y + y'(1 - T) y - tr(C_1 (1 - T)),  y = x - mu_1,

    is the derivative of d in the weight of x and T = C_2^(1/2) (C_2^(1/2) C_1 C_2^(1/2))^(-1/2) C_2^(1/2) the map that carries one
    Gaussian to the other; so the error is the deviation of IF over the square root of N. It tells nothing of the bias, and where the two
    distributions are as good as equal, so that the first derivative vanishes, it is up to about twice too large.
    """
    n, offset = len(generated), own.mean - real.mean
    if n < len(own.mean):  # y' T y of all images are then the diagonal of (n - 1) (F C_2 F')^(1/2), F holding the y over root (n - 1)
        y = generated.double() - own.mean
        carried = power(real.between(y), 0.5).diagonal() * (n - 1) ** 0.5
        influence = 2 * y @ offset + y.square().sum(dim=1) - carried
    else:
        transport = real.root @ power(real.root @ own.covariance @ real.root, -0.5) @ real.root
        parts = (part.double() - own.mean for part in generated.split(ROWS))
        influence = torch.cat([2 * y @ offset + (y * (y - y @ transport)).sum(dim=1) for y in parts])
    return float(influence.std() / n**0.5)


def frechet_by_number(generated: Tensor, real: Moments, seed: int) -> list[tuple[int, float]]:
    """Return the mean Fréchet distances of disjoint random parts of n/4, n/2 and n images, as pairs of number and distance."""
    order = permutation(seed, Purpose.EVALUATION_SPLIT, -2, len(generated))
    found = []
    for parts in (4, 2, 1):
        size = len(generated) // parts
        chosen = [order[part * size : (part + 1) * size] for part in range(parts)]
        found.append((size, _mean([distance(Moments.of(generated, rows), real) for rows in chosen])))
    return found


def at_infinity(by_number: Sequence[tuple[int, float]]) -> float:
    """Extrapolate distances to infinitely many generated images: the intercept of a line in 1/n (arXiv 1911.07023)."""
    inverse = torch.tensor([1 / number for number, _ in by_number], dtype=torch.float64)
    values = torch.tensor([value for _, value in by_number], dtype=torch.float64)
    line = torch.linalg.lstsq(torch.stack([torch.ones_like(inverse), inverse], dim=1), values[:, None]).solution
    return float(line[0, 0])


@dataclass
class MatchedDistance:
    """Fréchet distances at equal sample sizes, whose bias therefore is the same.

    Attributes:
        n: images on each side.
        splits: random splits averaged over.
        generated: generated images against real ones.
        floor: real images against other real ones: what a perfect generator scores.
        generated_error: standard error of `generated` over the splits.
        floor_error: that of `floor`.
    """

    n: int
    splits: int
    generated: float
    floor: float
    generated_error: float
    floor_error: float

    @property
    def ratio(self) -> float:
        """Generated over floor; 1 means as close to the data as the data itself."""
        return self.generated / self.floor if self.floor > 0 else math.inf


def matched_distance(generated: Tensor, real: Tensor, seed: int, splits: int = 5) -> MatchedDistance:
    """Split the real features into two random halves A and B; compare generated with A, and B with A, at the same n.

    n is half the number of real images, or the number of generated ones if that is less.
    """
    n = min(len(generated), len(real) // 2)
    distances, floors = [], []
    for split in range(splits):
        order = permutation(seed, Purpose.EVALUATION_SPLIT, split, len(real))
        half, other = Moments.of(real, order[:n]), Moments.of(real, order[n : 2 * n])
        chosen = permutation(seed, Purpose.EVALUATION_SPLIT, splits + split, len(generated))[:n]
        distances.append(distance(Moments.of(generated, chosen), half))
        floors.append(distance(other, half))
    errors = [float(torch.tensor(values, dtype=torch.float64).std()) / splits**0.5 for values in (distances, floors)]
    return MatchedDistance(n, splits, _mean(distances), _mean(floors), *errors)


def kernel_distance(generated: Tensor, real: Tensor, subsets: int, size: int, seed: int) -> tuple[float, float | None]:
    """Return the Kernel Inception Distance (arXiv 1801.01401), the mean over random subsets of `size` images, and its standard error.

    Subsets of the same images overlap, so that the mean over them is no surer than all N images make it. An unbiased estimate from N images
    has about q = m/N times the variance of one from m, and subsets of m drawn from them without replacement show 1 - q of the latter: the
    error is the deviation over the subsets times sqrt(q / (1 - q)), N being the smaller set. It is not known (None) for q above 0.9 or a
    single subset.

    Raises:
        UserError: if a set is smaller than a subset.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    fewest = min(len(generated), len(real))
    if size > fewest:
        raise UserError(f"KID subsets of {size} images need as many on each side, not {fewest}: set --kid-subset-size {fewest // 2}")
    found = kid_features_to_metric(generated, real, kid_subsets=subsets, kid_subset_size=size, rng_seed=seed % 2**32, verbose=False)
    share = size / fewest
    if share > 0.9 or subsets < 2:
        return found[KEY_METRIC_KID_MEAN], None
    deviation = found[KEY_METRIC_KID_STD] * (subsets / (subsets - 1)) ** 0.5
    return found[KEY_METRIC_KID_MEAN], deviation * (share / (1 - share)) ** 0.5


def inception_score(logits: Tensor, seed: int) -> tuple[float, float]:
    """Return exp E KL(p(class | image) | p(class)), the mean over ten parts (arXiv 1606.03498), and its standard error.

    Raises:
        UserError: if there are fewer images than parts.
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    if len(logits) < SPLITS:
        raise UserError(f"the Inception Score is a mean over {SPLITS} parts: draw at least {SPLITS} images, not {len(logits)}")
    found = isc_features_to_metric(logits, SPLITS, rng_seed=seed % 2**32)
    return found[KEY_METRIC_ISC_MEAN], found[KEY_METRIC_ISC_STD] / (SPLITS - 1) ** 0.5


def precision_recall(generated: Tensor, real: Tensor) -> tuple[float, float]:
    """Return the shares of generated images among the real ones, and of real among the generated ones (arXiv 1904.06991).

    An image is among others if it is closer to one of them than that one's third neighbour.

    Raises:
        UserError: if a set is too small to have third neighbours.
    """
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    fewest = min(len(generated), len(real))
    if fewest <= NEIGHBOURS:
        raise UserError(f"precision and recall look at {NEIGHBOURS} neighbours: give more than {fewest} images")
    # In parts: distances between 50,000 images and as many others would fill 10 GB.
    found = prc_features_to_metric(generated, real, prc_neighborhood=NEIGHBOURS, prc_batch_size=2_000, save_cpu_ram=True, verbose=False)
    return found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL]


def nearest(features: Tensor, others: Tensor, skip: Sequence[int] | None = None, rows: int = 1_000) -> tuple[Tensor, Tensor]:
    """Return the distance of each feature vector (N, D) to the nearest of `others` (M, D), and which that is, both (N,).

    Args:
        features: the vectors.
        others: those to look among.
        skip: for each vector the one of `others` that does not count: itself, where it is among them.
        rows: vectors looked at together, which bounds the memory.
    """
    # Distances by products of matrices cancel: less about the centre, and not at all where the chosen ones are measured anew.
    centre = others.mean(dim=0)
    centred = others - centre
    distances, places = [], []
    for start in range(0, len(features), rows):
        part = features[start : start + rows]
        table = torch.cdist(part - centre, centred)
        if skip is not None:
            table[torch.arange(len(table)), torch.as_tensor(skip[start : start + rows])] = torch.inf
        chosen = table.argmin(dim=1)
        distances.append((part - others[chosen]).norm(dim=1))
        places.append(chosen)
    return torch.cat(distances), torch.cat(places)


def share_closer(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Return P(a < b) for a of `first` (N,) and b of `second` (M,), ties counting half, and its standard error (Mann and Whitney).

    The error is that of the two means of which the estimate is made, to first order (DeLong).
    """
    order = torch.sort(second).values
    above = lambda values, edge: torch.searchsorted(edge, values, right=True) + torch.searchsorted(edge, values)  # noqa: E731
    smaller = 1 - above(first, order).double() / (2 * len(second))  # for each a, the share of b above it
    larger = above(second, torch.sort(first).values).double() / (2 * len(first))
    variance = smaller.var() / len(first) + larger.var() / len(second)
    return float(smaller.mean()), float(variance.sqrt())


def _mean(values: list[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).mean())
