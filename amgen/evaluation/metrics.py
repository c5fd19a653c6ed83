"""Metrics on features, beside the Fréchet distance: KID, Inception Score, precision and recall, nearest neighbours.

KID, Inception Score, precision and recall are computed by torch-fidelity. Features are float (N, D) for generated and (M, D) for real
images. All random choices are functions of the seed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from amgen.core.errors import UserError
from amgen.evaluation.arguments import NEIGHBOURS, SPLITS


class Estimate(NamedTuple):
    """A value and its standard error, None if it is unknown."""

    value: float
    standard_error: float | None


class PrecisionRecall(NamedTuple):
    """Precision and recall, each from 0 to 1."""

    precision: float
    recall: float


def kernel_distance(generated: Tensor, real: Tensor, subsets: int, size: int, seed: int) -> Estimate:
    """Return the Kernel Inception Distance (KID) and its standard error (Bińkowski et al. 2018, arXiv 1801.01401).

    KID is the unbiased estimate of the squared MMD with the kernel k(x, y) = (x.y / D + 1)^3, averaged over random subsets. 0 is best. It
    is unbiased, so the value of a good model may be below 0, and values at different n are comparable.

    Standard error: an unbiased estimate from N images has about q = m/N times the variance of one from m images. Subsets of m images, drawn
    without replacement from the same N, show 1 - q of that variance. So the error is the standard deviation over the subsets times
    sqrt(q / (1 - q)), where N is the size of the smaller set. It is unknown (None) for q above 0.9 and for a single subset.

    Args:
        generated: features, (N, D).
        real: features, (M, D).
        subsets: number of random subsets.
        size: images in each subset, at most N and M.
        seed: seed of the subsets.

    Raises:
        UserError: if a set is smaller than a subset.

    Example:
        >>> import torch
        >>> from amgen.evaluation.metrics import kernel_distance
        >>> real = torch.randn(400, 8)
        >>> value, error = kernel_distance(torch.randn(400, 8), real, subsets=20, size=100, seed=0)
        >>> abs(value) < 5 * error
        True
        >>> kernel_distance(torch.randn(400, 8) + 1, real, subsets=20, size=100, seed=0).value > 1
        True
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    fewest = min(len(generated), len(real))
    if size > fewest:
        raise UserError(
            f"KID subsets of {size} images need at least {size} images on each side, not {fewest}: set --kid-subset-size {fewest // 2}"
        )
    found = kid_features_to_metric(generated, real, kid_subsets=subsets, kid_subset_size=size, rng_seed=seed % 2**32, verbose=False)
    share = size / fewest
    if share > 0.9 or subsets < 2:
        return Estimate(found[KEY_METRIC_KID_MEAN], None)
    deviation = found[KEY_METRIC_KID_STD] * (subsets / (subsets - 1)) ** 0.5
    return Estimate(found[KEY_METRIC_KID_MEAN], deviation * (share / (1 - share)) ** 0.5)


def inception_score(logits: Tensor, seed: int) -> Estimate:
    """Return the Inception Score and its standard error (Salimans et al. 2016, arXiv 1606.03498, section 4).

    exp E KL(p(class | image) || p(class)), the mean over ten random parts of the images. It is between 1 and the number of classes; high is
    good. It does not look at real images, and its bias depends on the number of images: compare scores at equal numbers only.

    Args:
        logits: class logits, (N, classes), N >= 10.
        seed: seed of the parts.

    Raises:
        UserError: if there are fewer images than parts.

    Example:
        >>> import torch
        >>> from amgen.evaluation.metrics import inception_score
        >>> round(inception_score(torch.zeros(100, 4), seed=0).value, 3)  # a classifier that knows nothing
        1.0
        >>> certain = 100 * torch.nn.functional.one_hot(torch.arange(4000) % 4).float()  # four classes, recognised without doubt
        >>> 3.9 < inception_score(certain, seed=0).value <= 4
        True
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    if len(logits) < SPLITS:
        raise UserError(f"the Inception Score is a mean over {SPLITS} parts: generate at least {SPLITS} images, not {len(logits)}")
    found = isc_features_to_metric(logits, SPLITS, rng_seed=seed % 2**32)
    return Estimate(found[KEY_METRIC_ISC_MEAN], found[KEY_METRIC_ISC_STD] / (SPLITS - 1) ** 0.5)


def precision_recall(generated: Tensor, real: Tensor) -> PrecisionRecall:
    """Return improved precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991, equations 1 and 2, with k = 3).

    Precision is the fraction of generated images inside the manifold of real images; recall is the fraction of real images inside the
    manifold of generated images. A manifold is the union of balls around the images of a set. The radius of a ball is the distance from its
    image to the third-nearest neighbour in the set. Both are between 0 and 1; high is good.

    Both depend on the numbers of images: compare them at equal numbers only.

    Args:
        generated: features, (N, D), N > 3.
        real: features, (M, D), M > 3.

    Raises:
        UserError: if a set has three images or fewer.

    Example:
        Generated points that cover one of two clusters: all look real, and half of the real ones are missing.

        >>> import torch
        >>> from amgen.evaluation.metrics import precision_recall
        >>> real = torch.cat([torch.randn(300, 2), torch.randn(300, 2) + 100])
        >>> precision, recall = precision_recall(torch.randn(300, 2), real)
        >>> precision > 0.9, 0.4 < recall <= 0.5
        (True, True)
    """
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    fewest = min(len(generated), len(real))
    if fewest <= NEIGHBOURS:
        raise UserError(f"precision and recall use {NEIGHBOURS} neighbours: give more than {fewest} images")
    # In parts: the distances between 50,000 images and 50,000 others would fill 10 GB.
    found = prc_features_to_metric(generated, real, prc_neighborhood=NEIGHBOURS, prc_batch_size=2_000, save_cpu_ram=True, verbose=False)
    return PrecisionRecall(found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL])


def nearest(features: Tensor, others: Tensor, skip: Sequence[int] | None = None, rows: int = 1_000) -> tuple[Tensor, Tensor]:
    """Return the Euclidean distance of each feature vector to the nearest of `others`, and the index of that one.

    Args:
        features: the vectors, (N, D).
        others: the candidates, (M, D).
        skip: for each vector, the index of a candidate to leave out: the vector itself, if it is among the candidates.
        rows: number of vectors that are compared at once. It bounds the memory.

    Returns:
        The distances, float (N,), and the indices, int64 (N,).

    Example:
        >>> import torch
        >>> from amgen.evaluation.metrics import nearest
        >>> training = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
        >>> distances, indices = nearest(torch.tensor([[0.0, 1.0], [3.0, 4.0]]), training)
        >>> distances.tolist(), indices.tolist()
        ([1.0, 0.0], [0, 1])
        >>> nearest(training, training, skip=range(2))[0].tolist()
        [5.0, 5.0]
    """
    # torch.cdist multiplies matrices, which loses digits. Centred vectors lose fewer, and the distances found are computed again directly.
    centre = others.mean(dim=0)
    centred = others - centre
    distances, indices = [], []
    for start in range(0, len(features), rows):
        part = features[start : start + rows]
        table = torch.cdist(part - centre, centred)
        if skip is not None:
            table[torch.arange(len(table)), torch.as_tensor(skip[start : start + rows])] = torch.inf
        closest = table.argmin(dim=1)
        distances.append((part - others[closest]).norm(dim=1))
        indices.append(closest)
    return torch.cat(distances), torch.cat(indices)


def probability_smaller(first: Tensor, second: Tensor) -> Estimate:
    """Return P(a < b) + P(a = b) / 2 for a from `first` and b from `second`, and its standard error.

    This is the Mann-Whitney statistic divided by N M, from 0 to 1; 0.5 if both have the same distribution. The standard error is that of
    DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988).

    Args:
        first: numbers, (N,), N >= 2.
        second: numbers, (M,), M >= 2.

    Example:
        >>> import torch
        >>> from amgen.evaluation.metrics import probability_smaller
        >>> probability_smaller(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
        Estimate(value=1.0, standard_error=0.0)
    """
    order = torch.sort(second).values
    above = lambda values, edge: torch.searchsorted(edge, values, right=True) + torch.searchsorted(edge, values)  # noqa: E731
    smaller = 1 - above(first, order).double() / (2 * len(second))  # for each a, the fraction of b above it
    larger = above(second, torch.sort(first).values).double() / (2 * len(first))
    variance = smaller.var() / len(first) + larger.var() / len(second)
    return Estimate(float(smaller.mean()), float(variance.sqrt()))
