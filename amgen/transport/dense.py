"""First stage of the solver: Sinkhorn on all pairs, until the transport plan is concentrated on few of them; the dual bound.

The entropic problem adds eps KL(P | R), R_ij = a_i b_j / sqrt(sum a sum b), and its solution is P_ij = R_ij exp((f_i + g_j - C_ij) / eps).
Sinkhorn's half steps solve for f and for g in turn; in between, the best translation (f + h, g - h) is taken, which removes the slowest
mode (Séjourné, Vialard and Peyré, arXiv 2201.00730). eps falls by a factor of 4 from level to level. Potentials are absorbed into the
kernel, which is float32; the potentials are float64.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from amgen.transport.values import dual_value

BLOCK = 1 << 20
"""Most entries of a temporary block in float64."""

REACH = 20.0
"""Pairs with C - f - g > REACH eps are left out: their entries are below exp(-REACH) R."""

STEPS = 12
"""Most iterations of a level."""

LEVELS = 16
"""Most levels."""

FEW = 0.08
"""Share of the pairs at which the second stage is faster."""

FEW_PAIRS = 500_000
"""Pairs that the second stage takes at any share."""

MOST_PAIRS = 3_000_000
"""Most pairs that the second stage takes; of more, a random part is taken."""

EXPONENTS = 70.0
"""Entries of the kernel are at least exp(-EXPONENTS): subnormal numbers are slow, zeros have no logarithm."""


@dataclass(frozen=True)
class Problem:
    """A problem of transport in which every row and every column has a finite cost.

    Attributes:
        cost: C, (N, M), float64.
        a: masses of the rows, (N,), float64, positive.
        b: masses of the columns, (M,); for balanced transport with the same total.
        growth: 1 for the unbalanced problem, 0 for the balanced one, whose dual is sum a f + sum b g.
    """

    cost: Tensor
    a: Tensor
    b: Tensor
    growth: int

    def blocks(self) -> list[slice]:
        """Return slices of rows, each of at most `BLOCK` entries."""
        step = max(1, BLOCK // self.cost.shape[1])
        return [slice(start, min(start + step, len(self.a))) for start in range(0, len(self.a), step)]


@dataclass(frozen=True)
class Start:
    """What the first stage hands on.

    Attributes:
        f: potentials of the rows, (N,).
        g: potentials of the columns, (M,).
        epsilon: the last eps.
        scale: how much the costs of a row usually differ.
    """

    f: Tensor
    g: Tensor
    epsilon: float
    scale: float


def solve_dense(problem: Problem) -> Start:
    """Return potentials at an eps so small that few pairs carry mass."""
    scale, most = cost_scales(problem)
    epsilon = most / 4
    half = 0.5 * problem.growth * float(problem.a.sum().log() - problem.b.sum().log())
    f, g = torch.full_like(problem.a, half), torch.full_like(problem.b, -half)
    if problem.cost.numel() <= FEW_PAIRS:  # the second stage takes all pairs at once
        return Start(f, g, epsilon, scale)
    kernel = torch.empty(problem.cost.shape, dtype=torch.float32)
    for _ in range(LEVELS):
        f, g, share = _level(problem, kernel, g, epsilon)
        if share < max(FEW, FEW_PAIRS / kernel.numel()):
            break
        epsilon /= 4
    return Start(f, g, epsilon, scale)


def cost_scales(problem: Problem) -> tuple[float, float]:
    """Return how much the costs of a row differ from the least one: on average, and at most; both are positive.

    Unbalanced costs above 2 count as 2: whatever costs more dies instead.
    """
    usual, most, count = 0.0, 0.0, 0
    for part in problem.blocks()[:: max(1, len(problem.blocks()) // 4)]:
        rows = problem.cost[part]
        differences = rows - rows.amin(dim=1, keepdim=True)
        if problem.growth:
            differences.clamp_(max=2.0)
        usual, most, count = usual + float(differences.sum()), max(most, float(differences.max())), count + differences.numel()
    if most == 0:  # one column, or points that are all the same
        most = float(problem.cost.mean()) or 1.0
    return usual / count or most, most


def _level(problem: Problem, kernel: Tensor, g: Tensor, epsilon: float) -> tuple[Tensor, Tensor, float]:
    """Return f, g and the share of pairs that matter after the iterations at one eps."""
    a, b, damping = problem.a.log(), problem.b.log(), 1 + problem.growth * epsilon
    reference = -0.5 * float(problem.a.sum().log() + problem.b.sum().log())
    f_zero, g_zero = torch.empty_like(problem.a), g
    for part in problem.blocks():
        exponents = (g - problem.cost[part]).div_(epsilon)
        largest = exponents.amax(dim=1)
        kernel[part] = exponents.sub_(largest[:, None]).clamp_(min=-EXPONENTS)
        f_zero[part] = -epsilon * largest
    kernel.exp_()
    log_u, log_v = torch.zeros_like(a), torch.zeros_like(b)
    for _ in range(STEPS):
        # f = (-eps log sum_j R_ij / a_i exp((g_j - C_ij) / eps)) / (1 + eps), with the kernel exp((f_zero + g_zero - C) / eps).
        f = (f_zero - epsilon * _log_product(kernel, log_v + b + reference)) / damping
        log_u = (f - f_zero) / epsilon
        g = (g_zero - epsilon * _log_product(kernel.T, log_u + a + reference)) / damping
        change = float(((g - g_zero) / epsilon - log_v).abs().max())
        log_v = (g - g_zero) / epsilon
        if problem.growth:
            shift = 0.5 * float(torch.logsumexp(a - f, 0) - torch.logsumexp(b - g, 0))
            f, g, f_zero, g_zero = f + shift, g - shift, f_zero + shift, g_zero - shift
        if change < 0.1 or float(log_u.abs().max()) > EXPONENTS / 2 or float(log_v.abs().max()) > EXPONENTS / 2:
            break
    count = 0
    for part in problem.blocks():
        count += int(((g + REACH * epsilon - problem.cost[part]) > -f[part, None]).sum())
    return f, g, count / kernel.numel()


def _log_product(kernel: Tensor, exponents: Tensor) -> Tensor:
    """Return log(kernel @ exp(exponents)), float64, for a float32 kernel."""
    largest = exponents.max()
    weights = (exponents - largest).clamp_(min=-EXPONENTS).exp_().float()
    return (kernel @ weights).double().clamp_(min=1e-37).log_() + largest


def nearly_tight(problem: Problem, f: Tensor, g: Tensor, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the pairs with C - f - g < REACH eps and of the tightest pair of each row and column, sorted by row.

    Of more than `MOST_PAIRS` a random part is taken, which is the same in every run.
    """
    count, best_columns = 0, torch.empty(len(f), dtype=torch.int64)
    least, best_rows = torch.full_like(g, math.inf), torch.zeros(len(g), dtype=torch.int64)
    found: list[Tensor] = []
    for part in problem.blocks():
        slack = problem.cost[part] - f[part, None] - g
        best_columns[part] = slack.argmin(dim=1)
        lowest, row = slack.min(dim=0)
        better = lowest < least
        least[better], best_rows[better] = lowest[better], row[better] + part.start
        pairs = torch.nonzero(slack.flatten() < REACH * epsilon).flatten() + part.start * len(g)
        count += len(pairs)
        found.append(pairs)
    pairs = torch.cat(found).numpy()
    if count > MOST_PAIRS:
        pairs = pairs[np.random.Generator(np.random.Philox(0)).random(count) < MOST_PAIRS / count]
    best = np.concatenate([np.arange(len(f)) * len(g) + best_columns.numpy(), best_rows.numpy() * len(g) + np.arange(len(g))])
    pairs = np.union1d(pairs, best)
    return pairs // len(g), pairs % len(g)


def feasible_dual(problem: Problem, f: Tensor, g: Tensor) -> tuple[float, tuple[Tensor, Tensor]]:
    """Return the larger value of the two feasible points of the dual problem that c-transforms of g and of f give, and its potentials.

    The value is a lower bound of the optimum.
    """
    return max(_from_columns(problem, g), _from_rows(problem, f), key=lambda found: found[0])


def _from_columns(problem: Problem, g: Tensor) -> tuple[float, tuple[Tensor, Tensor]]:
    """f = min_j C - g, then g = min_i C - f, then the best translation."""
    f, transformed = torch.empty_like(problem.a), torch.full_like(g, math.inf)
    for part in problem.blocks():
        f[part] = (problem.cost[part] - g).amin(dim=1)
        transformed = torch.minimum(transformed, (problem.cost[part] - f[part, None]).amin(dim=0))
    return _translated(problem, f, transformed)


def _from_rows(problem: Problem, f: Tensor) -> tuple[float, tuple[Tensor, Tensor]]:
    """g = min_i C - f, then f = min_j C - g, then the best translation."""
    g, transformed = torch.full_like(problem.b, math.inf), torch.empty_like(f)
    for part in problem.blocks():
        g = torch.minimum(g, (problem.cost[part] - f[part, None]).amin(dim=0))
    for part in problem.blocks():
        transformed[part] = (problem.cost[part] - g).amin(dim=1)
    return _translated(problem, transformed, g)


def _translated(problem: Problem, f: Tensor, g: Tensor) -> tuple[float, tuple[Tensor, Tensor]]:
    """Return the dual value and the potentials after the translation (f + h, g - h) that makes it largest."""
    if not problem.growth:
        return float(problem.a @ f + problem.b @ g), (f, g)
    shift = 0.5 * float(torch.logsumexp(problem.a.log() - f, 0) - torch.logsumexp(problem.b.log() - g, 0))
    return dual_value(f + shift, g - shift, problem.a, problem.b), (f + shift, g - shift)
