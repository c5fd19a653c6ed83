"""The hydrogen atom in a superposition of eigenstates: wave function, probability current, and samples that follow the current.

It is the experiment of arXiv 2210.06662, section 4.1. Units: hbar = m = e = eps0 = 1, so that the Bohr radius is a = 4 pi.

    energies        E_n = -1 / (2 a^2 n^2)
    eigenstates     psi_nlm(x) = f_nl(r) S_lm(x), with the solid harmonic S_lm = r^l Y_lm, a polynomial in x
    superposition   psi(x, t) = sum_j c_j exp(-i E_j t) psi_j(x)
    density         q_t(x) = |psi(x, t)|^2
    current         j = Im(conj(psi) grad psi)
    velocity        v = j / |psi|^2 = Im(grad psi / psi), with dq/dt = -div(q v)   (Madelung 1927; Bohm 1952)

The formulas of f_nl and Y_lm are those of quantum mechanics textbooks (Griffiths, Introduction to Quantum Mechanics, section 4.2). Points x
are float64 (N, 3).
"""

from dataclasses import dataclass
from itertools import pairwise
from math import comb, factorial, pi, sqrt

import numpy as np
from scipy.special import eval_genlaguerre

from amgen.core.errors import UserError

BOHR_RADIUS = 4 * pi

SPAN = 14_000.0
"""Duration of the experiment: a little less than 2 pi / |E_3 - E_2| = 14,288, the period of the density of `Superposition()`."""


@dataclass(frozen=True)
class Eigenstate:
    """The eigenstate psi_nlm.

    Attributes:
        n: principal quantum number, at least 1.
        l: quantum number of the angular momentum, 0 to n - 1.
        m: quantum number of the z component of the angular momentum, -l to l.

    Raises:
        UserError: for quantum numbers out of range.
    """

    n: int
    l: int  # noqa: E741
    m: int

    def __post_init__(self) -> None:
        if not (self.n >= 1 and 0 <= self.l < self.n and abs(self.m) <= self.l):
            raise UserError(f"there is no eigenstate n={self.n}, l={self.l}, m={self.m}: expected n >= 1, 0 <= l < n, |m| <= l")

    @property
    def energy(self) -> float:
        """Return E_n."""
        return -1 / (2 * BOHR_RADIUS**2 * self.n**2)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return psi_nlm(x), complex (N,)."""
        return self.value_and_gradient(x)[0]

    def value_and_gradient(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return psi_nlm(x), complex (N,), and its gradient, complex (N, 3)."""
        r = np.linalg.norm(x, axis=1)
        radial, slope = self._radial(r)
        solid, solid_gradient = self._solid_harmonic(x)
        outward = x / np.maximum(r, np.finfo(float).tiny)[:, None]
        return radial * solid, (slope * solid)[:, None] * outward + radial[:, None] * solid_gradient

    def _radial(self, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return f(r) and f'(r), both (N,).

        f(r) = norm exp(-rho / 2) L(rho), with rho = 2 r / (n a) and the associated Laguerre polynomial L = L_(n-l-1)^(2l+1).
        """
        n, l, scale = self.n, self.l, 2 / (self.n * BOHR_RADIUS)  # noqa: E741
        degree, order, rho = n - l - 1, 2 * l + 1, scale * r
        norm = sqrt(scale**3 * factorial(degree) / (2 * n * factorial(n + l))) * scale**l * np.exp(-0.5 * rho)
        value = eval_genlaguerre(degree, order, rho)
        slope = -eval_genlaguerre(degree - 1, order + 1, rho) if degree else 0.0
        return norm * value, norm * scale * (slope - 0.5 * value)

    def _solid_harmonic(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return S(x), complex (N,), and its gradient (N, 3).

        S = norm (x + i y sign(m))^|m| P(z, r^2) with P(z, r^2) = sum_k p_k r^(2k) z^(l - |m| - 2k), from the |m|-th derivative of the
        Legendre polynomial of degree l. The sign is that of Condon and Shortley.
        """
        l, m, sign = self.l, abs(self.m), 1 if self.m >= 0 else -1  # noqa: E741
        norm = sqrt((2 * l + 1) / (4 * pi) * factorial(l - m) / factorial(l + m)) * ((-1) ** m if self.m > 0 else 1)
        z, square = x[:, 2], (x**2).sum(axis=1)
        polynomial, along_z, along_square = (np.zeros(len(x)) for _ in range(3))
        for k in range((l - m) // 2 + 1):
            power = l - m - 2 * k
            p = (-1) ** k * 2.0**-l * comb(l, k) * comb(2 * l - 2 * k, l) * factorial(l - 2 * k) / factorial(power)
            polynomial += p * square**k * z**power
            if power:
                along_z += p * power * square**k * z ** (power - 1)
            if k:
                along_square += p * k * square ** (k - 1) * z**power
        planar = x[:, 0] + 1j * sign * x[:, 1]
        turning = norm * planar**m
        gradient = (2 * turning * along_square)[:, None] * x
        gradient[:, 2] += turning * along_z
        if m:
            across = norm * m * planar ** (m - 1) * polynomial
            gradient[:, 0] += across
            gradient[:, 1] += 1j * sign * across
        return turning * polynomial, gradient


@dataclass(frozen=True)
class Superposition:
    """The wave function psi(x, t) of a superposition of eigenstates with equal coefficients.

    Attributes:
        states: the eigenstates.
    """

    states: tuple[Eigenstate, ...] = (Eigenstate(3, 2, -1), Eigenstate(2, 1, 0))

    def value_and_gradient(self, x: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Return psi(x, t), complex (N,), and its gradient, complex (N, 3)."""
        value, gradient = np.zeros(len(x), dtype=complex), np.zeros(x.shape, dtype=complex)
        for state in self.states:
            phase = np.exp(-1j * state.energy * t) / sqrt(len(self.states))
            psi, slope = state.value_and_gradient(x)
            value += phase * psi
            gradient += phase * slope
        return value, gradient

    def density(self, x: np.ndarray, t: float) -> np.ndarray:
        """Return the density |psi|^2, (N,)."""
        return np.abs(self.value_and_gradient(x, t)[0]) ** 2

    def current(self, x: np.ndarray, t: float) -> np.ndarray:
        """Return the current j, (N, 3), with d|psi|^2/dt = -div j."""
        value, gradient = self.value_and_gradient(x, t)
        return (value.conj()[:, None] * gradient).imag

    def velocity(self, x: np.ndarray, t: float) -> np.ndarray:
        """Return the velocity v, (N, 3)."""
        value, gradient = self.value_and_gradient(x, t)
        return (gradient / value[:, None]).imag

    def score(self, x: np.ndarray, t: float) -> np.ndarray:
        """Return the score grad log |psi|^2, (N, 3)."""
        value, gradient = self.value_and_gradient(x, t)
        return 2 * (gradient / value[:, None]).real

    def metropolis(self, count: int, t: float, rng: np.random.Generator, steps: int = 300) -> np.ndarray:
        """Return independent samples of |psi(., t)|^2, (count, 3), each the last state of its own Markov chain (Metropolis et al. 1953).

        Proposals are Gaussian, in turn narrow and wide: standard deviations of 1.5 and 5 Bohr radii.
        """
        x = rng.normal(0, 8 * BOHR_RADIUS, (count, 3))
        density = self.density(x, t)
        for step in range(steps):
            proposal = x + rng.normal(0, (5 if step % 2 else 1.5) * BOHR_RADIUS, x.shape)
            proposed = self.density(proposal, t)
            accepted = rng.random(count) * density < proposed
            x[accepted], density[accepted] = proposal[accepted], proposed[accepted]
        return x

    def integrate(self, x: np.ndarray, start: float, end: float, steps: int) -> np.ndarray:
        """Return the points x (N, 3) integrated along v from time `start` to time `end`, with classical Runge-Kutta steps of order 4."""
        h = (end - start) / steps
        for number in range(steps):
            t = start + number * h
            first = self.velocity(x, t)
            second = self.velocity(x + 0.5 * h * first, t + 0.5 * h)
            third = self.velocity(x + 0.5 * h * second, t + 0.5 * h)
            fourth = self.velocity(x + h * third, t + h)
            x = x + h / 6 * (first + 2 * second + 2 * third + fourth)
        return x


def trajectories(count: int, times: np.ndarray, rng: np.random.Generator, steps: int = 2) -> np.ndarray:
    """Return trajectories of samples of |psi|^2 along the velocity, (len(times), count, 3).

    Args:
        count: number of samples.
        times: increasing times; the samples are generated at the first one.
        rng: source of randomness.
        steps: Runge-Kutta steps between two times.
    """
    state = Superposition()
    points = [state.metropolis(count, times[0], rng)]
    for start, end in pairwise(times):
        points.append(state.integrate(points[-1], start, end, steps))
    return np.stack(points)
