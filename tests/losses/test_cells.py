"""The marginal form with boundary terms at the ends of cells, and with quadrature in t: the same loss, with less variance."""

import numpy as np
import pytest
import torch
from helpers import small_action
from torch import Tensor

from amgen.losses import TIME_WEIGHTS, ActionMatchingLoss, ConditionalLoss, MarginalLoss, TimeWeight
from amgen.paths import Cells, LinearPath, Masses, Path, QuadratureTimes, SnapshotPath, StratifiedTimes, TimeSampler
from amgen.training.batches import Pairs, TrainingBatch

BREAKS = [0.0, 0.3, 1.0]
PATHS = {"line": LinearPath(), "classes": LinearPath(), "population": SnapshotPath([0, 3, 10], weighted=True)}
MASSES = {"classes": Masses([1, 1], [1, 3], [3, 1])}
"""Masses of classes that change in time."""


def pairs(path: Path, count: int) -> Pairs:
    """Pairs of noise with points of two dimensions, or with tuples at three times with masses, in float64."""
    noise, classes = torch.randn(count, 2, dtype=torch.float64), torch.arange(count) % 2
    if isinstance(path, LinearPath):
        return Pairs(noise, 1 + 0.5 * torch.randn(count, 2, dtype=torch.float64), classes)
    points = torch.randn(count, 3, 2, dtype=torch.float64) + torch.tensor([0.0, 1.0, -1.0])[:, None]
    return Pairs(noise, torch.cat([points, torch.rand(count, 3, 1, dtype=torch.float64) + 0.5], dim=2), classes)


def gradient(loss: ActionMatchingLoss, value: Tensor) -> Tensor:
    return torch.cat([part.flatten() for part in torch.autograd.grad(value, list(loss.parameters()))])


@pytest.mark.parametrize("weight", TIME_WEIGHTS)
@pytest.mark.parametrize("name", PATHS)
def test_cells_do_not_change_the_loss(weight: str, name: str) -> None:
    """Integrated over t by 24 Gauss nodes in each of 4 cells, loss and gradient are those with boundaries at 0 and 1, to 1e-9 in float64.

    The boundary terms of neighbouring cells cancel.
    """
    path, cells, drawn = PATHS[name], Cells(2, BREAKS), pairs(PATHS[name], 4)
    loss = MarginalLoss(small_action(2, torch.float64), path, weight=TimeWeight(TIME_WEIGHTS[weight]))  # type: ignore[index]
    places, weights = np.polynomial.legendre.leggauss(24)
    found = []
    for chosen in (None, cells):
        total = torch.zeros(4, dtype=torch.float64)
        for start, end in zip(cells.edges[:-1], cells.edges[1:], strict=True):
            for place, share in zip(places, weights, strict=True):
                batch = TrainingBatch(range(4), drawn, (start + (end - start) * (place + 1) / 2).repeat(4))
                sample = batch.sample(path, MASSES.get(name), boundary=True, cells=chosen)
                total = total + (end - start) * share / 2 * loss(sample).loss
        found.append((total.detach(), gradient(loss, total.sum())))
    for whole, divided in zip(*found, strict=True):
        torch.testing.assert_close(divided, whole, rtol=1e-9, atol=1e-9)


def test_the_density_divides_the_boundary_terms_of_cells() -> None:
    """With p(t) = 2 all of the loss counts half: a cell's boundary terms are drawn together with its times."""
    path, drawn, t = PATHS["line"], pairs(PATHS["line"], 4), torch.rand(4, dtype=torch.float64)
    loss = MarginalLoss(small_action(2, torch.float64), path)
    once, half = (
        loss(TrainingBatch(range(4), drawn, t, torch.full_like(t, p)).sample(path, boundary=True, cells=Cells(4))).loss for p in (1, 2)
    )
    torch.testing.assert_close(half, once / 2)


def estimates(loss: ActionMatchingLoss, times: TimeSampler, cells: Cells | None, batches: int = 300, size: int = 36) -> Tensor:
    """Gradients of batches, (batches, P), all with the same stream of pairs, of which a sampler's group shares one."""
    torch.manual_seed(1)
    gradients = []
    for step in range(batches):
        drawn = pairs(loss.path, size // times.group)
        rows = torch.arange(size) // times.group
        shared = Pairs(drawn.noise[rows], drawn.data[rows], drawn.classes[rows])
        t, density = times.sample(0, step, range(size), size)
        sample = TrainingBatch(range(size), shared, t, density).sample(loss.path, boundary=loss.needs_boundary, cells=cells)
        gradients.append(gradient(loss, loss(sample).loss.mean()))
    return torch.stack(gradients)


ESTIMATORS = {
    "antithetic": (QuadratureTimes("antithetic", 2, BREAKS), None),
    "gauss": (QuadratureTimes("gauss", 6, BREAKS), None),
    "simpson": (QuadratureTimes("simpson", 9, BREAKS), None),
    "cells": (StratifiedTimes(), Cells(8, BREAKS)),
    "antithetic nodes in cells": (QuadratureTimes("antithetic", 2, BREAKS), Cells(8, BREAKS)),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_mean_gradient_is_that_of_stratified_times(name: str) -> None:
    """Over 300 batches, within 4.5 standard errors for each of some 400 parameters (4 for one; a factor for their number).

    The errors of the fixed rules are below that with so many nodes. (With 3 nodes of simpson they are not.)
    """
    loss = MarginalLoss(small_action(2, torch.float64), PATHS["population"])
    plain, found = estimates(loss, StratifiedTimes(), None), estimates(loss, *ESTIMATORS[name])
    error = ((plain.var(dim=0) + found.var(dim=0)) / len(plain)).sqrt()
    assert ((plain.mean(dim=0) - found.mean(dim=0)).abs() <= 4.5 * error + 1e-12).all()


@pytest.mark.parametrize("path", [LinearPath(), SnapshotPath([0, 3, 10])], ids=["line", "population"])
def test_small_cells_give_the_conditional_form(path: Path) -> None:
    """For the same batch the gradient tends to that of the conditional form as h: over h = 2^-4 ... 2^-8 the slope is 1 within 0.15."""
    action, drawn = small_action(2, torch.float64), pairs(path, 64)
    t = (torch.arange(64, dtype=torch.float64) + 0.3) / 64
    batch, counts = TrainingBatch(range(64), drawn, t), (16, 64, 256)
    conditional = ConditionalLoss(action, path)
    wanted = gradient(conditional, conditional(batch.sample(path)).loss.mean())
    marginal = MarginalLoss(action, path)
    errors = []
    for count in counts:
        sample = batch.sample(path, boundary=True, cells=Cells(count, BREAKS))
        errors.append(float((gradient(marginal, marginal(sample).loss.mean()) - wanted).norm() / wanted.norm()))
    # The nodes of 64 and 256 cells would lie at the same place of every cell: only the order is tested.
    slope = np.polyfit(np.log([1 / count for count in counts]), np.log(errors), 1)[0]
    assert slope == pytest.approx(1, abs=0.3)
    assert errors[-1] < 0.01


def test_cells_bring_the_variance_to_that_of_the_conditional_form() -> None:
    """8 cells in each interval: within 5 % of the conditional form's, from which that with boundaries at 0 and 1 differs fivefold."""
    path = SnapshotPath([0, 3, 10])
    action = small_action(2, torch.float64)
    marginal, conditional = MarginalLoss(action, path), ConditionalLoss(action, path)
    wanted, plain, cells = (
        float(estimates(loss, StratifiedTimes(), cells).var(dim=0).sum())
        for loss, cells in ((conditional, None), (marginal, None), (marginal, Cells(8, BREAKS)))
    )
    assert not 0.5 < plain / wanted < 2
    assert cells == pytest.approx(wanted, rel=0.05)
