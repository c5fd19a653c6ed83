"""The path of heat against SciPy's cosine transform and Gaussian filter, closed forms, and from training to figures."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY, run_cli, sets
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter
from torch import Tensor

from amgen import config, sampling
from amgen.core.errors import UserError
from amgen.data import open_dataset, to_uint8
from amgen.paths import Conditioning, HeatPath
from amgen.sampling import Request

HEAT = [*TINY, "path.kind=heat", "path.blur=1.5"]


def images(*shape: int) -> Tensor:
    """Images in [-1, 1], float64."""
    return 2 * torch.rand(*shape, dtype=torch.float64) - 1


def cosine_transform(x: Tensor, inverse: bool = False) -> Tensor:
    """The orthonormal DCT-II of the last two dimensions, by SciPy."""
    return torch.from_numpy((idctn if inverse else dctn)(x.numpy(), type=2, norm="ortho", axes=(-2, -1)))


def without_noise(path: HeatPath, t: float, data: Tensor) -> Tensor:
    return path.interpolate(torch.full((len(data),), t, dtype=data.dtype), torch.zeros_like(data), data, Conditioning())[0]


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5])
def test_images_are_blurred_as_by_a_gaussian_filter(t: float) -> None:
    """Of 4 (1 - t) pixels, with the border reflected as SciPy's "reflect" does; on the grid the two Gaussians differ by aliasing alone.

    That is at most 2 exp(-pi^2 sigma^2 / 2) of an amplitude, 5e-9 for the smallest sigma here, 2; the filter is cut off at 8 sigma.
    """
    data = images(2, 3, 24, 17)
    expected = gaussian_filter(data.numpy(), (0, 0, 4 * (1 - t), 4 * (1 - t)), mode="reflect", truncate=8)
    torch.testing.assert_close(without_noise(HeatPath(4.0), t, data), torch.from_numpy(expected), rtol=0, atol=1e-8)


def test_heat_spreads_on_from_where_it_was() -> None:
    """A blur of 3 pixels after one of 4 is one of 5, the mean stays, and at t = 1 nothing is lost; to rounding."""
    data = images(2, 1, 16, 20)
    twice = without_noise(HeatPath(3.0), 0.0, without_noise(HeatPath(4.0), 0.0, data))
    torch.testing.assert_close(without_noise(HeatPath(5.0), 0.0, data), twice, rtol=0, atol=1e-12)
    torch.testing.assert_close(twice.mean(dim=(2, 3)), data.mean(dim=(2, 3)), rtol=0, atol=1e-12)
    torch.testing.assert_close(without_noise(HeatPath(), 1.0, data), data, rtol=0, atol=1e-12)


@pytest.mark.parametrize("blur", [1.0, 30.0])
def test_posterior_noise_is_that_of_gaussian_images(blur: float) -> None:
    """Images whose cosine coefficients are independent N(m, s^2): at each frequency x_t ~ N(B m, V) with V = B^2 s^2 + a^2, hence

    E[eps | x] = a (X - B m) / V and v = B' m + (B B' s^2 + a a') / V (X - B m), here with B by hand, which is 0 in float64 at the highest
    frequencies of the wide blur; at both ends too.
    """
    path, noise = HeatPath(blur, 0.2), 0.2
    t = torch.tensor([0.0, 0.2, 0.7, 0.97, 1.0], dtype=torch.float64)
    mean, deviation, x = torch.randn(1, 2, 8, 6).double(), torch.rand(1, 2, 8, 6).double() + 0.1, torch.randn(5, 2, 8, 6).double()
    square = (math.pi * torch.arange(8, dtype=torch.float64) / 8)[:, None] ** 2 + (math.pi * torch.arange(6, dtype=torch.float64) / 6) ** 2
    r = 1 - t[:, None, None, None]
    damping = (-0.5 * square * (blur * r) ** 2).exp()
    slope, a = damping * square * blur**2 * r, noise * r
    variance = (damping * deviation) ** 2 + a**2
    centred = cosine_transform(x) - damping * mean
    velocity = slope * mean + (damping * slope * deviation**2 - a * noise) / variance * centred
    found = path.posterior_noise(t, x, cosine_transform(velocity, inverse=True), Conditioning())
    torch.testing.assert_close(found, cosine_transform(a * centred / variance, inverse=True), rtol=0, atol=1e-10)
    other = torch.randn_like(x)
    torch.testing.assert_close(path.posterior_noise(t, x, other, Conditioning())[-1], -other[-1] / noise)
    assert path.noise_scale(t).tolist() == pytest.approx((noise * (1 - t)).tolist())


def test_the_velocity_ends_as_that_of_the_noise() -> None:
    """At t = 1 no heat flows, so that u = -noise eps; at t = 0 the flow is blur^2 f^2 of what is left, of which the mean has none."""
    data, noise = images(2, 1, 8, 8), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    path = HeatPath(2.0, 0.3)
    velocity = path.interpolate(torch.tensor([1.0, 0.0], dtype=torch.float64), noise, data, Conditioning())[1]
    torch.testing.assert_close(velocity[0], -0.3 * noise[0])
    torch.testing.assert_close(velocity[1].mean(), -0.3 * noise[1].mean())


def test_precision_and_samples_that_differ_in_time() -> None:
    """float32 images give what their double-precision transforms round to, each at its own time; noise is added in float32."""
    data, noise = images(3, 2, 32, 32).float(), torch.randn(3, 2, 32, 32)
    t, path = torch.tensor([0.0, 0.5, 0.75]), HeatPath()
    found = path.interpolate(t, torch.zeros_like(data), data, Conditioning())
    expected = path.interpolate(t.double(), torch.zeros_like(data).double(), data.double(), Conditioning())
    for value, exact in zip(found, expected, strict=True):
        assert torch.equal(value, exact.float())
    x, velocity = path.interpolate(t, noise, data, Conditioning())
    assert x.dtype == velocity.dtype == torch.float32
    torch.testing.assert_close(x, found[0] + 0.1 * (1 - t.reshape(3, 1, 1, 1)) * noise)
    torch.testing.assert_close(velocity, found[1] - 0.1 * noise)
    alone = path.interpolate(t[1:2].double(), noise[1:2].double(), data[1:2].double(), Conditioning())
    torch.testing.assert_close(alone[0].float(), x[1:2])


def test_eight_bits_of_the_blurred_image_are_given_and_no_more() -> None:
    """Detail whose trace is below half a gray level is not in the condition: waves of 0.4 two pixels long, blurred by 2."""
    path, data = HeatPath(2.0), 0.5 * images(4, 3, 16, 16)
    conditioning = path.conditioning(data)
    assert conditioning.condition is not None
    assert conditioning.free is None
    assert conditioning.condition.shape[1] == path.condition_channels(3) == 3
    assert conditioning.condition.dtype == data.dtype
    blurred = without_noise(path, 0.0, data)
    assert (conditioning.condition - blurred).abs().max() <= 0.5 / 127.5 + 1e-6
    levels = 127.5 * (conditioning.condition + 1)
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    wave = (math.pi * 15 / 16 * (torch.arange(16) + 0.5)).cos()
    assert torch.equal(path.conditioning(data + 0.4 * wave[:, None] * wave).condition, conditioning.condition)
    assert torch.equal(path.shown(data, conditioning), conditioning.condition)
    assert torch.equal(path.baselines(data, conditioning)["blurred"], conditioning.condition)
    noise = torch.randn_like(data)
    torch.testing.assert_close(path.prior(noise, data, conditioning), blurred + 0.1 * noise)


def test_what_does_not_fit_is_refused() -> None:
    for arguments in ({"blur": 0.0}, {"noise": -1.0}, {"blur": math.nan}):
        with pytest.raises(UserError, match=f"path.{next(iter(arguments))}=.*: expected a positive number"):
            HeatPath(**arguments)
    for overrides, message in (
        (["coupling.kind=ot"], "coupling.kind=ot is for .*, not for path.kind=heat"),
        (["path.blur=0"], "path.blur"),
        (["path.blur=1e200"], "path.blur"),
        (["path.noise=0"], "path.noise"),
    ):
        with pytest.raises(UserError, match=message):
            config.load("digits", [*HEAT, *overrides])


def test_from_training_to_figures(tmp_path: Path) -> None:
    """The command line trains, samples by an ODE and by an SDE, and compares with the blurred images, whose PSNR is known beforehand."""
    run = tmp_path / "run"
    outcome = run_cli("train", "digits", "--run-dir", run, *sets([*HEAT, "training.images=32"]))
    assert outcome.code == 0, outcome.err
    outcome = run_cli("sample", run, "-n", "8", "--out", tmp_path / "npz", "--format", "npz")
    assert outcome.code == 0, outcome.err
    truths = open_dataset(config.load("digits").data).images(range(8))
    with np.load(tmp_path / "npz" / "images-000000-000007.npz") as arrays:
        inputs, found = (torch.from_numpy(arrays[name]).permute(0, 3, 1, 2) for name in ("inputs", "truths"))
    path = HeatPath(1.5)
    assert torch.equal(found, truths)
    assert torch.equal(inputs, to_uint8(without_noise(path, 0.0, truths.double() / 127.5 - 1)))
    outcome = run_cli(
        *("eval-fid", run, "--features", "pixels", "--num", "8", "--json", tmp_path / "scores.json"),
        *("--solver", "stochastic-heun", "--steps", "2", "--noise-level", "0.5"),
    )
    assert outcome.code == 0, outcome.err
    error = (inputs.double() - truths.double()).square().mean()
    assert f"PSNR (blurred) {10 * math.log10(255**2 / error):.2f}" in " ".join(outcome.out.split())
    assert json.loads((tmp_path / "scores.json").read_text())
    model = sampling.load(run)
    with pytest.raises(UserError, match="give some"):
        next(sampling.generate_all(model, model.config.sampling, range(2), Request()))
