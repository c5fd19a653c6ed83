"""A population simulated over several intervals: against the matrix exponential, the closed form of a diffusion, and the sampler."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from amgen import config, sampling
from amgen.actions import Action
from amgen.config import Config
from amgen.core.errors import UserError
from amgen.model.build import build_dynamics
from amgen.paths import Neighbourhood, SnapshotPath
from amgen.sampling import Model
from amgen.sampling.populations import simulate_population


class Known(Action):
    """s = 1/2 <x, A x> + c, so that dx/dt = A x and growth is lambda s."""

    def __init__(self, matrix: Tensor, constant: float):
        torch.nn.Module.__init__(self)
        self.matrix = torch.nn.Parameter(matrix)
        self.constant = constant

    def forward(self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        return 0.5 * torch.einsum("bi,ij,bj->b", x, self.matrix, x) + self.constant


MATRIX = torch.tensor([[-1.0, 0.5], [0.5, 0.3]])


def model_of(options: Config, constant: float = 0.0) -> Model:
    path = SnapshotPath([2.0, 4.0])
    return Model(options, Known(MATRIX, constant), path, build_dynamics(options, path), "action", 0, Path("run"))


def settings(*overrides: str) -> Config:
    """A population between the times 2 and 4, with x = (1, 2) + 10 z."""
    base = ["data.times=[2,4]", "data.origin=[1,2]", "data.axes=[[10,0],[0,10]]", "data.standardize=global"]
    return config.load("mixture-unbalanced", [*base, *overrides])


def test_intervals_end_where_the_whole_does() -> None:
    """exp(t A) applied in whitened coordinates, t = (time - 2) / 2, to 1e-5 (rk4 in 20 steps, float32)."""
    model = model_of(settings("dynamics.kind=balanced", "loss.form=marginal", "sampling.solver=rk4", "sampling.steps=20"))
    points = torch.randn(7, 2) * 10
    found = simulate_population(model, points, [2.5, 3.0, 4.0])
    origin = torch.tensor([1.0, 2.0])
    for place, time in enumerate(found.times):
        share = (time - 2.5) / 2
        expected = origin + (points - origin) @ torch.linalg.matrix_exp(share * MATRIX).T
        torch.testing.assert_close(found.points[place], expected, rtol=1e-5, atol=1e-4)
    assert found.evaluations == 2 * 20 * 4
    assert not found.log_weights.any()


def test_log_weights_are_the_integral_of_the_growth() -> None:
    """With A = 0 points stay, and log-weights are lambda c t."""
    model = model_of(settings("dynamics.rate=0.7"), constant=1.5)
    with torch.no_grad():
        model.action.matrix.zero_()  # type: ignore[union-attr, operator]
    found = simulate_population(model, torch.randn(3, 2), [2.0, 3.0, 4.0])
    expected = 0.7 * 1.5 * torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)[:, None].expand(3, 3)
    torch.testing.assert_close(found.log_weights, expected, rtol=1e-6, atol=0)


def test_noise_of_intervals_adds_up() -> None:
    """dz = A z dt + sigma dW with A = -1: variance sigma^2 (1 - exp(-2 t)) / 2 at each time.

    Within 5 standard errors over 1,000 points, and 2 % for the steps.

    Noise of other seeds and of other legs is independent: correlations of 1,000 points within 0.2, 6 standard errors.
    """
    entropic = ["dynamics.kind=entropic", "dynamics.sigma=0.8", "dynamics.schedule=constant", "loss.form=marginal"]
    options = settings(*entropic, "data.system=ornstein-uhlenbeck", "sampling.solver=stochastic-heun", "sampling.steps=8")
    model = model_of(options)
    with torch.no_grad():
        model.action.matrix.copy_(-torch.eye(2))  # type: ignore[union-attr, operator]
    start = torch.tensor([[1.0, 2.0]]).expand(1000, 2)
    found = simulate_population(model, start, [2.0, 2.6, 4.0], seed=3)
    for place, time in enumerate(found.times[1:], start=1):
        expected = 100 * 0.64 * (1 - np.exp(-(time - 2.0))) / 2
        variance = found.points[place].double().var(dim=0)
        assert float((variance / expected - 1).abs().max()) < 5 * (2 / 1000) ** 0.5 + 0.02
    steps = [found.points[1] - found.points[0], found.points[2] - 0.5 * found.points[1]]
    correlation = np.corrcoef(steps[0][:, 0], steps[1][:, 0])[0, 1]
    assert abs(correlation) < 0.2
    other = simulate_population(model, start, [2.0, 2.6, 4.0], seed=4).points[1]
    assert abs(np.corrcoef(other[:, 0], found.points[1][:, 0])[0, 1]) < 0.2
    assert torch.equal(simulate_population(model, start, [2.0, 2.6, 4.0], seed=3).points, found.points)


def test_points_that_leave_the_training_data_are_reported() -> None:
    """Along dx/dt = A x with A = I 300 Gaussian points spread by a factor of e, as the data does; along A = 4 I they leave it."""
    model = model_of(settings("dynamics.kind=balanced", "loss.form=marginal", "sampling.solver=rk4", "sampling.steps=20"))
    z = torch.randn(300, 2)
    data = torch.cat([torch.stack([z, math.e * z], dim=1), torch.ones(300, 2, 1)], dim=2)
    start = torch.tensor([1.0, 2.0]) + 10 * torch.randn(300, 2)
    assert simulate_population(model, start, [2.0, 4.0]).outside is None  # a run of an earlier version
    model.neighbourhood = Neighbourhood(model.path, torch.zeros(300, 2), data)
    for rate, at_least, at_most in ((1, [0, 0, 0], [0.03, 0.03, 0.03]), (4, [0, 0.4, 0.8], [0.03, 0.8, 1])):
        with torch.no_grad():
            model.action.matrix.copy_(rate * torch.eye(2))  # type: ignore[union-attr, operator]
        found = simulate_population(model, start, [2.0, 3.0, 4.0])
        assert found.outside is not None
        assert all(low <= share <= high for low, share, high in zip(at_least, found.outside, at_most, strict=True))
        assert (found.warning is None) == (rate == 1)
    assert found.warning is not None
    assert "% of the points left the neighbourhood of the training data by t = " in found.warning


def test_times_outside_and_images_are_refused(trained: Path) -> None:
    model = model_of(settings())
    with pytest.raises(UserError, match="times 1 to 4: the model knows 2 to 4"):
        simulate_population(model, torch.zeros(1, 2), [1.0, 4.0])
    with pytest.raises(UserError, match="generates images: only a model of a population"):
        simulate_population(sampling.load(trained), torch.zeros(1, 2), [0.0, 1.0])
