"""Times at the nodes of quadrature rules, and cells of times: exactness, order, unbiasedness."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from amgen import config
from amgen.core.errors import UserError
from amgen.model.build import build_times
from amgen.paths import Cells, QuadratureTimes, SnapshotPath

BREAKS = [0.0, 0.2, 0.65, 1.0]


def integrals(times: QuadratureTimes, function: Callable[[Tensor], Tensor], pairs: int = 1, seed: int = 0) -> Tensor:
    """The rule's value for the integral of a function over [0, 1], one for each of some consecutive pairs."""
    t, density = times.sample(seed, 0, range(pairs * times.group), pairs * times.group)
    return (function(t) / density).reshape(pairs, times.group).mean(dim=1)


def kinked(t: Tensor) -> Tensor:
    """|t - 0.2|^3 + |t - 0.65|^3, a cubic on each interval."""
    return (t - 0.2).abs() ** 3 + (t - 0.65).abs() ** 3


KINKED = sum((c**4 + (1 - c) ** 4) / 4 for c in (0.2, 0.65))


@pytest.mark.parametrize(
    ("rule", "nodes", "degree"),
    [("antithetic", 2, 1), ("antithetic", 6, 1), ("gauss", 1, 1), ("gauss", 3, 5), ("simpson", 3, 3), ("simpson", 5, 3)],
)
def test_polynomials_are_integrated_exactly(rule: str, nodes: int, degree: int) -> None:
    """Up to the degree of the rule, for every pair; the next one that is not odd about the centre of a cell is not."""
    times = QuadratureTimes(rule, nodes, BREAKS)  # type: ignore[arg-type]
    for power in range(degree + 1):
        found = integrals(times, lambda t, power=power: t**power, pairs=5)
        torch.testing.assert_close(found, torch.full_like(found, 1 / (power + 1)), rtol=1e-13, atol=0)
    wrong = integrals(times, lambda t: t ** (degree + 1), pairs=5) - 1 / (degree + 2)
    assert wrong.abs().max() > 1e-7


@pytest.mark.parametrize(("rule", "nodes"), [("gauss", 2), ("simpson", 3)])
def test_kinks_at_the_snapshots_do_not_matter(rule: str, nodes: int) -> None:
    """A cubic on each interval is integrated exactly by the composite rule, and not without the breaks."""
    exact = integrals(QuadratureTimes(rule, nodes, BREAKS), kinked)  # type: ignore[arg-type]
    assert float(exact) == pytest.approx(KINKED, rel=1e-13)
    assert abs(float(integrals(QuadratureTimes(rule, nodes), kinked)) - KINKED) > 1e-4  # type: ignore[arg-type]


@pytest.mark.parametrize(("rule", "nodes", "order"), [("gauss", 1, 2), ("gauss", 2, 4), ("simpson", 3, 4)])
def test_errors_fall_with_the_order_of_the_rule(rule: str, nodes: int, order: int) -> None:
    """Composite on 2, 4, 8, 16 intervals, the error for exp(3 t) falls as h^order: slope within 0.1."""
    counts = np.array([2, 4, 8, 16])
    errors = [
        abs(
            float(integrals(QuadratureTimes(rule, nodes, np.linspace(0, 1, count + 1).tolist()), lambda t: (3 * t).exp()))
            - (math.e**3 - 1) / 3
        )  # type: ignore[arg-type]
        for count in counts
    ]
    slope = np.polyfit(np.log(1 / counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.1)


def test_antithetic_nodes_are_unbiased() -> None:
    """E of the rule over seeds is the integral of cos 9t within 4 standard errors; one pair alone is off by far more."""
    times = QuadratureTimes("antithetic", 2, BREAKS)
    found = torch.cat([integrals(times, lambda t: (9 * t).cos(), seed=seed) for seed in range(2000)])
    error = found.std() / len(found) ** 0.5
    assert abs(found.mean() - math.sin(9) / 9) < 4 * error
    assert found.std() > 0.01


def test_antithetic_nodes_of_many_pairs_fill_their_cells() -> None:
    """Of 256 pairs the times of each cell are spread evenly: their discrepancy is far below that of independent ones, about 0.05."""
    times = QuadratureTimes("antithetic", 2, BREAKS)
    t, _ = times.sample(3, 7, range(0, 256 * 6), 256 * 6)
    for cell, (start, end) in enumerate(pairwise(BREAKS)):
        inside = (t.reshape(256, 6)[:, 2 * cell : 2 * cell + 2] - start) / (end - start)
        assert torch.allclose(inside.sum(dim=1), torch.ones(256, dtype=torch.float64))
        places = inside.flatten().sort().values
        assert (places - (torch.arange(512) + 0.5) / 512).abs().max() < 0.015


def test_densities_are_those_of_the_weights() -> None:
    """The mean of 1 / p is 1, also over any number of items (equal weights), and gauss has its weights."""
    times = QuadratureTimes("gauss", 3)
    _, density = times.sample(0, 0, range(3), 3)
    torch.testing.assert_close(1 / density, torch.tensor([5 / 6, 8 / 6, 5 / 6], dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["times.nodes=3"], "times.nodes=3: times.rule=antithetic has two nodes in each cell: give an even number, such as 4"),
        (["times.rule=simpson", "times.nodes=2"], "times.nodes=2: times.rule=simpson needs an odd number of at least 3: give 3"),
        (["loss.boundaries=independent"], "set loss.boundaries=paired, or times.kind=stratified"),
        (["loss.cells=2", "times.rule=gauss"], "times.rule=gauss has weights that do not sum to the lengths of the cells"),
        (["loss.cells=2", "times.kind=stratified", "loss.boundaries=independent"], "loss.cells=2 takes the boundary terms on the path"),
    ],
)
def test_what_does_not_fit_is_refused(options: list[str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        config.load("digits", ["loss.form=marginal", "times.kind=quadrature", *options])
    assert message in str(refused.value)


def test_batches_hold_the_nodes_of_a_pair() -> None:
    options = config.load("digits", ["loss.form=marginal", "times.kind=quadrature", "times.nodes=8", "training.batch_size=4"])
    with pytest.raises(UserError, match="training.batch_size=4 is less than the 8 nodes of a pair"):
        build_times(options)
    with pytest.raises(UserError, match="times.nodes=3"):
        QuadratureTimes("antithetic", 3)


def test_populations_have_nodes_between_their_times() -> None:
    options = config.load("cells", ["times.kind=quadrature", "times.rule=gauss", "data.times=[0,1,3]", "data.dimension=1"])
    t, density = build_times(options).sample(0, 0, range(4), 4)
    gauss = (1 + np.array([-1, 1]) / 3**0.5) / 2
    np.testing.assert_allclose(t, [*(gauss / 3), *(1 / 3 + gauss * 2 / 3)])
    np.testing.assert_allclose(density, [3 / 2, 3 / 2, 3 / 4, 3 / 4])


def test_cells_lie_around_their_times() -> None:
    cells = Cells(2, BREAKS)
    torch.testing.assert_close(cells.edges, torch.tensor([0, 0.1, 0.2, 0.425, 0.65, 0.825, 1], dtype=torch.float64))
    t = torch.tensor([0.0, 0.05, 0.1, 0.6499, 0.65, 0.9999, 1.0], dtype=torch.float64)
    start, end = cells.around(t)
    torch.testing.assert_close(start, torch.tensor([0, 0, 0.1, 0.425, 0.65, 0.825, 0.825], dtype=torch.float64))
    torch.testing.assert_close(end, torch.tensor([0.1, 0.1, 0.2, 0.65, 0.825, 1, 1], dtype=torch.float64))


def test_ends_of_cells_are_on_the_path_of_the_sample() -> None:
    """On the broken line 0, 1, 5 with masses 1, 2, 4: points and masses at the ends of the cell, also at the kink."""
    path = SnapshotPath([0, 1, 2], weighted=True)
    tuples = torch.tensor([[[0.0, 1.0], [1.0, 2.0], [5.0, 4.0]]], dtype=torch.float64).expand(3, 3, 2)
    t = torch.tensor([0.1, 0.3, 0.9], dtype=torch.float64)
    found = Cells(2, path.times.tolist()).boundary(path, t, torch.zeros(3, 1, dtype=torch.float64), tuples)
    assert found.start_mass is not None
    assert found.end_mass is not None
    for values, expected in (
        (found.start[:, 0], [0, 0.5, 3]),
        (found.end[:, 0], [0.5, 1, 5]),
        (found.start_mass, [1, 1.5, 3]),
        (found.end_mass, [1.5, 2, 4]),
    ):
        torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))
