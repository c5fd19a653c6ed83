"""Log densities against closed forms and quadrature, dequantisation against the masses of cells, and the command."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY, amgen_process, run_cli, sets, small_action
from PIL import Image
from torch import Tensor

from amgen import config, sampling
from amgen.actions import MLP, Action, DotAction
from amgen.config import ODE_SOLVERS
from amgen.core.errors import Diverged, UserError
from amgen.data import open_dataset, to_float, to_uint8
from amgen.dynamics import Balanced, ConvexCost, Dynamics, DynamicsType
from amgen.evaluation.likelihood import (
    CELL,
    OFFSET,
    bits_per_dimension,
    bits_score,
    check_density,
    dequantise,
    draw_probes,
    evaluate,
    log_density,
    ode_options,
    select_images,
)
from amgen.evaluation.report import Evaluation
from amgen.model.build import build_action
from amgen.paths import ColourisationPath, LinearPath, SuperResolutionPath, TorusPath, VPPath
from amgen.paths import Path as ProbabilityPath
from amgen.solvers import ODESolver, StepGrid, make_solver

MEAN, SCALE = torch.tensor([0.7, -0.3, 0.2], dtype=torch.float64), torch.tensor([0.4, 1.5, 0.9], dtype=torch.float64)
ROTATION = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]


class GaussianAction(torch.nn.Module):
    """The action that transports N(0, 1) to N(R m, R diag(c^2) R') on the linear path: quadratic, with the Hessian R diag(rate) R'."""

    def __init__(self, mean: Tensor = MEAN, scale: Tensor = SCALE, rotation: Tensor | None = None):
        super().__init__()
        self.mean, self.scale = mean, scale
        self.rotation = torch.eye(len(mean), dtype=mean.dtype) if rotation is None else rotation

    def forward(self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        t = t[:, None]
        rate = (t * self.scale**2 - (1 - t)) / ((1 - t) ** 2 + (t * self.scale) ** 2)
        z = x @ self.rotation - t * self.mean
        return (self.mean * z + 0.5 * rate * z**2).sum(dim=1)

    def log_density(self, x: Tensor) -> Tensor:
        return torch.distributions.Normal(self.mean, self.scale).log_prob(x @ self.rotation).sum(dim=1)


def dynamics_of(action: torch.nn.Module, kind: DynamicsType | None = None, path: ProbabilityPath | None = None) -> Dynamics:
    return Dynamics(action, kind, path)  # type: ignore[arg-type]


def ode(name: str, steps: int = 1, tolerance: float = 1e-9) -> ODESolver:
    solver = make_solver(name, StepGrid(steps), tolerance)
    assert isinstance(solver, ODESolver)
    return solver


POINTS = 2 * torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("probes", [None, 2])
@pytest.mark.parametrize(("solver", "bound"), [(ode("dopri5"), 1e-6), (ode("rk4", 100), 1e-6)])
def test_density_of_a_gaussian(solver: ODESolver, bound: float, probes: int | None) -> None:
    """Per point to solver tolerance, by the exact trace and by signs, which are exact where the Hessian is diagonal."""
    action = GaussianAction()
    signs = None if probes is None else draw_probes(0, range(7), probes, (3,))
    found = log_density(solver, dynamics_of(action), LinearPath(), POINTS, signs)
    assert found.shape == (7, probes or 1)
    torch.testing.assert_close(found, action.log_density(POINTS)[:, None].expand_as(found), rtol=0, atol=bound)


@pytest.mark.parametrize("name", ODE_SOLVERS)
def test_every_ode_solver_will_do(name: str) -> None:
    """100 steps, or a tolerance of 1e-5: to 1 for order 1 and 0.01 for the others, of log densities from -25 to -3."""
    action, x = GaussianAction(), 0.5 * POINTS
    found = log_density(ode(name, 100, 1e-5), dynamics_of(action), LinearPath(), x)[:, 0]
    assert (found - action.log_density(x)).abs().max() < (1 if name == "euler" else 0.01)


def test_divergences_do_not_depend_on_how_many_products_are_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics, signs = dynamics_of(small_action(3, torch.float64)), draw_probes(0, range(7), 5, (3,)).double()
    whole = [dynamics.velocity_and_divergence(0.3, POINTS, probes) for probes in (None, signs)]
    assert [tuple(divergence.shape) for _, divergence in whole] == [(7, 1), (7, 5)]
    torch.testing.assert_close(whole[0][0], dynamics.velocity(0.3, POINTS))
    monkeypatch.setattr("amgen.dynamics.trained.JACOBIAN_PRODUCTS", 14)  # two of each of the 7 points
    for (_, expected), probes in zip(whole, (None, signs), strict=True):
        torch.testing.assert_close(dynamics.velocity_and_divergence(0.3, POINTS, probes)[1], expected)


def test_single_precision_adds_up_in_double() -> None:
    """A thousand dimensions in float32 come within 1e-6 of each dimension's share, and the sum is float64."""
    generator = torch.Generator().manual_seed(0)
    action = GaussianAction(torch.randn(1000, generator=generator), 0.5 + torch.rand(1000, generator=generator))
    x = torch.randn(3, 1000, generator=generator)
    found = log_density(ode("rk4", 100), dynamics_of(action), LinearPath(), x, draw_probes(0, range(3), 1, (1000,)))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found[:, 0], action.log_density(x).double(), rtol=0, atol=1e-3)


def test_probes_are_unbiased_where_the_hessian_is_not_diagonal() -> None:
    """The exact trace gives the closed form; so does the mean over all sign patterns, and over random ones within 4 standard errors.

    Single estimates differ, so that neither could be met by chance.
    """
    action = GaussianAction(rotation=ROTATION)
    expected = action.log_density(POINTS)
    solver, dynamics, path = ode("rk4", 60), dynamics_of(action), LinearPath()
    torch.testing.assert_close(log_density(solver, dynamics, path, POINTS)[:, 0], expected, rtol=0, atol=1e-5)
    patterns = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3).expand(7, 8, 3)
    found = log_density(solver, dynamics, path, POINTS, patterns)
    torch.testing.assert_close(found.mean(dim=1), expected, rtol=0, atol=1e-5)
    assert found.std(dim=1).min() > 0.1
    many = log_density(solver, dynamics, path, POINTS, draw_probes(5, range(7), 400, (3,)))
    assert ((many.mean(dim=1) - expected).abs() < 4 * many.std(dim=1) / 400**0.5).all()


def torus_action() -> Action:
    return DotAction(MLP(4, 16, depth=2, time_frequency=3.0), period=TorusPath.PERIOD).double()


@pytest.mark.parametrize(
    ("action", "kind", "path", "half"),
    [
        (lambda: small_action(2, torch.float64), Balanced(), VPPath(), 8.0),
        (lambda: small_action(2, torch.float64), ConvexCost(1.5), LinearPath(), 8.0),
        (torus_action, Balanced(), TorusPath(), 2.0),
        (torus_action, ConvexCost(1.5), TorusPath(), 2.0),
    ],
)
def test_densities_integrate_to_one(action: Callable[[], Action], kind: DynamicsType, path: ProbabilityPath, half: float) -> None:
    """Whatever the action: sums over a grid of 64 x 64 points, which converge fast for what is smooth and periodic or falls off.

    To 1e-4; the Jacobian of convex dynamics has a kink where the gradient vanishes, which leaves 2e-3.
    """
    network = action()
    for parameter in network.parameters():
        parameter.data *= 1.5
    line = torch.linspace(-half, half, 65, dtype=torch.float64)[:-1]
    points = torch.cartesian_prod(line, line)
    densities = log_density(ode("rk4", 20), dynamics_of(network, kind, path), path, points).exp()
    # Not the density that was begun with.
    assert (densities[:, 0] / path.log_prior(points).exp() - 1).abs().max() > 0.1
    assert float(densities.sum() * (2 * half / 64) ** 2) == pytest.approx(1, abs=1e-4 if isinstance(kind, Balanced) else 2e-3)


def test_priors() -> None:
    x = torch.randn(4, 1, 2, 2, dtype=torch.float64)
    expected = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1).log_prob(x).flatten(1).sum(dim=1)
    torch.testing.assert_close(LinearPath().log_prior(x), expected)
    torch.testing.assert_close(VPPath().log_prior(x), expected)
    torch.testing.assert_close(TorusPath().log_prior(10 * x), torch.full((4,), 4 * math.log(1 / 4), dtype=torch.float64))
    for path in (SuperResolutionPath(), ColourisationPath()):
        with pytest.raises(UserError, match="no density among all images"):
            path.log_prior(x)


def test_uniform_densities() -> None:
    """Uniform over the cells of all levels: 8 bits/dim exactly; over the torus, whose circle is 510 cells long, log2(510)."""
    length = 256 * CELL
    assert float(bits_per_dimension(torch.tensor(-12 * math.log(length), dtype=torch.float64), 12)) == pytest.approx(8, abs=1e-12)
    still = dynamics_of(torch.nn.Flatten(0))
    still.velocity_and_divergence = lambda t, x, probes: (torch.zeros_like(x), x.new_zeros(len(x), 1))  # type: ignore[method-assign]
    density = log_density(ode("euler"), still, TorusPath(), torch.zeros(2, 3, 2, 2, dtype=torch.float64))
    torch.testing.assert_close(bits_per_dimension(density, 12), torch.full((2, 1), math.log2(510), dtype=torch.float64))


def test_dequantised_images_fill_the_cells_of_their_levels() -> None:
    """Within half a cell, uniformly (mean and variance within 5 standard errors), and back to the same level."""
    images = torch.arange(256, dtype=torch.uint8).repeat(40, 3).reshape(40, 3, 16, 16)
    x = dequantise(images, 3, range(40))
    assert torch.equal(to_uint8(x), images)
    assert pytest.approx(float(to_float(torch.tensor(1)) - to_float(torch.tensor(0))), abs=1e-7) == CELL
    assert pytest.approx(math.log2(127.5), abs=1e-12) == OFFSET
    places = (x - to_float(images)).double() / CELL + 0.5
    assert places.min() > -1e-4
    assert places.max() < 1 + 1e-4
    assert abs(places.mean() - 0.5) < 5 * (1 / 12 / places.numel()) ** 0.5
    assert abs(places.var() - 1 / 12) < 5 * (1 / 180 / places.numel()) ** 0.5
    usual = (images + places) / 128 - 1
    torch.testing.assert_close(x.double(), 256 / 255 * usual, rtol=0, atol=1e-6)


def test_cells_keep_their_mass() -> None:
    """One pixel under N(0.1, 0.3^2): the mean of 2^-bits over a cell is the cell's mass, and the mean of bits is above its bits."""
    normal = torch.distributions.Normal(torch.tensor(0.1, dtype=torch.float64), 0.3)
    places = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    for level in (0, 100, 255):
        centre = level / 127.5 - 1
        mass = normal.cdf(torch.tensor((level + 0.5) / 127.5 - 1)) - normal.cdf(torch.tensor((level - 0.5) / 127.5 - 1))
        bits = bits_per_dimension(normal.log_prob(centre + CELL * (places - 0.5)), 1)
        assert float((-bits * math.log(2)).exp().mean()) == pytest.approx(float(mass), rel=1e-5)
        assert -math.log2(mass) < float(bits.mean()) < -math.log2(mass) + 1e-3


def test_draws_belong_to_images() -> None:
    """Dequantisation, probes and the choice of images: functions of the seed, the index and the probe alone."""
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    whole = dequantise(images, 0, [3, 8, 5, 1])
    assert torch.equal(dequantise(images[:2], 0, [5, 3]), whole[[2, 0]])
    assert not torch.equal(dequantise(images, 1, [3, 8, 5, 1]), whole)
    probes = draw_probes(0, [3, 8], 4, (1, 8, 8))
    assert probes.abs().eq(1).all()
    assert torch.equal(draw_probes(0, [8], 2, (1, 8, 8))[0], probes[1, :2])
    assert len({tuple(signs.flatten().tolist()) for signs in probes.flatten(0, 1)}) == 8
    dataset = open_dataset(config.DataConfig())
    assert set(select_images(dataset, 10, 0)) < set(select_images(dataset, 20, 0)) != set(select_images(dataset, 20, 1))
    assert select_images(dataset, 1797, 0) == list(range(1797))


def test_errors_of_the_mean() -> None:
    """Over 20,000 images with a spread of 0.3 and 2 probes with one of 0.1: every error within 3%, some 5 of its standard errors."""
    truth = 4 + 0.3 * torch.randn(20_000, 1, dtype=torch.float64)
    score = bits_score(truth + 0.1 * torch.randn(20_000, 2, dtype=torch.float64), exact=False)
    root = 20_000**0.5
    assert score.standard_error == pytest.approx((0.3**2 + 0.1**2 / 2) ** 0.5 / root, rel=0.03)
    assert abs(score.value - 4) < 5 * score.standard_error
    assert score.details["probe_standard_error_of_one_image"] == pytest.approx(0.1 / 2**0.5, rel=0.03)
    assert score.details["probe_standard_error"] == pytest.approx(0.1 / 2**0.5 / root, rel=0.03)
    assert "probe_standard_error" not in bits_score(truth, exact=False).details
    assert "not known" in bits_score(truth, exact=False).note
    assert "exact" in bits_score(truth, exact=True).note


def untrained(*overrides: str) -> sampling.Model:
    """A model of the digits with random weights, none of them zero."""
    options = config.load("digits", [*TINY, *overrides])
    action = build_action(options)
    generator = torch.Generator().manual_seed(0)
    for parameter in action.parameters():
        parameter.data += 0.03 * torch.randn(parameter.shape, generator=generator)
    return sampling.assemble(options, action, "action", 0, Path("untrained"))


STEPS = {"solver": "heun", "steps": 2}


def measured(model: sampling.Model, batch_size: int = 100, **arguments: Any) -> Evaluation:
    return evaluate(model, ode_options(model, {**STEPS, "batch_size": batch_size}), **arguments)


@pytest.mark.parametrize(
    ("overrides", "kind", "path"),
    [
        ([], Balanced(), LinearPath()),
        (["action.classes=10"], Balanced(), LinearPath()),
        (["dynamics.kind=convex", "dynamics.power=1.8"], ConvexCost(1.8), LinearPath()),
        (["path.kind=torus"], Balanced(), TorusPath()),
    ],
)
def test_the_report_is_the_mean_over_images(overrides: list[str], kind: DynamicsType, path: ProbabilityPath) -> None:
    """Against images taken one at a time, each with its own class where there are classes."""
    model = untrained(*overrides)
    classes = model.config.action.classes
    dataset = open_dataset(model.config.data)
    indices = select_images(dataset, 4, 1)

    def alone(index: int, label: Tensor | None) -> float:
        x, signs = dequantise(dataset.images([index]), 1, [index]), draw_probes(1, [index], 2, (1, 8, 8))
        density = log_density(ode("heun", 2), Dynamics(model.action, kind, label=label), path, x, signs)
        return float(-density.mean() / (64 * math.log(2)) + math.log2(127.5))

    def mean(shift: int) -> float:
        labels = [(dataset.labels[[index]] + shift) % 10 if classes else None for index in indices]
        return sum(map(alone, indices, labels)) / 4

    report = measured(model, num=4, seed=1, probes=2)
    assert report.principal.value == pytest.approx(mean(0), abs=1e-5)
    assert ("each given its class" in report.reference) == bool(classes)
    if classes:
        assert abs(report.principal.value - mean(1)) > 1e-3


def test_batch_size_does_not_matter() -> None:
    """Mean, standard error and the probes' part agree to 1e-5."""
    model = untrained()
    whole, parts = (measured(model, size, num=7, probes=2).principal for size in (100, 3))
    for first, second in ((whole.value, parts.value), (whole.standard_error, parts.standard_error)):
        assert first == pytest.approx(second, abs=1e-5)
    assert whole.details["probe_standard_error"] == pytest.approx(parts.details["probe_standard_error"], abs=1e-5)


def test_adaptive_solvers_keep_their_tolerance_in_any_batch() -> None:
    """One step for all points of a batch: a point alone and among others agree to 100 times the tolerance of a step."""
    solver, dynamics = ode("dopri5", tolerance=1e-6), dynamics_of(GaussianAction())
    whole = log_density(solver, dynamics, LinearPath(), POINTS)
    alone = torch.cat([log_density(solver, dynamics, LinearPath(), point[None]) for point in POINTS])
    assert 0 < (whole - alone).abs().max() < 1e-4


def test_probes_agree_with_the_exact_trace() -> None:
    """On the same images, within 4 of the standard errors that the report gives for the probes."""
    model = untrained()
    exact, estimated = measured(model, num=8, probes=0), measured(model, num=8, probes=16)
    error = estimated.principal.details["probe_standard_error"]
    assert 0 < abs(exact.principal.value - estimated.principal.value) < 4 * error
    assert (exact.sampling["probes"], estimated.sampling["probes"]) == ("exact", 16)


@pytest.mark.parametrize(
    ("overrides", "solver", "message"),
    [
        (["dynamics.kind=entropic", "sampling.solver=sra1"], "dopri5", "entropic dynamics are an SDE.*eval-fid.*dynamics.kind=balanced"),
        (["dynamics.kind=unbalanced"], "dopri5", "unbalanced dynamics create and destroy mass.*scripts/experiments/class_histogram.py"),
        (
            ["path.kind=super-resolution"],
            "dopri5",
            "path.kind=super-resolution starts from other images.*scripts/experiments/complete_images.py",
        ),
        (["path.kind=in-painting"], "heun", "path.kind=in-painting starts from other images.*path.kind=linear"),
        ([], "sra1", "solver=sra1 is for SDEs.*choose one of ab2, ab3"),
        (["sampling.solver=sra1", "sampling.noise_level=1.0"], None, "solver=sra1 is for SDEs"),
    ],
)
def test_what_has_no_density_is_refused(overrides: list[str], solver: str | None, message: str) -> None:
    model = untrained(*overrides)
    with pytest.raises(UserError, match=message):
        ode_options(model, {"solver": solver})
    if solver != "sra1":
        with pytest.raises(UserError, match=message):
            evaluate(model, model.config.sampling)


def test_a_run_that_draws_with_noise_is_followed_without() -> None:
    options = ode_options(untrained("sampling.solver=sra1", "sampling.noise_level=1.0"), {"solver": "heun", "steps": 3})
    assert (options.solver, options.steps, options.noise_level) == ("heun", 3, 0)


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = untrained("action.classes=10")
    for number, message in ((1798, "num=1798: the embedded digits has 1797 images: use at most 1797"), (1, "at least 2 images")):
        with pytest.raises(UserError, match=message):
            measured(model, num=number)
    for shade in range(3):
        Image.new("L", (8, 8), 50 * shade).save(tmp_path / f"{shade}.png")
    with pytest.raises(UserError, match="this model knows 10 classes, but .* has 1: give images of the same classes"):
        measured(model, data=str(tmp_path))
    assert measured(untrained(), data=str(tmp_path)).real == 3
    with pytest.raises(UserError, match="steps=5: dopri5 chooses its own steps: leave it out, or choose a solver such as rk4"):
        ode_options(model, {"solver": "dopri5", "steps": 5})
    monkeypatch.setattr(sampling.Model, "device", torch.device("mps"))
    with pytest.raises(UserError, match="device=mps has no double precision.*--device cpu"):
        check_density(model, "heun")


@pytest.mark.parametrize("solver", [ode("heun", 3), ode("dopri5")])
def test_divergence_names_the_image(solver: ODESolver) -> None:
    """The first of those whose way is not finite, whatever the solver does with such values."""

    class Broken(torch.nn.Module):
        def forward(self, t: Tensor, x: Tensor, label: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
            return torch.where(x[:, 0] > 1, math.nan, 1.0) * x[:, 0] ** 2

    x = torch.tensor([[0.0], [0.5], [3.0], [4.0]])
    with pytest.raises(Diverged, match="point 2 reaches values that are not finite"):
        log_density(solver, dynamics_of(Broken()), LinearPath(), x)
    model = untrained()
    next(model.action.parameters()).data.fill_(math.nan)
    first = select_images(open_dataset(model.config.data), 5, 0)[0]
    with pytest.raises(Diverged, match=f"image {first} of the embedded digits reaches"):
        measured(model, num=5)


def test_guidance_is_left_out() -> None:
    """A run that generates with guidance says so, and the score is the same as without."""
    conditional, plain = (
        measured(untrained("action.classes=10", "action.label_dropout=0.1", f"sampling.guidance={strength}"), num=3)
        for strength in (2.0, 1.0)
    )
    assert conditional.warnings == ["the run generates images with guidance 2; the likelihood is that without guidance"]
    assert plain.warnings == []
    assert conditional.principal == plain.principal


@pytest.fixture(scope="module")
def torus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("torus") / "run"
    assert run_cli("train", "digits", "--run-dir", run, *sets([*TINY, "training.images=16", "path.kind=torus"])).code == 0
    return run


def test_the_command(torus: Path) -> None:
    """End to end: the report where it belongs, with the keys of all evaluations and the true NFE; a torus begins near log2(510) bits."""
    command = ["eval-bpd", torus, "--solver", "heun", "--steps", "2"]
    outcome = run_cli(*command, "--num", "4")
    assert outcome.code == 0, outcome.err
    [file] = (torus / "eval").glob("bpd-000000016-*.json")
    stored = json.loads(file.read_text())
    keys = ["scores", "generated", "real", "reference", "features", "model", "sampling", "seconds", "warnings", "metric_options"]
    assert list(stored) == keys
    assert (stored["generated"], stored["real"], stored["features"]) == (0, 4, None)
    assert stored["sampling"] == {"solver": "heun", "steps": 2, "NFE": 4, "seed": 0, "probes": 4}
    (score,) = stored["scores"]
    assert score["name"] == "bits/dim"
    assert score["value"] == pytest.approx(math.log2(510), abs=0.5)
    assert f"bits/dim {score['value']:.4g} +- {score['standard_error']:.2g}" in outcome.out
    assert "4 real images of the embedded digits, drawn by the seed from 1,797" in outcome.out
    exact = run_cli(*command, "--num", "2", "--exact", "--json", torus / "exact.json")
    assert exact.code == 0, exact.err
    assert json.loads((torus / "exact.json").read_text())["sampling"]["probes"] == "exact"
    assert "exact divergence" in exact.out
    adaptive = run_cli("eval-bpd", torus, "--num", "2", "--tolerance", "1e-2", "--json", torus / "adaptive.json")
    assert "solver dopri5, tolerance 0.01, NFE" in adaptive.out, adaptive.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num", "0"], "--num 0: expected at least 1"),
        (["--probes", "0"], "--probes 0: expected at least 1"),
        (["--probes", "2", "--exact"], "--exact needs no --probes 2: leave one out"),
        (["--solver", "eular"], "unknown solver 'eular' (did you mean 'euler'?)"),
        (["--solver", "sra1"], "solver=sra1 is for SDEs"),
        (["--steps", "5"], "dopri5 chooses its own steps"),
        (["--data", "nowhere"], "data.path='nowhere' does not exist"),
    ],
)
def test_mistakes_cost_one_line(options: list[str], message: str, torus: Path) -> None:
    outcome = run_cli("eval-bpd", torus, *options)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_two_processes_share_the_work(torus: Path, tmp_path: Path) -> None:
    """Over gloo: the scores of one process to 1e-6, once."""
    options = ["-n", "9", "--batch-size", "4", "--solver", "heun", "--steps", "2", "--json"]
    process = amgen_process("eval-bpd", torus, *options, tmp_path / "two.json", processes=2)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.count("bits/dim") == 1
    assert run_cli("eval-bpd", torus, *options, tmp_path / "one.json").code == 0
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert two["sampling"] == one["sampling"]
    for key in ("value", "standard_error"):
        assert two["scores"][0][key] == pytest.approx(one["scores"][0][key], abs=1e-6)
