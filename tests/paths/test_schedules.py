"""Schedules against finite differences and the closed forms of Gaussian data; how paths and the configuration take them."""

import pytest
import torch

from amgen import config
from amgen.core.errors import UserError
from amgen.core.names import VP_TRACE
from amgen.model.build import build_path
from amgen.paths import (
    SCHEDULES,
    AffinePath,
    ColourisationPath,
    Conditioning,
    LinearPath,
    Schedule,
    SuperResolutionPath,
    TrigonometricPath,
    VPPath,
    make_schedule,
)

MEAN, SCALE = 0.7, 0.4


@pytest.mark.parametrize("name", SCHEDULES)
def test_derivatives_are_those_of_the_coefficients(name: str) -> None:
    """By central differences: errors below 1e-8 with steps of 1e-5 where third derivatives are moderate."""
    schedule, t, step = make_schedule(name), torch.linspace(0.05, 0.9, 18, dtype=torch.float64), 1e-5
    before, after, at = schedule.coefficients(t - step), schedule.coefficients(t + step), schedule.coefficients(t)
    torch.testing.assert_close(at.noise_rate, (after.noise - before.noise) / (2 * step), rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(at.data_rate, (after.data - before.data) / (2 * step), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_end_at_the_data(name: str, precision: torch.dtype) -> None:
    """Exactly; they start at the noise, but for the part of the data that vp leaves, which has its constant."""
    start, end = (make_schedule(name).coefficients(torch.tensor([time], dtype=precision)) for time in (0.0, 1.0))
    assert (end.noise.item(), end.data.item()) == (0, 1)
    assert start.data.item() == pytest.approx(VP_TRACE if name == "vp" else 0, abs=5e-5)
    assert start.noise.item() == pytest.approx(1, abs=5e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_which_schedules_sum_to_one(name: str) -> None:
    schedule, t = make_schedule(name), torch.linspace(0, 1, 11, dtype=torch.float64)
    c = schedule.coefficients(t)
    assert schedule.convex == torch.allclose(c.noise + c.data, torch.ones_like(t))


@pytest.mark.parametrize("deviation", [1.0, 0.3])
@pytest.mark.parametrize("name", SCHEDULES)
def test_posterior_noise_and_score_are_those_of_gaussian_data(name: str, deviation: float) -> None:
    """For data N(m, c^2) and noise of deviation d, x_t ~ N(alpha m, V) with V = d^2 a^2 + alpha^2 c^2:

    E[eps | x_t] = d a (x - alpha m) / V, the score is -(x - alpha m) / V and the velocity alpha' m + V' / (2 V) (x - alpha m).
    """
    schedule = make_schedule(name)
    t = torch.linspace(0.0, 0.95, 12, dtype=torch.float64)
    x = torch.randn(12, 5, dtype=torch.float64)
    c = schedule.coefficients(t).like(x)
    variance = (deviation * c.noise) ** 2 + (SCALE * c.data) ** 2
    half_rate = deviation**2 * c.noise * c.noise_rate + SCALE**2 * c.data * c.data_rate
    centred = x - c.data * MEAN
    velocity = c.data_rate * MEAN + half_rate / variance * centred
    torch.testing.assert_close(schedule.posterior_noise(t, x, velocity, deviation), deviation * c.noise * centred / variance)
    torch.testing.assert_close(schedule.score(t, x, velocity, deviation), -centred / variance)


@pytest.mark.parametrize(
    ("schedule", "path"),
    [("linear", LinearPath()), ("trigonometric", TrigonometricPath()), ("vp", VPPath())],
    ids=["linear", "trigonometric", "vp"],
)
def test_named_paths_are_affine_paths_of_their_schedules(schedule: str, path: AffinePath) -> None:
    noise, data, t = torch.randn(6, 3, 4, 4), torch.randn(6, 3, 4, 4), torch.linspace(0, 0.9, 6)
    other = AffinePath(make_schedule(schedule))  # type: ignore[arg-type]
    for found, expected in zip(
        other.interpolate(t, noise, data, Conditioning()), path.interpolate(t, noise, data, Conditioning()), strict=True
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", SCHEDULES)
def test_super_resolution_mixes_free_pixels_by_the_schedule(name: str) -> None:
    """And leaves the known ones alone; the reference is the schedule's own formula."""
    schedule, t = make_schedule(name), torch.linspace(0, 0.9, 6)
    path = SuperResolutionPath(2, schedule)
    noise, data = torch.randn(6, 1, 4, 4), torch.rand(6, 1, 4, 4)
    sample = path.sample(t, noise, data)
    c = schedule.coefficients(t).like(data)
    known = torch.zeros(4, 4, dtype=torch.bool)
    known[::2, ::2] = True
    torch.testing.assert_close(sample.x, torch.where(known, data, c.noise * noise + c.data * data))
    torch.testing.assert_close(sample.velocity, torch.where(known, 0.0, c.noise_rate * noise + c.data_rate * data))


@pytest.mark.parametrize("name", SCHEDULES)
def test_colours_come_in_by_the_schedule_and_brightness_stays(name: str) -> None:
    """Without noise the gray value of x_t is that of the image at every time, and its colours are alpha(t) times those of the image."""
    schedule, t = make_schedule(name), torch.linspace(0, 1, 6, dtype=torch.float64)
    path, data = ColourisationPath(0.2, schedule), torch.rand(6, 3, 4, 4, dtype=torch.float64)
    conditioning = path.conditioning(data)
    gray = conditioning.condition
    assert gray is not None
    x = path.interpolate(t, torch.zeros_like(data), data, conditioning)[0]
    torch.testing.assert_close(path.conditioning(x).condition, gray)
    c = schedule.coefficients(t).like(data)
    torch.testing.assert_close(x - gray, c.data * (data - gray))
    noisy = path.interpolate(t, torch.ones_like(data), data, conditioning)[0]
    torch.testing.assert_close(noisy - x, (0.2 * c.noise).expand_as(x))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", ["super-resolution", "in-painting", "colourisation"])
def test_the_configuration_chooses_the_schedule(kind: str, name: str) -> None:
    """linear where nothing is said, which old configurations do not."""
    preset = {"super-resolution": "cifar10-superres", "in-painting": "cifar10-inpaint", "colourisation": "cifar10-colorize"}[kind]
    path = build_path(config.load(preset, [f"path.schedule={name}"]))
    assert isinstance(path, AffinePath)
    assert type(path.schedule) is SCHEDULES[name]  # type: ignore[index]
    old = config.load(preset).model_dump(mode="json")
    del old["path"]["schedule"]
    unchanged = build_path(config.parse(old, "old"))
    assert isinstance(unchanged, AffinePath)
    assert type(unchanged.schedule) is SCHEDULES["linear"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["path.kind=heat", "path.schedule=vp"], "unknown option 'path.schedule'"),
        (["path.kind=torus", "path.schedule=vp"], "unknown option 'path.schedule'"),
        (["path.schedule=cosine"], "path.schedule='cosine': expected 'linear', 'trigonometric' or 'vp'"),
        (
            ["path.schedule=vp", "path.noise=0.05"],
            "0.0066 of the colours at t = 0, which path.noise=0.05 does not hide: set path.noise to 0.066",
        ),
    ],
)
def test_schedules_that_do_not_fit_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config.load("cifar10-colorize", overrides)


def test_unknown_schedules_are_refused() -> None:
    with pytest.raises(UserError, match="unknown schedule 'cosine'.*linear, trigonometric, vp"):
        make_schedule("cosine")  # type: ignore[arg-type]


def test_every_path_has_a_schedule_of_its_own_kind() -> None:
    """A schedule holds no state, so that paths may share one."""
    assert isinstance(LinearPath().schedule, Schedule)
    assert vars(LinearPath().schedule) == {}
