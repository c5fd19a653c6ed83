import itertools
import math

import numpy as np
import pytest
import torch

from amgen.core import randomness
from amgen.core.randomness import Purpose, derive_seed, dropout_seeds, gaussian, permutation, rademacher, uniform, uniforms, words

COUNT = 1000
ERROR = (1 / (COUNT * 200)) ** 0.5
"""Standard error of the mean of COUNT x 200 independent numbers of variance 1; tests allow 5 of them."""


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first.double() * second.double()).mean())


def test_gaussian_depends_on_seed_and_index_alone() -> None:
    """Bit for bit, whatever else is in the batch, in whatever order, and for sizes of images that leave a vector register half full."""
    for shape in ((1, 8, 8), (3,), (1, 5, 5)):
        whole = gaussian(3, Purpose.NOISE, range(37), shape)
        for part in ([7, 2], [36], range(5, 19)):
            assert torch.equal(gaussian(3, Purpose.NOISE, part, shape), whole[list(part)])


def test_images_that_shared_their_noise_do_not() -> None:
    """PyTorch's CPU generator keeps 32 bits of its seed, under which images 33,600 and 59,847 of seed 0 were the same."""
    first, second = gaussian(0, Purpose.SAMPLE_NOISE, [33_600, 59_847], (1, 8, 8))
    assert not torch.isclose(first, second).any()


def test_streams_of_many_images_are_all_others() -> None:
    """100,000 words of 64 bits: two alike have a chance of 3e-10, where 32 bits would give one pair or more in 69 of 100 cases."""
    assert len(np.unique(words(0, Purpose.SAMPLE_NOISE, range(100_000), 1))) == 100_000


def test_gaussian_is_standard_normal() -> None:
    """Moments up to the fourth, and the share beyond three deviations, over 200,000 draws, within 5 standard errors."""
    draws = gaussian(0, Purpose.NOISE, range(COUNT), (200,)).double()
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):  # E x^8 - 9 = 105 - 9
        assert abs((draws**power).mean() - mean) < 5 * variance**0.5 * ERROR
    tail = 0.0026998
    assert abs((draws.abs() > 3).double().mean() - tail) < 5 * tail**0.5 * ERROR


@pytest.mark.parametrize("purpose", [Purpose.NOISE, Purpose.BROWNIAN])
def test_streams_are_independent(purpose: Purpose) -> None:
    """Streams of other seeds, purposes and indices do not correlate, nor do their squares: within 5 standard errors."""
    base = gaussian(0, purpose, range(COUNT), (200,))
    others = {
        "seed": gaussian(1, purpose, range(COUNT), (200,)),
        "high bits of the seed": gaussian(2**62, purpose, range(COUNT), (200,)),
        "purpose": gaussian(0, Purpose.TIME, range(COUNT), (200,)),
        "next index": gaussian(0, purpose, range(1, COUNT + 1), (200,)),
        "far index": gaussian(0, purpose, range(2**32, 2**32 + COUNT), (200,)),
        "seed and index exchanged": torch.cat([gaussian(index, purpose, [0], (200,)) for index in range(1, COUNT + 1)]),
    }
    for name, other in others.items():
        assert abs(correlation(base, other)) < 5 * ERROR, name
        assert abs(correlation(base.square() - 1, other.square() - 1)) < 5 * 2 * ERROR, name
    assert abs(correlation(base[:, 1:], base[:, :-1])) < 5 * ERROR
    assert abs(correlation(base[:, :100], base[:, 100:])) < 5 * 2**0.5 * ERROR  # radius and angle of one pair


def test_blocks_of_neighbouring_indices_do_not_overlap() -> None:
    """An index that reads far into its stream never meets the numbers of the next one."""
    long = words(0, Purpose.NOISE, [4], 4_096)[0]
    assert not np.isin(words(0, Purpose.NOISE, range(5, 200), 4), long).any()
    assert np.array_equal(words(0, Purpose.NOISE, [4], 7)[0], long[:7])


def test_negative_and_large_indices_have_streams_of_their_own() -> None:
    found = words(0, Purpose.NOISE, [-1, 0, 1, 2**63 - 1], 1)[:, 0]
    assert len(np.unique(found)) == 4


def test_uniform_fills_the_unit_interval() -> None:
    """Mean 1/2 and variance 1/12 over 20,000 draws, within 5 standard errors; 1 is never reached."""
    for draws in (uniform(0, Purpose.FLIP, range(20_000)), uniforms(0, Purpose.AUXILIARY, range(4_000), 5).double().flatten()):
        assert draws.min() >= 0
        assert draws.max() < 1
        assert abs(draws.mean() - 0.5) < 5 * (1 / 12 / 20_000) ** 0.5
        assert abs(draws.var() - 1 / 12) < 5 * (1 / 180 / 20_000) ** 0.5


def test_every_entry_of_a_row_is_drawn() -> None:
    """Also where the last word of a row is used in part: each column has mean and variance of its own, within 6 standard errors."""
    for draws, mean, variance in (
        (gaussian(0, Purpose.NOISE, range(COUNT), (5,)), 0.0, 1.0),
        (uniforms(0, Purpose.AUXILIARY, range(COUNT), 5), 0.5, 1 / 12),
        (rademacher(0, Purpose.PROBE, range(COUNT), (65,)), 0.0, 1.0),
    ):
        assert draws.shape[0] == COUNT
        assert draws.shape[1] in (5, 65)
        assert (abs(draws.mean(dim=0) - mean) < 6 * (variance / COUNT) ** 0.5).all()
        assert (draws.var(dim=0) > 0.7 * variance).all()


def test_the_farthest_noise_is_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits of zeros are sqrt(-2 log(2^-32)) = 6.66 deviations away, bits of ones in the middle."""
    for word, radius in ((0, math.sqrt(64 * math.log(2))), (2**64 - 1, 0.0)):
        monkeypatch.setattr(randomness, "words", lambda *arguments, word=word: np.full((1, arguments[-1]), word, dtype=np.uint64))
        assert float(gaussian(0, Purpose.NOISE, [0], (2,)).norm()) == pytest.approx(radius, abs=1e-5)


def test_uniform_takes_the_top_bits_of_a_word() -> None:
    word = int(words(5, Purpose.TIME, [9], 1)[0, 0])
    assert float(uniform(5, Purpose.TIME, [9])) == (word >> 11) / 2**53
    low, high = word & 0xFFFFFFFF, word >> 32
    assert uniforms(5, Purpose.TIME, [9], 2)[0].tolist() == [(low >> 8) / 2**24, (high >> 8) / 2**24]


def test_permutation_is_one() -> None:
    order = permutation(0, Purpose.SHUFFLE, 2, 100)
    assert torch.equal(order.sort().values, torch.arange(100))


def test_permutations_are_all_as_likely() -> None:
    """The 24 orders of four, 24,000 times: chi-square with 23 degrees of freedom stays below 60, which it exceeds once in 30,000 cases."""
    counts = dict.fromkeys(itertools.permutations(range(4)), 0)
    for index in range(24_000):
        counts[tuple(permutation(7, Purpose.SHUFFLE, index, 4).tolist())] += 1
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 60


def test_signs_are_balanced_and_independent() -> None:
    """Mean, and correlation of neighbouring entries and indices, over 200,000 signs within 5 standard errors."""
    signs = rademacher(0, Purpose.PROBE, range(COUNT), (2, 100)).double()
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(signs.mean()) < 5 * ERROR
    flat = signs.flatten(1)
    assert abs((flat[:, 1:] * flat[:, :-1]).mean()) < 5 * ERROR
    assert abs((flat[1:] * flat[:-1]).mean()) < 5 * ERROR


def test_keys_hold_31_bits_in_each_half() -> None:
    found = dropout_seeds(0, Purpose.DROPOUT, range(10_000))
    assert found.dtype == torch.int32
    assert found.shape == (10_000, 2)
    assert (found >= 0).all()
    for half in found.T:
        ones = torch.stack([(half >> bit) & 1 for bit in range(31)]).double().mean(dim=1)
        assert (abs(ones - 0.5) < 5 * 0.5 / 100).all()  # each bit is a fair coin, within 5 standard errors
    assert len({tuple(pair) for pair in found.tolist()}) == 10_000


def test_draws_are_pinned() -> None:
    """The contract: the same numbers on every machine and in every version.

    The first word of key (3, 3) and counter (1, 2, 0, 0) is Philox4x64-10's; NumPy steps the counter before the first block.
    """
    assert derive_seed(0, Purpose.NOISE, 0) == 4641794177841216616
    assert philox(key=(3, int(Purpose.NOISE)), counter=(1, 2, 0, 0)) == words(3, Purpose.NOISE, [2], 4)[0].tolist()
    halves = [half for word in philox(key=(0, int(Purpose.NOISE)), counter=(1, 5, 0, 0))[:2] for half in (word & 0xFFFFFFFF, word >> 32)]
    radii = [math.sqrt(-2 * math.log(((half & 0x7FFFFFFF) + 0.5) / 2**31)) for half in halves[:2]]
    angles = [2 * math.pi * half / 2**32 for half in halves[2:]]
    expected = [r * math.cos(a) for r, a in zip(radii, angles, strict=True)] + [radii[0] * math.sin(angles[0])]
    assert gaussian(0, Purpose.NOISE, [5], (3,))[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert permutation(0, Purpose.SHUFFLE, -1, 5).tolist() == [2, 4, 3, 1, 0]


def test_purposes_are_pinned() -> None:
    """A purpose that was renumbered would draw other numbers; new ones are added at the end."""
    names = "SHUFFLE FLIP NOISE TIME DROPOUT SAMPLE_NOISE INITIAL_WEIGHTS EVALUATION_SPLIT LABEL_DROPOUT AUXILIARY SAMPLE_AUXILIARY"
    names += " PROBE BOUNDARY BROWNIAN RESAMPLING DEQUANTISATION TRACE_PROBE LIKELIHOOD_IMAGES BOUNDARY_DROPOUT SNAPSHOT SIMULATION"
    assert [purpose.name for purpose in list(Purpose)[:21]] == names.split()
    assert [int(purpose) for purpose in Purpose] == list(range(1, len(Purpose) + 1))


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> list[int]:
    """Philox4x64-10 as its paper defines it, with integers of any length."""
    mask, (k0, k1), (c0, c1, c2, c3) = 2**64 - 1, key, counter
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (p1 >> 64) ^ c1 ^ k0, p1 & mask, (p0 >> 64) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return [c0, c1, c2, c3]
