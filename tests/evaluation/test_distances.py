"""Distances between samples, against closed forms, brute force and each other."""

import builtins
import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from amgen.core.errors import UserError
from amgen.evaluation.distances import gaussian_kernel, mmd_squared, wasserstein

RNG = np.random.default_rng(0)


def test_mmd_of_gaussians_is_unbiased() -> None:
    """E k(x, y) of N(0, I) and N(mu, I) with k = exp(-g |x - y|^2) is (1 + 4 g)^(-D/2) exp(-g |mu|^2 / (1 + 4 g)); 400 sets of 20."""
    precision, shift = 0.3, np.array([0.6, -0.2, 0.1])
    kernel = gaussian_kernel(precision, factor=3)
    values = [mmd_squared(RNG.normal(size=(20, 3)), shift + RNG.normal(size=(30, 3)), kernel) for _ in range(400)]
    scale = 1 + 4 * precision
    expected = 3 * 2 * scale**-1.5 * (1 - np.exp(-precision * (shift @ shift) / scale))
    assert abs(np.mean(values) - expected) < 4 * np.std(values) / 20


def test_mmd_is_the_sum_over_pairs() -> None:
    """Against the definition, with and without weights, over blocks of any size."""
    x, y, a = RNG.normal(size=(7, 2)), RNG.normal(size=(5, 2)), RNG.uniform(size=7)
    kernel = gaussian_kernel(0.5)

    def k(p: np.ndarray, q: np.ndarray) -> float:
        return float(np.exp(-0.5 * ((p - q) ** 2).sum()))

    for weights in (np.ones(7), a):
        pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
        within_x = sum(weights[i] * weights[j] * k(x[i], x[j]) for i, j in pairs) / sum(weights[i] * weights[j] for i, j in pairs)
        within_y = sum(k(p, q) for p, q in itertools.permutations(y, 2)) / 20
        between = sum(weights[i] * k(x[i], q) for i in range(7) for q in y) / (5 * weights.sum())
        assert mmd_squared(x, y, kernel, weights) == pytest.approx(within_x + within_y - 2 * between, abs=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = RNG.normal(size=(50, 2)), RNG.normal(size=(40, 2))
    whole = mmd_squared(x, y, gaussian_kernel(1.0))
    monkeypatch.setattr("amgen.evaluation.distances.BLOCK", 7)
    assert mmd_squared(x, y, gaussian_kernel(1.0)) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("power", [1, 2])
def test_wasserstein_of_a_shift_is_its_length(power: int) -> None:
    x = RNG.normal(size=(40, 3))
    assert wasserstein(x, x + np.array([3.0, 0.0, 4.0]), power) == pytest.approx(5, rel=1e-12)


def test_wasserstein_on_the_line_is_that_of_quantiles() -> None:
    x, y = RNG.normal(size=(30, 1)), RNG.exponential(size=(30, 1))
    for power in (1, 2):
        difference = np.abs(np.sort(x[:, 0]) - np.sort(y[:, 0])) ** power
        assert wasserstein(x, y, power) == pytest.approx(difference.mean() ** (1 / power), rel=1e-12)


def test_unequal_numbers_and_weights() -> None:
    """A point that appears twice is a point of twice the weight; POT agrees with the assignment where both apply."""
    pytest.importorskip("ot")
    x, y = RNG.normal(size=(6, 2)), RNG.normal(size=(8, 2))
    twice = np.concatenate([x, x[:2]])
    for power in (1, 2):
        expected = wasserstein(twice, y, power)
        assert wasserstein(x, y, power, x_weights=np.array([2.0, 2, 1, 1, 1, 1])) == pytest.approx(expected, rel=1e-9)
        assert wasserstein(y, x, power, y_weights=np.array([2.0, 2, 1, 1, 1, 1])) == pytest.approx(expected, rel=1e-9)
        assert wasserstein(x, np.repeat(y, 3, axis=0), power) == pytest.approx(wasserstein(x, y, power), rel=1e-9)


def test_what_needs_pot_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: Sequence[object]) -> object:
        if name == "ot":
            raise ImportError(name)
        return original(name, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"needs POT: pip install 'amgen\[ot\]'"):
        wasserstein(np.zeros((2, 1)), np.zeros((3, 1)))
