"""Every path against finite differences, forward-mode differentiation and the closed forms of Gaussian data; the samplers of times."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from amgen import config
from amgen.core.errors import UserError
from amgen.core.names import VP_TRACE
from amgen.paths import (
    AdaptiveTimes,
    AffinePath,
    ColourisationPath,
    HeatPath,
    InPaintingPath,
    LinearPath,
    Masses,
    Path,
    QuadratureTimes,
    StratifiedTimes,
    SuperResolutionPath,
    TimeSampler,
    TorusPath,
    Trigonometric,
    TrigonometricPath,
    UniformTimes,
    VariancePreserving,
    VPPath,
)
from amgen.paths.base import Constant

MASK = torch.arange(64).reshape(8, 8) % 3 == 0
PATHS: dict[str, Callable[[], Path]] = {
    "linear": LinearPath,
    "vp": VPPath,
    "trigonometric": TrigonometricPath,
    "super-resolution": SuperResolutionPath,
    "super-resolution by 3": lambda: SuperResolutionPath(3),
    "in-painting half": InPaintingPath,
    "in-painting box": lambda: InPaintingPath("box"),
    "in-painting mask": lambda: InPaintingPath("mask", MASK),
    "colourisation": ColourisationPath,
    "super-resolution trigonometric": lambda: SuperResolutionPath(2, Trigonometric()),
    "super-resolution vp": lambda: SuperResolutionPath(2, VariancePreserving()),
    "in-painting trigonometric": lambda: InPaintingPath("half", schedule=Trigonometric()),
    "in-painting vp": lambda: InPaintingPath("mask", MASK, VariancePreserving()),
    "colourisation trigonometric": lambda: ColourisationPath(schedule=Trigonometric()),
    "colourisation vp": lambda: ColourisationPath(schedule=VariancePreserving()),
    "heat": lambda: HeatPath(1.5),
    "torus": TorusPath,
}
AFFINE: dict[str, Callable[[], AffinePath]] = {"linear": LinearPath, "vp": VPPath, "trigonometric": TrigonometricPath}
GUIDED = [name for name in PATHS if "painting" in name or "resolution" in name or "colourisation" in name or name == "heat"]


SECTIONS: dict[type[Path], Callable[[], object]] = {
    VPPath: config.VPPathConfig,
    SuperResolutionPath: config.SuperResolutionPathConfig,
    InPaintingPath: config.InPaintingPathConfig,
    ColourisationPath: config.ColourisationPathConfig,
    HeatPath: config.HeatPathConfig,
}


def draw(path: Path, dtype: torch.dtype, device: torch.device | str = "cpu", count: int = 6) -> tuple[Tensor, Tensor, Tensor | None]:
    """Noise, data in [-1, 1] and the auxiliary numbers of a path."""
    noise = torch.randn(count, 3, 8, 8, dtype=dtype, device=device)
    data = 2 * torch.rand(count, 3, 8, 8, dtype=dtype, device=device) - 1
    return noise, data, torch.rand(count, path.auxiliary, dtype=dtype, device=device) if path.auxiliary else None


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # from inside torch.func.jvp
@pytest.mark.parametrize("name", PATHS)
def test_velocity_is_the_derivative_of_the_path(name: str, dtype: torch.dtype, device: torch.device) -> None:
    """Against forward-mode differentiation of x_t in t to rounding, and central differences: error below 1e-6 with steps of 1e-5.

    On the torus x_t jumps where it wraps; differences are taken modulo the period. Away from t = 1, where the velocity of vp is infinite.
    """
    path = PATHS[name]()
    noise, data, auxiliary = draw(path, dtype, device)
    conditioning = path.conditioning(data, auxiliary)
    t = 0.05 + 0.85 * torch.rand(len(data), dtype=dtype, device=device)

    def position(time: Tensor) -> Tensor:
        return path.interpolate(time, noise, data, conditioning)[0]

    velocity = path.sample(t, noise, data, auxiliary=auxiliary, boundary=True, score=True).velocity
    _, derivative = torch.func.jvp(position, (t,), (torch.ones_like(t),))
    torch.testing.assert_close(velocity, derivative)
    step = 1e-5 if dtype == torch.float64 else 1e-2
    difference = (
        path.finish(position(t + step) - position(t - step)) if isinstance(path, TorusPath) else position(t + step) - position(t - step)
    )
    tolerance = 1e-6 if dtype == torch.float64 else 5e-2
    torch.testing.assert_close(velocity, difference / (2 * step), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", PATHS)
def test_paths_end_at_data_and_start_where_generation_does(name: str, dtype: torch.dtype) -> None:
    """x_1 is the data; x_0 is the prior of the same noise, but for vp's trace of data and the torus, where only the distributions agree."""
    path = PATHS[name]()
    noise, data, auxiliary = draw(path, dtype)
    conditioning = path.conditioning(data, auxiliary)
    ends = path.interpolate(torch.ones(len(data), dtype=dtype), noise, data, conditioning)[0]
    torch.testing.assert_close(ends, data)
    start = path.sample(
        torch.full((len(data),), 0.5, dtype=dtype), noise, data, auxiliary=auxiliary, boundary=True, score=True
    ).boundary.start
    if not isinstance(path, TorusPath):
        torch.testing.assert_close(start, path.prior(noise, data, conditioning), rtol=0, atol=2 * VP_TRACE if "vp" in name else 1e-6)


@pytest.mark.parametrize("name", PATHS)
def test_conditional_score_is_that_of_the_gaussian(name: str, dtype: torch.dtype) -> None:
    """log q_t(x_t | x_1) is differentiated by autograd, with mean and scale read off the path itself, noise off and on."""
    path = PATHS[name]()
    noise, data, auxiliary = draw(path, dtype)
    t = 0.9 * torch.rand(len(data), dtype=dtype)
    sample = path.sample(t, noise, data, auxiliary=auxiliary, boundary=True, score=True)
    if isinstance(path, TorusPath):
        assert sample.score is None
        return
    mean = path.interpolate(t, torch.zeros_like(noise), data, sample.conditioning)[0]
    unit = path.interpolate(t, torch.ones_like(noise), data, sample.conditioning)[0] - mean
    x = sample.x.clone().requires_grad_()
    moving = unit != 0
    log_density = -0.5 * (((x - mean) / unit.where(moving, torch.ones_like(unit))) ** 2)[moving].sum()
    (expected,) = torch.autograd.grad(log_density, x)
    torch.testing.assert_close(sample.score, expected)


@pytest.mark.parametrize("name", AFFINE)
def test_score_follows_from_the_velocity(name: str, dtype: torch.dtype) -> None:
    """For data N(m, c^2), q_t is Gaussian in closed form, and so are its velocity and its score."""
    path, mean, scale = AFFINE[name](), 0.7, 0.4
    t = 0.05 + 0.9 * torch.rand(8, dtype=dtype)
    x = torch.randn(8, 5, dtype=dtype)
    c = path.coefficients(t).like(x)
    variance = c.noise**2 + (c.data * scale) ** 2
    rate = (c.noise * c.noise_rate + c.data * c.data_rate * scale**2) / variance
    velocity = c.data_rate * mean + rate * (x - c.data * mean)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    expected = -(x - c.data * mean) / variance
    torch.testing.assert_close(path.score(t, x, velocity, path.conditioning(x)), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", GUIDED)
def test_score_of_what_is_free_follows_from_the_velocity(name: str, dtype: torch.dtype) -> None:
    """With data known exactly, q_t is the Gaussian of the noise and both are those of the single path."""
    path = PATHS[name]()
    noise, data, auxiliary = draw(path, dtype)
    t = 0.05 + 0.9 * torch.rand(len(data), dtype=dtype)
    sample = path.sample(t, noise, data, auxiliary=auxiliary, boundary=True, score=True)
    assert sample.score is not None
    torch.testing.assert_close(path.score(t, sample.x, sample.velocity, sample.conditioning), sample.score, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", [*AFFINE, "colourisation"])
def test_noise_ends_at_zero_exactly_and_is_positive_before(name: str, precision: torch.dtype) -> None:
    """a(1) = 0 and alpha(1) = 1 exactly, and a(t) > 0 for t < 1, up to the last number before 1, so that sqrt(a) is finite everywhere.

    At t = 0 the noise has its full scale, but for the data that vp leaves: alpha(0) = exp(-(19.9/4 + 0.1/2)).
    """
    path = PATHS[name]()
    assert isinstance(path, AffinePath)
    one = torch.ones(1, dtype=precision)
    before = torch.cat([torch.linspace(0, 1, 1001, dtype=precision)[:-1], torch.nextafter(one, torch.zeros_like(one))])
    end, inside = path.coefficients(one), path.coefficients(before)
    assert (end.noise.item(), end.data.item()) == (0, 1)
    assert (inside.noise > 0).all()
    assert inside.noise.sqrt().isfinite().all()
    full = {"vp": math.sqrt(1 - math.exp(-2 * 5.025)), "colourisation": 0.1}.get(name, 1.0)
    assert inside.noise[0].item() == pytest.approx(full, rel=1e-6)
    assert inside.data[0].item() == pytest.approx(math.exp(-5.025) if name == "vp" else 0, abs=1e-6)


def test_vp_has_a_score_at_the_data(dtype: torch.dtype) -> None:
    """For data N(m, c^2) the flow is v = beta/2 (x + score) with the score -(x - m)/c^2, at t = 1 with beta_min; the noise there is 0."""
    x, end = torch.randn(4, 3, dtype=dtype), torch.ones(4, dtype=dtype)
    score = -(x - 0.7) / 0.4**2
    path, velocity = VPPath(0.3, 9.0), 0.15 * (x + score)
    torch.testing.assert_close(path.score(end, x, velocity, path.conditioning(x)), score)
    assert (path.posterior_noise(end, x, velocity, path.conditioning(x)) == 0).all()


def test_vp_preserves_variance_and_matches_its_diffusion(dtype: torch.dtype) -> None:
    """alpha^2 + sigma^2 = 1, and log alpha is minus half the integral of beta, by Simpson's rule, exact for a straight line."""
    path = VPPath(0.1, 20.0)
    t = torch.linspace(0, 1, 11, dtype=dtype)
    c = path.coefficients(t)
    torch.testing.assert_close(c.noise**2 + c.data**2, torch.ones_like(t))
    r = 1 - t
    beta = lambda s: 0.1 + 19.9 * s  # noqa: E731
    torch.testing.assert_close(c.data.log(), -0.5 * r / 6 * (beta(0 * r) + 4 * beta(r / 2) + beta(r)))
    torch.testing.assert_close(VPPath(1.0, 1.0).coefficients(t).data, (-0.5 * r).exp())
    for rates in ((2.0, 1.0), (0.0, 1.0)):
        with pytest.raises(UserError, match="expected 0 < beta_min"):
            VPPath(*rates)


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_super_resolution_condition_is_a_function_of_the_known_pixels(factor: int, dtype: torch.dtype) -> None:
    """Changing every free pixel changes nothing that is given; changing one known pixel does, in its own image alone."""
    path = SuperResolutionPath(factor)
    _, data, _ = draw(path, dtype)
    conditioning = path.conditioning(data)
    assert conditioning.free is not None
    assert conditioning.condition is not None
    other = torch.where(conditioning.free.bool(), torch.randn_like(data), data)
    assert torch.equal(path.conditioning(other).condition, conditioning.condition)
    assert torch.equal(path.prior(torch.zeros_like(data), other, conditioning), path.prior(torch.zeros_like(data), data, conditioning))
    known = (conditioning.free == 0).expand_as(data)
    assert torch.equal(conditioning.condition[known], data[known])
    assert conditioning.free.sum() == len(data) * (64 - math.ceil(8 / factor) ** 2)
    data[0, 0, factor, factor] += 1
    assert not torch.equal(path.conditioning(data).condition[0], conditioning.condition[0])
    assert torch.equal(path.conditioning(data).condition[1:], conditioning.condition[1:])


def test_super_resolution_interpolates_linearly(dtype: torch.dtype) -> None:
    """A plane is reproduced exactly up to the last known row and column, and goes on as a constant beyond them."""
    rows, columns = torch.meshgrid(torch.arange(7, dtype=dtype), torch.arange(9, dtype=dtype), indexing="ij")
    plane = (0.1 * rows - 0.2 * columns)[None, None]
    condition = SuperResolutionPath(2).conditioning(plane).condition
    torch.testing.assert_close(condition, plane)
    condition = SuperResolutionPath(2).conditioning(plane[..., :6, :]).condition
    assert condition is not None
    torch.testing.assert_close(condition[0, 0, 5], plane[0, 0, 4])


@pytest.mark.parametrize("name", [name for name in GUIDED if "painting" in name])
def test_in_painting_gives_the_known_pixels_and_the_mask_alone(name: str, dtype: torch.dtype) -> None:
    path = PATHS[name]()
    _, data, auxiliary = draw(path, dtype)
    conditioning = path.conditioning(data, auxiliary)
    assert conditioning.free is not None
    assert conditioning.condition is not None
    other = torch.where(conditioning.free.bool(), torch.randn_like(data), data)
    assert torch.equal(path.conditioning(other, auxiliary).condition, conditioning.condition)
    assert torch.equal(conditioning.condition[:, 3:], conditioning.free)
    assert conditioning.condition.shape[1] == path.condition_channels(3)


def test_regions_of_in_painting() -> None:
    """Halves are top or bottom, equally often within 4 standard errors; boxes have sides of 2 to 4 of 8 pixels, and reach all pixels."""
    auxiliary = torch.rand(2000, 4)
    data = torch.zeros(2000, 1, 8, 8)
    halves = InPaintingPath("half").conditioning(data, auxiliary[:, :1]).free
    assert halves is not None
    top = halves[:, 0, 0, 0]
    assert abs(top.mean() - 0.5) < 4 * 0.5 / 2000**0.5
    assert torch.equal(halves[:, 0, :4].flatten(1).mean(dim=1), top)
    assert torch.equal(halves[:, 0, 4:].flatten(1).mean(dim=1), 1 - top)
    boxes = InPaintingPath("box").conditioning(data, auxiliary).free
    assert boxes is not None
    tall, wide = boxes[:, 0].amax(dim=2).sum(dim=1), boxes[:, 0].amax(dim=1).sum(dim=1)
    assert torch.equal(boxes.sum(dim=(1, 2, 3)), tall * wide)
    assert set(tall.tolist()) == set(wide.tolist()) == {2.0, 3.0, 4.0}
    assert (boxes.mean(dim=0) > 0).all()
    mask = InPaintingPath("mask", MASK).conditioning(data[:2]).free
    assert mask is not None
    assert torch.equal(mask[1, 0], MASK.float())


def test_colourisation_starts_at_the_gray_image(dtype: torch.dtype) -> None:
    path = ColourisationPath(0.1)
    noise, data, _ = draw(path, dtype)
    conditioning = path.conditioning(data)
    assert conditioning.condition is not None
    torch.testing.assert_close(conditioning.condition[:, 0], 0.299 * data[:, 0] + 0.587 * data[:, 1] + 0.114 * data[:, 2])
    start = path.sample(torch.full((len(data),), 0.3, dtype=dtype), noise, data, boundary=True, score=True).boundary.start
    torch.testing.assert_close(start, conditioning.condition + 0.1 * noise)


def test_torus_is_uniform_at_the_start_whatever_the_data(dtype: torch.dtype) -> None:
    """The first two Fourier coefficients of x_0 given any x_1 vanish within 4 standard errors (variance 1/2 each, 20,000 pixels)."""
    path = TorusPath()
    noise = torch.randn(100, 200, dtype=dtype)
    conditioning = path.conditioning(noise)
    for x in (path.interpolate(torch.zeros(100, dtype=dtype), noise, torch.full_like(noise, 0.3), conditioning)[0], path.prior(noise)):
        assert x.min() >= -2
        assert x.max() < 2
        for frequency in (1, 2):
            angle = 2 * math.pi * frequency * x / path.PERIOD
            for wave in (angle.cos(), angle.sin()):
                assert wave.mean().abs() < 4 * (0.5 / wave.numel()) ** 0.5


def test_paths_have_the_defaults_of_the_configuration() -> None:
    """Built from a section without options or by hand, a path is the same; only image-to-image ones are conditional."""
    built = {
        VPPath: ("beta_min", "beta_max"),
        SuperResolutionPath: ("factor",),
        InPaintingPath: ("region",),
        ColourisationPath: ("noise",),
        HeatPath: ("blur", "noise"),
    }
    for made, options in built.items():
        for option in options:
            assert getattr(made(), option) == getattr(SECTIONS[made](), option), (made, option)
    for option in ("bins", "floor"):
        assert getattr(AdaptiveTimes(), option) == getattr(config.AdaptiveTimesConfig(), option)
    assert [name for name in PATHS if PATHS[name]().conditional] == GUIDED
    assert [PATHS[name]().auxiliary for name in ("in-painting half", "in-painting box", "in-painting mask", "linear")] == [1, 4, 0, 0]


def test_sizes_that_are_none_are_refused() -> None:
    for make, message in (
        (lambda: ColourisationPath(0.0), "path.noise=0.0: expected a positive number"),
        (lambda: SuperResolutionPath(1), "path.factor=1: expected at least 2"),
        (lambda: InPaintingPath("mask"), "path.region='mask': expected half, box, or mask together with a mask"),
        (lambda: InPaintingPath("half", MASK), "together with a mask"),
    ):
        with pytest.raises(UserError, match=message):
            make()


@pytest.mark.parametrize("name", PATHS)
def test_conditions_have_the_channels_that_the_network_is_built_for(name: str, dtype: torch.dtype) -> None:
    path = PATHS[name]()
    _, data, auxiliary = draw(path, dtype)
    condition = path.conditioning(data, auxiliary).condition
    assert path.condition_channels(3) == (0 if condition is None else condition.shape[1])
    assert (condition is None) == (name not in GUIDED)


@pytest.mark.parametrize("name", PATHS)
def test_samples_carry_what_belongs_to_them(name: str, dtype: torch.dtype) -> None:
    """The density that times were drawn from, 1 by default, labels and keys, and both ends, of which the later is the data."""
    path = PATHS[name]()
    noise, data, auxiliary = draw(path, dtype)
    t, density, label = torch.rand(6, dtype=dtype), torch.rand(6, dtype=dtype), torch.arange(6)
    dropout_seeds = torch.arange(12, dtype=torch.int32).reshape(6, 2)
    plain, full = (
        path.sample(t, noise, data, auxiliary=auxiliary, boundary=True, score=True),
        path.sample(t, noise, data, density, label, auxiliary, dropout_seeds, boundary=True, score=True),
    )
    assert torch.equal(plain.density, torch.ones_like(t))
    assert plain.label is plain.dropout_seeds is plain.boundary.label is plain.boundary.dropout_seeds is None
    assert (plain.score is None) == isinstance(path, TorusPath)
    for found, expected in (
        (full.density, density),
        (full.label, label),
        (full.dropout_seeds, dropout_seeds),
        (full.boundary.end, data),
        (full.t, t),
    ):
        assert torch.equal(found, expected)  # type: ignore[arg-type]
    assert full.boundary.label is full.label
    assert full.boundary.dropout_seeds is full.dropout_seeds
    assert full.boundary.condition is full.conditioning.condition


@pytest.mark.parametrize("name", GUIDED)
def test_guided_paths_ask_for_images(name: str) -> None:
    with pytest.raises(UserError, match="give the images to start from"):
        PATHS[name]().prior(torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize("interpolation", ["linear", "geometric"])
def test_masses_move_from_one_histogram_to_the_other(interpolation: str, dtype: torch.dtype) -> None:
    """Weighted by m_t, data with shares 1:3 has the shares asked for at the ends; growth is d/dt log m_t by central differences (1e-8)."""
    masses = Masses([1, 3], [0.5, 0.5], [8, 2], interpolation)
    classes = torch.tensor([0, 1, 1, 1])
    for time, share in ((0.0, 0.5), (1.0, 0.8)):
        mass, _ = masses(torch.full((4,), time, dtype=torch.float64), classes)
        assert float(mass[0] / mass.sum()) == pytest.approx(share)
        assert float(mass.mean()) == pytest.approx(1)
    t = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64)
    mass, growth = masses(t, classes)
    later, earlier = masses(t + 1e-5, classes)[0], masses(t - 1e-5, classes)[0]
    torch.testing.assert_close(growth, (later.log() - earlier.log()) / 2e-5, rtol=0, atol=1e-8)
    middle = {"linear": (2.0 + 3.2) / 2, "geometric": (2.0 * 3.2) ** 0.5}[interpolation]
    assert float(masses(torch.tensor([0.5]), torch.tensor([0]))[0]) == pytest.approx(middle)


def test_samples_are_weighed_by_the_classes_of_their_own_pairs() -> None:
    """The interior by m_t of its classes, the ends by m_0 and m_1 of theirs, which are the same ones unless given."""
    masses = Masses([1, 1], [3, 1], [1, 3])
    t, interior, ends = torch.tensor([0.0, 0.5]), torch.tensor([0, 1]), torch.tensor([1, 1])
    sample = LinearPath().sample(t, torch.randn(2, 3), torch.randn(2, 3), boundary=True, score=True)
    same, other = masses.weigh(sample, interior), masses.weigh(sample, interior, ends)
    for found, start, end in ((same, [1.5, 0.5], [0.5, 1.5]), (other, [0.5, 0.5], [1.5, 1.5])):
        assert found.mass is not None
        assert found.growth is not None
        assert found.boundary.start_mass is not None
        assert found.boundary.end_mass is not None
        assert found.mass.tolist() == pytest.approx([1.5, 1.0])
        assert found.growth.tolist() == pytest.approx([-1 / 1.5, 1.0])
        assert found.boundary.start_mass.tolist() == pytest.approx(start)
        assert found.boundary.end_mass.tolist() == pytest.approx(end)


def test_masses_default_to_the_data_and_refuse_what_does_not_fit() -> None:
    masses = Masses([1, 3], None, [1, 1])
    assert masses.start.tolist() == [1, 1]
    with pytest.raises(UserError, match="data.masses.end has 3 shares: expected one for each of the 2 classes"):
        Masses([1, 3], None, [1, 1, 1])
    with pytest.raises(UserError, match="class 1 has no images"):
        Masses([1, 0], None, [1, 1])


def test_stratified_times_put_one_in_each_stratum() -> None:
    times = StratifiedTimes().sample(0, 5, range(64), 64)[0]
    assert torch.equal((times * 64).floor(), torch.arange(64, dtype=torch.float64))


def test_each_stratified_time_is_uniform_in_its_stratum() -> None:
    """The shared offset over 5,000 steps has mean 1/2, within 5 standard errors."""
    offsets = torch.stack([StratifiedTimes().sample(0, step, range(1), 1)[0] for step in range(5000)])
    assert abs(offsets.mean() - 0.5) < 5 * (1 / 12 / 5000) ** 0.5


def learned() -> AdaptiveTimes:
    """A sampler that has seen a loss whose standard deviation is 1 + 4 t."""
    times = AdaptiveTimes(bins=8, memory=0.9, floor=0.05)
    for _ in range(50):
        t = torch.rand(512, dtype=torch.float64)
        times.learn(times.statistics(t, 7 + (1 + 4 * t) * torch.randn(512, dtype=torch.float64)))
    return times


@pytest.mark.parametrize("make", [UniformTimes, StratifiedTimes, QuadratureTimes, learned])
def test_times_do_not_depend_on_how_the_batch_is_divided(make: Callable[[], TimeSampler]) -> None:
    times = make()
    whole = times.sample(0, 5, range(64), 64)
    parts = [times.sample(0, 5, range(start, start + 16), 64) for start in range(0, 64, 16)]
    for kind in range(2):
        assert torch.equal(whole[kind], torch.cat([part[kind] for part in parts]))
    assert not torch.equal(whole[0], times.sample(0, 6, range(64), 64)[0])
    assert whole[0].min() >= 0
    assert whole[0].max() < 1


@pytest.mark.parametrize("make", [UniformTimes, StratifiedTimes, QuadratureTimes, learned])
def test_density_is_that_of_the_times(make: Callable[[], TimeSampler]) -> None:
    """E f(t)/p(t) = int f for f = 1 and f = cos 5t, within 4 standard errors over 400 steps of 64."""
    times = make()
    for function, integral in ((torch.ones_like, 1.0), (lambda t: (5 * t).cos(), math.sin(5) / 5)):
        means = torch.stack([(function(t) / p).mean() for t, p in (times.sample(0, step, range(64), 64) for step in range(400))])
        assert abs(means.mean() - integral) <= 4 * means.std() / 20 + 1e-12


def test_adaptive_density_follows_the_deviation_of_the_loss() -> None:
    """Bin means of 1 + 4 t, normalised, with 5% uniform; about 640 samples tell a deviation to 2.8%, so 16% is over 5 standard errors."""
    density = learned().density()
    deviation = 1 + 4 * (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    torch.testing.assert_close(density, 0.05 + 0.95 * deviation / deviation.mean(), rtol=0.16, atol=0)
    assert float(density.mean()) == pytest.approx(1)


def test_adaptive_times_forget() -> None:
    """After three steps of one loss the first counts memory^2, the second memory: counts, sums and squares in the bins of their times."""
    times = AdaptiveTimes(bins=2, memory=0.5)
    for t, value in ((0.2, 2.0), (0.3, 4.0), (0.9, 3.0)):
        times.learn(times.statistics(torch.tensor([t]), torch.tensor([value])))
    assert times.state() == [[0.75, 1.0], [0.25 * 2 + 0.5 * 4, 3.0], [0.25 * 4 + 0.5 * 16, 9.0]]


def test_adaptive_times_lower_the_variance() -> None:
    """The mean of a loss of deviation 1 + 4 t is steadier than with uniform times: a variance of 9 instead of 10.3 for each sample."""
    times = learned()
    variances = []
    for sampler in (StratifiedTimes(), times):
        values = []
        for step in range(1500):
            t, p = sampler.sample(1, step, range(64), 64)
            values.append(((1 + 4 * t) * torch.randn(64, dtype=torch.float64) / p).mean())
        variances.append(float(torch.stack(values).var()) * 64)
    assert variances[0] == pytest.approx(31 / 3, rel=0.15)
    assert variances[1] < 0.95 * variances[0]


def test_adaptive_state_travels() -> None:
    times, other = learned(), AdaptiveTimes(bins=8, memory=0.9, floor=0.05)
    assert torch.equal(other.density(), torch.ones(8, dtype=torch.float64))
    other.load(times.state())
    assert torch.equal(other.density(), times.density())
    sums = times.statistics(torch.tensor([0.0, 0.99999999]), torch.tensor([2.0, 3.0]))
    assert sums[:, 0].tolist() == [1, 2, 4]
    assert sums[:, 7].tolist() == [1, 3, 9]


def test_constants_are_copied_once() -> None:
    """A copy from the CPU at each step would wait for a GPU; another type is another copy, with the values of that type."""
    constant, x = Constant(torch.tensor([0.1, 0.2], dtype=torch.float64)), torch.zeros(1)
    assert constant.like(x) is constant.like(x + 1)
    assert torch.equal(constant.like(x), torch.tensor([0.1, 0.2]))
    assert constant.like(x.double()).tolist() == [0.1, 0.2]


@pytest.mark.parametrize("path", [InPaintingPath("mask", torch.arange(64).reshape(8, 8) < 32), ColourisationPath()], ids=["mask", "luma"])
def test_sampling_a_path_copies_no_constants_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second batch copies no tensor to another place or type."""
    batch = (torch.rand(2), torch.randn(2, 3, 8, 8), torch.rand(2, 3, 8, 8))
    path.sample(*batch)
    copies: list[object] = []
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *args, **options: (copies.append(args), to(tensor, *args, **options))[1])
    path.sample(*batch)
    assert not copies
