"""The physics: eigenfunctions, current and trajectories, against SciPy, integrals, finite differences and independent samples."""

import numpy as np
import pytest
from scipy.special import sph_harm_y

from amgen.core.errors import UserError
from amgen.data.systems.hydrogen import BOHR_RADIUS, SPAN, Eigenstate, Superposition, trajectories
from amgen.evaluation.distances import gaussian_kernel, mmd_squared

STATES = [Eigenstate(n, k, m) for n in range(1, 5) for k in range(n) for m in range(-k, k + 1)]
RNG = np.random.default_rng(0)
POINTS = RNG.normal(0, 5 * BOHR_RADIUS, (40, 3))


def quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Nodes (N, 3) and weights exact for the products of two of `STATES`: Gauss-Laguerre, Gauss-Legendre and a periodic rule.

    A product is exp(-c r) times a polynomial, with c between 1/2 and 2 inverse Bohr radii. Laguerre's rule of 60 nodes for c = 1/2
    integrates the quotients to 1e-10.
    """
    r, radial = np.polynomial.laguerre.laggauss(60)
    z, polar = np.polynomial.legendre.leggauss(8)
    phi = 2 * np.pi * np.arange(12) / 12
    scale = 2 * BOHR_RADIUS
    radius, cosine, angle = (grid.ravel() for grid in np.meshgrid(scale * r, z, phi, indexing="ij"))
    weight = np.einsum("i,j,k->ijk", radial * np.exp(r) * r**2 * scale**3, polar, np.full(12, 2 * np.pi / 12)).ravel()
    sine = np.sqrt(1 - cosine**2)
    return radius[:, None] * np.stack([sine * np.cos(angle), sine * np.sin(angle), cosine], axis=1), weight


def test_eigenfunctions_are_orthonormal() -> None:
    nodes, weights = quadrature()
    values = np.stack([state(nodes) for state in STATES])
    gram = (values.conj() * weights) @ values.T
    np.testing.assert_allclose(gram, np.eye(len(STATES)), atol=1e-8)


@pytest.mark.parametrize("state", STATES, ids=str)
def test_angular_part_is_scipys(state: Eigenstate) -> None:
    """psi / |radial part| is Y_lm: the ratio of psi to SciPy's harmonic depends on r alone."""
    x = POINTS
    r = np.linalg.norm(x, axis=1)
    harmonic = sph_harm_y(state.l, state.m, np.arccos(x[:, 2] / r), np.arctan2(x[:, 1], x[:, 0]))
    expected = state._radial(r)[0] * r**state.l * harmonic
    np.testing.assert_allclose(state(x), expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("state", STATES, ids=str)
def test_eigenfunctions_solve_the_schrodinger_equation(state: Eigenstate) -> None:
    """-1/2 Laplacian psi - psi / (4 pi r) = E psi, with central differences of the gradient (step 1e-3, error 1e-6 of the terms)."""
    x, step = POINTS, 1e-3
    laplacian = np.zeros(len(x), dtype=complex)
    for axis in range(3):
        shift = step * np.eye(3)[axis]
        laplacian += (state.value_and_gradient(x + shift)[1] - state.value_and_gradient(x - shift)[1])[:, axis] / (2 * step)
    potential = -1 / (4 * np.pi * np.linalg.norm(x, axis=1))
    residual = -0.5 * laplacian + (potential - state.energy) * state(x)
    assert np.abs(residual).max() < 1e-6 * np.abs(potential * state(x)).max()


def test_gradient_is_that_of_finite_differences() -> None:
    for state in STATES:
        _, gradient = state.value_and_gradient(POINTS)
        for axis in range(3):
            shift = 1e-3 * np.eye(3)[axis]
            numerical = (state(POINTS + shift) - state(POINTS - shift)) / 2e-3
            np.testing.assert_allclose(gradient[:, axis], numerical, atol=1e-6 * np.abs(gradient).max())


def test_the_current_keeps_the_density() -> None:
    """d|psi|^2/dt + div j = 0, by central differences (steps 1e-2 in x and 1 in t; their error is 1e-5 of the terms)."""
    wave, t = Superposition(), 4321.0
    change = (wave.density(POINTS, t + 1) - wave.density(POINTS, t - 1)) / 2
    divergence = np.zeros(len(POINTS))
    for axis in range(3):
        shift = 1e-2 * np.eye(3)[axis]
        divergence += (wave.current(POINTS + shift, t) - wave.current(POINTS - shift, t))[:, axis] / 2e-2
    assert np.abs(change).max() > 0
    np.testing.assert_allclose(change, -divergence, atol=1e-5 * np.abs(change).max())


def test_velocity_and_score_are_those_of_the_density() -> None:
    wave, t = Superposition(), 1000.0
    np.testing.assert_allclose(wave.velocity(POINTS, t) * wave.density(POINTS, t)[:, None], wave.current(POINTS, t), rtol=1e-9, atol=0)
    for axis in range(3):
        shift = 1e-3 * np.eye(3)[axis]
        numerical = (np.log(wave.density(POINTS + shift, t)) - np.log(wave.density(POINTS - shift, t))) / 2e-3
        np.testing.assert_allclose(wave.score(POINTS, t)[:, axis], numerical, rtol=1e-4, atol=1e-6)


def test_metropolis_finds_the_moments() -> None:
    """E|x| of psi_nlm is (3 n^2 - l (l + 1)) a / 2; the superposition's is the mean of both, as their angular parts are orthogonal."""
    x = Superposition().metropolis(4000, 0.0, np.random.default_rng(1))
    expected = np.mean([(3 * 9 - 6) / 2, (3 * 4 - 2) / 2]) * BOHR_RADIUS
    r = np.linalg.norm(x, axis=1)
    assert abs(r.mean() - expected) < 4 * r.std() / np.sqrt(len(r))
    assert abs(x[:, 2].mean()) < 4 * x[:, 2].std() / np.sqrt(len(x))  # the density is even in z


def test_trajectories_follow_the_density() -> None:
    """Integrated samples against independent Markov chains at later times: MMD^2 is within 4 deviations of 0; without motion, above 40.

    The standard deviation of the estimate for two sets of 600 samples of one density is 1.1e-3 (measured over 12 pairs of sets).
    """
    wave, kernel, times, count, deviation = Superposition(), gaussian_kernel(1e-4), np.linspace(0, SPAN, 31), 600, 1.1e-3
    integrated = trajectories(count, times, np.random.default_rng(2))
    for place in (10, 15, 30):
        independent = wave.metropolis(count, times[place], np.random.default_rng(place), steps=200)
        assert abs(mmd_squared(integrated[place], independent, kernel)) < 4 * deviation
        if place == 15:
            assert mmd_squared(integrated[0], independent, kernel) > 40 * deviation


def test_integration_forward_and_backward_ends_at_the_start() -> None:
    """Runge-Kutta steps forward and backward end where they began, to 1e-3 for 99 in 100 (the others pass close to the vortex)."""
    wave = Superposition()
    start = wave.metropolis(500, 0.0, np.random.default_rng(3))
    end = wave.integrate(start, 0.0, 2000.0, 60)
    error = np.linalg.norm(wave.integrate(end, 2000.0, 0.0, 60) - start, axis=1)
    assert np.quantile(error, 0.99) < 1e-3
    assert np.linalg.norm(end - start, axis=1).mean() > 1


def test_states_that_do_not_exist_are_refused() -> None:
    for numbers in ((0, 0, 0), (2, 2, 0), (2, 1, 2)):
        with pytest.raises(UserError, match=f"there is no eigenstate n={numbers[0]}"):
            Eigenstate(*numbers)
