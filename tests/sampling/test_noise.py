"""Sampling by an SDE: every path and solver to the end, and where its noise comes from."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY, run_cli
from torch import Tensor

from amgen import config, sampling
from amgen.config import SDE_SOLVERS
from amgen.sampling import Model, Request
from amgen.training.main import train

LEVEL = 0.5


class Zero(torch.nn.Module):
    """s = 0: nothing moves but by noise."""

    def __init__(self) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.zeros(()))

    def forward(self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        return self.value * x.flatten(1).sum(dim=1)


def resting(*overrides: str) -> Model:
    """A model of digits whose action is zero."""
    options = config.load("digits", [*TINY, *overrides])
    return sampling.assemble(options, Zero(), "action", 0, Path())  # type: ignore[arg-type]


def draw(model: Model, request: Request, count: int = 64, **options: object) -> Tensor:
    """Values of the images 0 to `count`, in [-1, 1]."""
    settings = config.change(model.config.sampling, {"steps": 32, "batch_size": 64, "solver": "sra1", "noise_level": LEVEL, **options})
    return torch.cat([part.images for part in sampling.generate_all(model, settings, range(count), request)]).double() / 127.5 - 1


@pytest.mark.parametrize("path", ["linear", "trigonometric", "vp"])
@pytest.mark.parametrize("solver", SDE_SOLVERS)
def test_every_path_reaches_the_data(path: str, solver: str) -> None:
    """In float32, whose cosine of pi/2 is negative: where v = 0 the values have the variance of the linear equation.

    E[eps | x] is r(t) x, r = alpha' / (alpha' a - a' alpha): 1 for the line, cos(pi t/2), and sigma(1 - t) for vp; so that the variance at
    t = 1 is int G^2 a exp(-G^2 int_t^1 r) dt, here by the trapezoid rule. Of 4,096 values, within 5 standard errors and 3% for the steps.
    """
    model = resting(f"path.kind={path}")
    values = draw(model, Request(starts=torch.zeros(64, 1, 8, 8)), solver=solver)
    t = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    a = {"linear": 1 - t, "trigonometric": (math.pi * t / 2).cos(), "vp": (1 - (-(19.9 * (1 - t) ** 2 / 2 + 0.1 * (1 - t))).exp()).sqrt()}[
        path
    ]
    r = torch.ones_like(t) if path == "linear" else a
    whole = torch.cat([torch.zeros(1, dtype=torch.float64), torch.cumulative_trapezoid(r, t)])
    variance = float(torch.trapezoid(LEVEL**2 * a * (-(LEVEL**2) * (whole[-1] - whole)).exp(), t))
    assert float(values.mean()) == pytest.approx(0, abs=5 * (variance / 4096) ** 0.5)
    assert float(values.var()) == pytest.approx(variance, rel=5 * (2 / 4096) ** 0.5 + 0.03)


def test_brownian_motion_is_of_the_seed() -> None:
    """From the same starts: the same seed gives the same images, another seed independent ones, of the same variance.

    4,096 pairs of values: their correlation is 0 within 5 standard errors of 1/sqrt(4096), and so it is between images of one seed.
    """
    model, starts = resting(), torch.zeros(64, 1, 8, 8)
    first, again, other = (draw(model, Request(seed, starts=starts)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    for one, two in ((first, other), (first, first.roll(1, dims=0))):
        assert abs(float(torch.corrcoef(torch.stack([one.flatten(), two.flatten()]))[0, 1])) < 5 / 4096**0.5
    assert float(other.var() / first.var()) == pytest.approx(1, abs=5 * (4 / 4096) ** 0.5)


def test_a_trigonometric_run_samples_by_every_sde_solver(tmp_path: Path) -> None:
    """From training to images through the command line: every one asked for, with values that are not all at an end of the range."""
    train(config.load("digits", [*TINY, "path.kind=trigonometric", "training.images=32"]), tmp_path / "run")
    for solver in SDE_SOLVERS:
        out = tmp_path / solver
        outcome = run_cli("sample", tmp_path / "run", "-n", "3", "--solver", solver, "--noise-level", "1", "--out", out, "--format", "npz")
        assert outcome.code == 0, outcome.err
        (shard,) = out.glob("images-*.npz")
        with np.load(shard) as arrays:
            assert arrays["images"].shape == (3, 8, 8, 1)
            assert ((arrays["images"] > 0) & (arrays["images"] < 255)).mean() > 0.2
