"""Metrics against closed forms, repetition, and torch-fidelity run on its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from amgen.config import DataConfig
from amgen.core.errors import UserError
from amgen.core.randomness import Purpose, permutation
from amgen.data import open_dataset, to_float
from amgen.evaluation import metrics
from amgen.evaluation.features import make_extractor
from amgen.evaluation.features.inception import InceptionFeatures
from amgen.evaluation.frechet import (
    extrapolate_to_infinity,
    frechet_by_sample_size,
    frechet_distance,
    frechet_error,
    matched_distance,
)
from amgen.evaluation.moments import Moments
from amgen.evaluation.scores import Score


def test_frechet_distance_of_commuting_covariances() -> None:
    """For diagonal covariances d^2 = |m1 - m2|^2 + sum (s1 - s2)^2; features built to have exactly these moments.

    Eight corners +-s around the mean, scaled so that the unbiased covariance is diag(s^2): no sampling error, 1e-9 for rounding.
    """
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3) * (7 / 8) ** 0.5
    first, second = torch.tensor([[1.0, 2.0, 0.5], [0.3, 2.0, 1.5]], dtype=torch.float64)
    offset = torch.tensor([0.1, -0.4, 2.0], dtype=torch.float64)
    expected = float(offset.square().sum() + (first - second).square().sum())
    assert frechet_distance(corners * first, corners * second + offset) == pytest.approx(expected, abs=1e-9)


def test_frechet_distance_against_a_matrix_square_root() -> None:
    """An independent computation through scipy.linalg.sqrtm on correlated features."""
    from scipy.linalg import sqrtm

    generator = np.random.default_rng(0)
    first, second = (generator.normal(size=(200, 5)) @ generator.normal(size=(5, 5)) + shift for shift in (0, 0.3))
    c1, c2 = np.cov(first.T), np.cov(second.T)
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert frechet_distance(torch.tensor(first), torch.tensor(second)) == pytest.approx(expected, rel=1e-8)


SIZES = {"both few": (30, 40), "few generated": (30, 150), "few real": (150, 40), "both many": (150, 200)}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_distance_is_torch_fidelitys(sizes: tuple[int, int]) -> None:
    """In 64 dimensions, of fewer and of more vectors than that, with the vectors at hand or their moments alone: all agree to 1e-6.

    torch-fidelity takes roots of the eigenvalues of C_1 C_2. Of fewer vectors than dimensions some are 0 up to rounding, about 1e-16 of the
    largest, so that each of their roots is off by up to 1e-8 of its root.
    """
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    first, second = (gaussians(seed, 1, number, 64)[0] + 0.3 * seed for seed, number in zip((0, 1), sizes, strict=True))
    pair = [{"mu": features.double().numpy().mean(axis=0), "sigma": np.cov(features.double().numpy().T)} for features in (first, second)]
    expected = fid_statistics_to_metric(*pair, verbose=False)[KEY_METRIC_FID]
    alone = [Moments(torch.from_numpy(one["mu"]), torch.from_numpy(one["sigma"])) for one in pair]
    for one in (Moments.of(first), alone[0]):
        for other in (Moments.of(second), alone[1]):
            assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_error_of_few_vectors_is_that_by_the_map(sizes: tuple[int, int]) -> None:
    """Against the formula with D x D matrices, by scipy's matrix roots, on the range of the generated vectors."""
    from scipy.linalg import sqrtm

    first, second = (gaussians(seed, 1, number, 64)[0].double() + 0.3 * seed for seed, number in zip((0, 1), sizes, strict=True))
    c1, c2 = np.cov(first.numpy().T), np.cov(second.numpy().T)
    root = sqrtm(c2 + 1e-13 * np.eye(64)).real
    middle = root @ c1 @ root
    values, vectors = np.linalg.eigh((middle + middle.T) / 2)
    inverse = np.where(values > values.max() * 1e-10, np.clip(values, 1e-300, None) ** -0.5, 0)
    transport = root @ (vectors * inverse) @ vectors.T @ root
    y, offset = first.numpy() - first.numpy().mean(axis=0), first.numpy().mean(axis=0) - second.numpy().mean(axis=0)
    influence = 2 * y @ offset + (y * y).sum(axis=1) - np.einsum("ni,ij,nj->n", y, transport, y)
    expected = influence.std(ddof=1) / len(y) ** 0.5
    own, real = Moments.of(first), Moments.of(second)
    assert frechet_error(first, own, real) == pytest.approx(expected, rel=1e-5)
    assert frechet_error(first, own, Moments(real.mean, real.covariance)) == pytest.approx(expected, rel=1e-5)


def test_few_vectors_never_make_a_covariance() -> None:
    """20 and 30 vectors of 4,096 dimensions, whose covariances would fill 268 MB: they are never computed."""
    first, second = torch.randn(20, 4096), torch.randn(30, 4096)
    own, real = Moments.of(first), Moments.of(second)
    frechet_distance(own, real)
    frechet_error(first, own, real)
    assert "covariance" not in own.__dict__
    assert "covariance" not in real.__dict__
    many = Moments.of(torch.randn(200, 100))
    assert many.factor is None
    frechet_distance(Moments.of(torch.randn(10, 100)), many)
    assert "covariance" not in many.__dict__


def test_moments_against_numpy() -> None:
    features = torch.randn(9, 4)
    rows = torch.tensor([0, 2, 3, 5, 7, 8])
    moments = Moments.of(features, rows)
    expected = np.cov(features[rows].double().numpy().T)
    assert moments.covariance.numpy() == pytest.approx(expected, rel=1e-12)
    assert moments.mean.numpy() == pytest.approx(features[rows].double().numpy().mean(axis=0), rel=1e-12)
    assert moments.variance == pytest.approx(np.trace(expected), rel=1e-12)
    assert (moments.root @ moments.root).numpy() == pytest.approx(expected, abs=1e-12)
    few = Moments.of(features, rows[:3])
    assert few.factor is not None
    assert (few.factor.T @ few.factor).numpy() == pytest.approx(np.cov(features[rows[:3]].double().numpy().T), abs=1e-12)
    with pytest.raises(UserError, match="at least 2 images on each side, not 1"):
        Moments.of(features, rows[:1])


def test_matched_distance_of_the_data_itself_is_the_floor() -> None:
    """Fresh samples of the same distribution score within a tenth of the floor; shifted ones far above it."""
    generator = torch.Generator().manual_seed(0)
    real, fresh = torch.randn(2, 2000, 8, generator=generator)
    same = matched_distance(fresh, real, seed=0, splits=20)
    assert same.n == 1000
    assert 0.8 < same.ratio < 1.25
    assert matched_distance(fresh + 0.5, real, seed=0).ratio > 20
    assert matched_distance(fresh[:100], real, seed=0).n == 100


def test_matched_distance_by_hand() -> None:
    """Of 21 real vectors halves of 10, by permutations of streams 0, 1, 2 of the seed; of 13 generated ones 10, by streams 3, 4, 5."""
    generated, real = gaussians(1, 1, 13, 4)[0], gaussians(2, 1, 21, 4)[0]
    distances, floors = [], []
    for split in range(3):
        order, subset = (permutation(7, Purpose.EVALUATION_SPLIT, *stream) for stream in ((split, 21), (3 + split, 13)))
        distances.append(frechet_distance(generated[subset[:10]], real[order[:10]]))
        floors.append(frechet_distance(real[order[10:20]], real[order[:10]]))
    found = matched_distance(generated, real, seed=7, splits=3)
    assert (found.n, found.splits) == (10, 3)
    assert (found.generated, found.floor) == pytest.approx((np.mean(distances), np.mean(floors)), rel=1e-9)
    errors = [np.std(values, ddof=1) / 3**0.5 for values in (distances, floors)]
    assert (found.generated_error, found.floor_error) == pytest.approx(errors, rel=1e-6)
    assert found.ratio == pytest.approx(np.mean(distances) / np.mean(floors))
    assert replace(found, floor=0.0).ratio == np.inf
    assert replace(found, floor=1.0, generated=0.5).ratio == 0.5
    assert matched_distance(generated, real, seed=7).splits == 5


def test_distances_by_number_by_hand() -> None:
    """Of 11 vectors four parts of 2, two of 5 and one of all, in the order of stream -2 of the seed."""
    generated, real = gaussians(1, 1, 11, 2)[0], gaussians(2, 1, 30, 2)[0]
    order = permutation(7, Purpose.EVALUATION_SPLIT, -2, 11)
    expected = []
    for size, parts in ((2, 4), (5, 2), (11, 1)):
        rows = [order[part * size : (part + 1) * size] for part in range(parts)]
        expected.append((size, np.mean([frechet_distance(generated[part], real) for part in rows])))
    found = frechet_by_sample_size(generated, Moments.of(real), seed=7)
    assert [number for number, _ in found] == [number for number, _ in expected]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-9)


def test_scores_are_better_in_their_own_direction() -> None:
    low, high = (Score("FID", value) for value in (1.0, 2.0))
    assert low.better(high)
    assert not high.better(low)
    assert not low.better(low)
    low, high = (Score("IS", value, lower_is_better=False) for value in (1.0, 2.0))
    assert high.better(low)
    assert not low.better(high)
    assert not high.better(high)
    low, high = (Score("nearness", value, lower_is_better=None) for value in (0.4, 0.6))
    assert not low.better(high)
    assert not high.better(low)


def test_scores_as_text() -> None:
    assert Score("FID", 12.3456).line() == "FID 12.35"
    assert Score("FID", 12.3456, 0.125, "of 10 images").line() == "FID 12.35 +- 0.12: of 10 images"
    assert Score("FID", 12.3456, 0.0).line() == "FID 12.35 +- 0"


def gaussians(seed: int, count: int, number: int, dimension: int) -> Tensor:
    """`count` sets of correlated features that differ from standard normal ones."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.eye(dimension) + 0.3 * torch.randn(dimension, dimension, generator=torch.Generator().manual_seed(99))
    return 0.2 + torch.randn(count, number, dimension, generator=generator) @ mixing


def test_error_of_the_distance_is_that_of_repetition() -> None:
    """Against the deviation over 300 fresh sets, known to 4 %; the estimate itself varies by a few per cent more: 15 %."""
    real = Moments(torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64))
    sets = gaussians(0, 300, 500, 4)
    distances = torch.tensor([frechet_distance(Moments.of(features), real) for features in sets])
    errors = torch.tensor([frechet_error(features, Moments.of(features), real) for features in sets[:20]])
    assert float(errors.mean()) == pytest.approx(float(distances.std()), rel=0.15)


def test_error_of_the_distance_between_shifted_copies() -> None:
    """With equal covariances C the distance is |m|^2 of the shift m, and its error 2 sqrt(m'Cm / n) exactly."""
    features = gaussians(5, 1, 300, 4)[0].double()
    own, shift = Moments.of(features), torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    error = frechet_error(features, own, Moments(own.mean + shift, own.covariance))
    assert error == pytest.approx(2 * float(shift @ own.covariance @ shift / 300) ** 0.5, rel=1e-9)


def test_error_of_the_distance_with_covariances_that_are_singular() -> None:
    """A constant feature, as of a dead unit, changes neither the distance nor its error."""
    features = gaussians(1, 1, 300, 3)[0].double()
    real = gaussians(2, 1, 500, 3)[0].double()
    constant = torch.cat([features, torch.ones(300, 1)], dim=1), torch.cat([real, torch.ones(500, 1)], dim=1)
    expected = frechet_error(features, Moments.of(features), Moments.of(real))
    assert frechet_error(constant[0], Moments.of(constant[0]), Moments.of(constant[1])) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(*constant) == pytest.approx(frechet_distance(features, real), rel=1e-6)


def test_extrapolation_removes_the_bias() -> None:
    """For N(0, 1) against itself the true distance is 0; at n = 400 in 8 dimensions the bias is over ten times what is left.

    The remainder is compared with the standard error of the mean of 40 extrapolations.
    """
    real = Moments(torch.zeros(8, dtype=torch.float64), torch.eye(8, dtype=torch.float64))
    sets = torch.randn(40, 400, 8, generator=torch.Generator().manual_seed(0))
    found = [frechet_by_sample_size(features, real, seed=0) for features in sets]
    assert [number for number, _ in found[0]] == [100, 200, 400]
    assert found[0][2][1] == pytest.approx(frechet_distance(Moments.of(sets[0]), real), rel=1e-9)
    extrapolated = torch.tensor([extrapolate_to_infinity(by_number) for by_number in found])
    bias = float(torch.tensor([by_number[2][1] for by_number in found]).mean())
    assert bias > 0.03
    assert abs(float(extrapolated.mean())) < max(3 * float(extrapolated.std()) / 40**0.5, bias / 10)
    assert extrapolate_to_infinity([(100, 3.0), (200, 2.0), (400, 1.5)]) == pytest.approx(1.0)  # 1 + 200 / n


def test_error_of_kid_is_that_of_repetition() -> None:
    """Against the deviation over 60 fresh pairs of sets, known to 9 %, for subsets of a quarter, half and four fifths: within 35 %.

    The estimate from 40 subsets varies by 11 % itself, and the rule is first order.
    """
    sets = 0.6 + gaussians(3, 60, 200, 4)
    others = torch.randn(60, 200, 4, generator=torch.Generator().manual_seed(4))
    for size in (50, 100, 160):
        found = [metrics.kernel_distance(first, second, 40, size, seed=0) for first, second in zip(sets, others, strict=True)]
        values, errors = zip(*found, strict=True)
        assert float(np.mean(errors)) == pytest.approx(float(np.std(values, ddof=1)), rel=0.35)
    assert metrics.kernel_distance(sets[0], others[0], 40, 200, seed=0)[1] is None
    with pytest.raises(UserError, match="subsets of 300 images need at least 300 images on each side, not 200: set --kid-subset-size 100"):
        metrics.kernel_distance(sets[0], others[0], 10, 300, seed=0)


def test_kid_and_its_error_by_hand() -> None:
    """Against torch-fidelity's mean and deviation over the same subsets: times sqrt(s / (s - 1)) and sqrt(q / (1 - q)), q = 9 / 10."""
    from torch_fidelity.metric_kid import kid_features_to_metric

    first, second = gaussians(3, 1, 10, 4)[0], gaussians(4, 1, 12, 4)[0]
    expected = kid_features_to_metric(first, second, kid_subsets=2, kid_subset_size=9, rng_seed=7, verbose=False)
    value, error = metrics.kernel_distance(first, second, 2, 9, seed=7)
    assert value == pytest.approx(expected["kernel_inception_distance_mean"])
    assert error == pytest.approx(expected["kernel_inception_distance_std"] * 2**0.5 * 3)
    assert metrics.kernel_distance(first, second, 2, 9, seed=7 + 2**32) == (value, error)  # the seeds that it takes have 32 bits
    for other in (8, 7 + 2**31):
        assert metrics.kernel_distance(first, second, 2, 9, seed=other)[0] != value
    assert metrics.kernel_distance(first, second, 1, 9, seed=7)[1] is None
    whole = metrics.kernel_distance(first, second, 2, 10, seed=7)
    assert whole[1] is None
    assert metrics.kernel_distance(first, second, 5, 4, seed=7)[1] is not None
    with pytest.raises(UserError, match="subsets of 11 images need at least 11 images on each side, not 10: set --kid-subset-size 5"):
        metrics.kernel_distance(first, second, 2, 11, seed=7)
    with pytest.raises(UserError, match="subsets of 11 images need at least 11 images on each side, not 10"):
        metrics.kernel_distance(second, first, 2, 11, seed=7)


def test_inception_score_by_hand() -> None:
    """Ten parts of two images in torch-fidelity's order: exp of the mean divergence from the part's mean, and the error of their mean."""
    logits = 2 * torch.randn(20, 3, generator=torch.Generator().manual_seed(1)).double()
    shuffled = logits[np.random.RandomState(7).permutation(20)].softmax(dim=1)
    scores = [float((part * (part.log() - part.mean(dim=0, keepdim=True).log())).sum(dim=1).mean().exp()) for part in shuffled.split(2)]
    value, error = metrics.inception_score(logits, seed=7)
    assert value == pytest.approx(np.mean(scores), rel=1e-6)
    assert error == pytest.approx(np.std(scores, ddof=1) / 10**0.5, rel=1e-6)
    assert metrics.inception_score(logits, seed=7 + 2**32) == (value, error)
    for other in (8, 7 + 2**31):
        assert metrics.inception_score(logits, seed=other)[0] != value
    assert metrics.inception_score(logits[:10], seed=0)[0] == pytest.approx(1)  # parts of one image


def test_metrics_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    few = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    metrics.kernel_distance(few, few + 1, 2, 6, seed=0)
    metrics.inception_score(few, seed=0)
    metrics.precision_recall(few, few + 1)
    frechet_distance(Moments.of(few), Moments.of(few + 1))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_precision_and_recall_of_as_few_as_can_be() -> None:
    """Four vectors each have three neighbours; two far sets share nothing, and a set shares everything with itself."""
    few = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    assert metrics.precision_recall(few, few + 100) == (0, 0)
    assert metrics.precision_recall(few, few) == (1, 1)
    for pair in ((few[:3], few), (few, few[:3])):
        with pytest.raises(UserError, match="use 3 neighbours: give more than 3 images"):
            metrics.precision_recall(*pair)


def test_nearest_in_parts_and_without_itself() -> None:
    """Points on a line at squares: the nearest other one of k is k - 1."""
    points = torch.arange(12).square().float()[:, None]
    for rows in (5, 12, 1_000):
        distances, places = metrics.nearest(points, points, skip=range(12), rows=rows)
        assert places.tolist() == [1, *range(11)]
        assert distances.tolist() == [1, *(2 * k - 1 for k in range(1, 12))]


def test_copies_are_no_distance_away() -> None:
    """Far from the origin, where distances by products of matrices are off by hundreds of times the distances themselves."""
    training = 1_000 + torch.randn(100, 50, generator=torch.Generator().manual_seed(0))
    distances, places = metrics.nearest(training[:60], training)
    assert places.tolist() == list(range(60))
    assert distances.tolist() == [0.0] * 60


def test_probability_smaller_and_its_error_by_hand() -> None:
    """Of 1, 3, 5 against 2, 4: placements 1, 1/2, 0 and, of the others, 1/3, 2/3; variances 1/4 and 1/18, over 3 and 2."""
    share, error = metrics.probability_smaller(torch.tensor([5.0, 1.0, 3.0]), torch.tensor([4.0, 2.0]))
    assert share == pytest.approx(1 / 2)
    assert error == pytest.approx((1 / 12 + 1 / 36) ** 0.5)
    assert metrics.probability_smaller(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0])) == (0.5, 0.0)


def test_inception_score_of_certain_and_of_ignorant_classifiers() -> None:
    """K equally frequent classes recognised without doubt score K; no knowledge scores 1."""
    certain = 100 * torch.nn.functional.one_hot(torch.arange(200) % 4, 4).float()
    value, error = metrics.inception_score(certain, seed=0)
    assert value == pytest.approx(4, rel=0.1)  # parts of 20 images do not have exactly 5 of each class
    assert metrics.inception_score(torch.zeros(50, 4), seed=0) == pytest.approx((1, 0), abs=1e-12)
    assert error < 0.1
    with pytest.raises(UserError, match="generate at least 10 images, not 9"):
        metrics.inception_score(torch.zeros(9, 4), seed=0)


def test_precision_and_recall_tell_what_is_missing() -> None:
    """Generated images on half of the real ones: all are real, half of the real ones are reached. Exchanged sets swap both."""
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(300, 2, generator=generator), torch.randn(300, 2, generator=generator) + 100
    more = torch.randn(300, 2, generator=generator)
    precision, recall = metrics.precision_recall(more, torch.cat([left, right]))
    assert precision > 0.9
    assert 0.4 < recall <= 0.5
    swapped = metrics.precision_recall(torch.cat([left, right]), more)
    assert swapped == (recall, precision)
    with pytest.raises(UserError, match="use 3 neighbours: give more than 3 images"):
        metrics.precision_recall(left[:3], right)


def test_nearest_against_loops() -> None:
    first, second = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), torch.randn(5, 3)
    distances, places = metrics.nearest(first, second, rows=3)
    for row, (distance, place) in enumerate(zip(distances.tolist(), places.tolist(), strict=True)):
        table = [float((first[row] - other).norm()) for other in second]
        assert distance == pytest.approx(min(table), rel=1e-5)
        assert place == table.index(min(table))
    alone, others = metrics.nearest(first, first, skip=range(7), rows=3)
    assert alone.min() > 0
    assert (others != torch.arange(7)).all()


def test_probability_smaller_against_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(0, 6, (40,), generator=generator).float(), torch.randint(1, 8, (30,), generator=generator).float()
    pairs = (first[:, None] < second).double() + 0.5 * (first[:, None] == second).double()
    assert metrics.probability_smaller(first, second)[0] == pytest.approx(float(pairs.mean()), abs=1e-12)
    # The error against repetition: 400 pairs of normal sets, deviation known to 4 %.
    sets = torch.randn(2, 400, 50, generator=generator)
    found = [metrics.probability_smaller(a, b + 0.5) for a, b in zip(*sets, strict=True)]
    values, errors = (torch.tensor(column) for column in zip(*found, strict=True))
    assert float(errors.mean()) == pytest.approx(float(values.std()), rel=0.1)


def test_copies_are_noticed() -> None:
    """Copies of training images are always nearer to them than training images to each other; fresh ones are not."""
    generator = torch.Generator().manual_seed(0)
    training, fresh = torch.randn(2, 200, 5, generator=generator)
    usual, _ = metrics.nearest(training, training, skip=range(200))
    copied, _ = metrics.nearest(training[:50] + 1e-3, training)
    assert metrics.probability_smaller(copied, usual)[0] > 0.99
    share, error = metrics.probability_smaller(metrics.nearest(fresh, training)[0], usual)
    assert abs(share - 0.5) < 3 * error


def assert_parity(first: Tensor, second: Tensor, extractor: str, f1: Tensor, f2: Tensor, logits: Tensor, **options: Any) -> None:
    """Assert that calculate_metrics finds what we do, to 1e-4 of each score, for uint8 images, their features and logits."""
    from torch_fidelity import calculate_metrics

    size = len(first) // 3
    found: dict[str, Any] = calculate_metrics(
        input1=Images(first), input2=Images(second), cuda=False, verbose=False, feature_extractor=extractor, fid=True, kid=True,
        isc=True, prc=True, kid_subset_size=size, kid_subsets=20, rng_seed=7, cache=False, batch_size=100, save_cpu_ram=True, **options,
    )  # fmt: skip
    precision, recall = metrics.precision_recall(f1, f2)
    expected = {
        "frechet_inception_distance": frechet_distance(f1, f2),
        "kernel_inception_distance_mean": metrics.kernel_distance(f1, f2, 20, size, seed=7)[0],
        "inception_score_mean": metrics.inception_score(logits, seed=7)[0],
        "precision": precision,
        "recall": recall,
    }
    for name, value in expected.items():
        assert value == pytest.approx(found[name], rel=1e-4), name


def test_parity_with_torch_fidelity(registered: str) -> None:
    """Real digits against other real digits, on a registered extractor."""
    digits = open_dataset(DataConfig())
    first, second = digits.images(range(600)), digits.images(range(600, 1400))
    f1, f2 = (features_of(images) for images in (first, second))
    assert_parity(first, second, registered, f1, f2, f1[:, :10])


def test_parity_on_photographs(registered: str, amgen_data: Path) -> None:
    """Cats against ships."""
    dataset = open_dataset(DataConfig(path=str(amgen_data / "cifar10-test.zip"), size=32, channels=3))
    classes = [dataset.source.classes.index(name) for name in ("cat", "ship")]
    first, second = (dataset.images((dataset.labels == label).nonzero()[:600, 0].tolist()) for label in classes)
    f1, f2 = (features_of(images) for images in (first, second))
    assert_parity(first, second, registered, f1, f2, f1[:, :10])


@pytest.mark.skipif(not InceptionFeatures.cached().is_file(), reason="the Inception weights are not in torch's cache")
def test_parity_on_inception() -> None:
    digits = open_dataset(DataConfig())
    first, second = digits.images(range(30)), digits.images(range(30, 60))
    extractor = make_extractor("inception", 1, 8)
    f1, f2 = (extractor(images) for images in (first, second))
    logits = extractor.logits(f1)
    assert logits is not None
    assert_parity(first, second, "inception-v3-compat", f1, f2, logits)


class Images(torch.utils.data.Dataset[Tensor]):
    """Gray images as torch-fidelity takes them."""

    def __init__(self, images: Tensor):
        self.images = images.expand(-1, 3, -1, -1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def features_of(images: Tensor) -> Tensor:
    """Sixteen mixtures of the first channel at 8x8, squashed: features that distinguish images without a network."""
    mixing = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)) / 8
    small = torch.nn.functional.adaptive_avg_pool2d(to_float(images[:, :1]), 8)
    return torch.tanh(small.flatten(1) @ mixing)


@pytest.fixture
def registered() -> str:
    """Register these features with torch-fidelity, once."""
    from torch_fidelity import register_feature_extractor
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    class Squashed(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **kwargs: Any):
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("all", "logits")

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits" if metric == "isc" else "all"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            every = features_of(images)
            return tuple({"all": every, "logits": every[:, :10]}[name] for name in self.features_list)

    if "squashed-digits" not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor("squashed-digits", Squashed)
    return "squashed-digits"
