"""The experiment equal_time and the methods that it compares: both on equal terms, the clock, and the tables."""

import json
import math
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import equal_time
import pytest
import tasks
import torch
from baselines import METHODS, SCALE_FREE, ActionMatching, FlowMatching, Method, Training, alternate, generate, schedule
from helpers import assert_same_tensors, markdown_tables, newest_tensors
from PIL import Image
from torch import Tensor, nn

from amgen import config
from amgen.actions import DotAction
from amgen.config import Config
from amgen.core.errors import Diverged, UserError
from amgen.core.randomness import Purpose, gaussian
from amgen.data import ImageDataset, open_dataset, to_float
from amgen.evaluation.features import make_extractor
from amgen.evaluation.frechet import frechet_distance, matched_distance
from amgen.model.build import build_loss, build_path
from amgen.paths import PathSample
from amgen.solvers import FIXED_STEP, StepGrid
from amgen.training.main import train

MEAN, DEVIATION = 0.1, 0.15
"""Of the Gaussian data that exact velocities lead to."""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMGEN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return open_dataset(config.load("digits").images)


@pytest.fixture
def constant(tiny: Config) -> Config:
    """Without warm-up and decay."""
    return with_training(tiny, warmup_images=0, decay=0.0)


def with_training(settings: Config, **changes: float) -> Config:
    return config.change(settings, {"training": {**settings.training.model_dump(mode="json"), **changes}})


def a_sample(settings: Config, dataset: ImageDataset, size: int = 8) -> PathSample:
    noise = gaussian(0, Purpose.NOISE, range(size), settings.shape)
    return build_path(settings).sample(torch.linspace(0.1, 0.9, size), noise, dataset.floats(range(size)), boundary=True, score=True)


class Ticks:
    """A clock that moves on by a second whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


class ExactField(nn.Module):
    """The velocity of linear paths from N(0, 1) to N(MEAN, DEVIATION^2), every pixel alike and by itself.

    v = m + g(t) (x - t m), g = (t c^2 - (1 - t)) / ((1 - t)^2 + t^2 c^2), whose flow takes x_0 to m + c x_0.
    """

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        t = t.reshape(-1, 1, 1, 1)
        return MEAN + self.rate(t) * (x - t * MEAN)

    @staticmethod
    def rate(t: Tensor) -> Tensor:
        return (t * DEVIATION**2 - (1 - t)) / ((1 - t).square() + (t * DEVIATION).square())


class Potential(nn.Module):
    """f whose inner product with x has that velocity as its gradient: m + g(t)/2 (x - 2 t m)."""

    def forward(self, t: Tensor, x: Tensor, *_: object) -> Tensor:
        t = t.reshape(-1, 1, 1, 1)
        return MEAN + 0.5 * ExactField.rate(t) * (x - 2 * t * MEAN)


EXACT: dict[str, Callable[[], nn.Module]] = {"action": lambda: DotAction(Potential()), "field": ExactField}


def test_both_have_the_same_weights(tiny: Config) -> None:
    action, field = ActionMatching(tiny), FlowMatching(tiny)
    assert action.parameters == field.parameters > 0
    there = action.network.state_dict()
    assert there.keys() == {f"body.{name}" for name in field.network.state_dict()}
    assert all(torch.equal(there[f"body.{name}"], tensor) for name, tensor in field.network.state_dict().items())


def test_losses_are_half_the_squared_error_of_the_velocity(tiny: Config, digits: ImageDataset) -> None:
    """At first both velocities are zero; and the exact velocity of a Gaussian scores alike as a field and as an action."""
    sample = a_sample(tiny, digits)
    methods: list[Method] = [ActionMatching(tiny), FlowMatching(tiny)]
    for method in methods:
        torch.testing.assert_close(method.loss(sample), 0.5 * sample.velocity.square().flatten(1).sum(dim=1))
    action, field = methods
    action._loss = build_loss(tiny, DotAction(Potential()), build_path(tiny))  # type: ignore[attr-defined]
    field.network = ExactField()
    error = ExactField()(sample.t, sample.x) - sample.velocity
    for method in methods:
        torch.testing.assert_close(method.loss(sample), 0.5 * error.square().flatten(1).sum(dim=1))


def test_the_learning_rate_is_a_function_of_the_time_that_has_passed() -> None:
    rates = [schedule(fraction, warmup=0.2, decay=0.5) for fraction in (0, 0.05, 0.2, 0.4, 0.5, 0.75, 0.9, 1, 1.1)]
    assert rates == pytest.approx([0, 0.25, 1, 1, 1, 0.5, 0.2, 0, 0])
    assert [schedule(fraction, 0, 0) for fraction in (0, 0.5, 1)] == [1, 1, 1]


@pytest.mark.parametrize("name", METHODS)
def test_training_stops_with_its_own_clock(name: str, tiny: Config, digits: ImageDataset) -> None:
    """A step reads the clock three times and so takes 2 s of it; its learning rate is that of the moment 1 s after its start."""
    settings = with_training(tiny, images=160, warmup_images=32, decay=0.5)
    clock, rates = Ticks(), []
    training = Training(METHODS[name](settings), settings, digits, 0.01, seconds=15, clock=clock)
    training.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    training.warm_up()
    assert (training.spent, training.losses) == (0, [])
    training.run_until(7)
    assert (training.spent, len(training.losses)) == (8, 4)
    clock.now += 1000  # the other one's turn
    training.run_until(15)
    assert (training.spent, len(training.losses), training.images) == (16, 8, 128)
    assert rates == pytest.approx([0.01 * schedule((2 * step + 1) / 15, 0.2, 0.5) for step in range(8)])
    assert rates[-1] == 0
    training.run_until(15)
    assert len(training.losses) == 8


def test_averaged_weights_are_scored(constant: Config, digits: ImageDataset) -> None:
    """After one step the average is 2/11 of the first weights and 9/11 of the new ones; after many it reaches back a tenth of them."""
    training = Training(FlowMatching(constant), constant, digits, 0.01, seconds=100, clock=Ticks())
    before = {name: tensor.clone() for name, tensor in training.method.network.state_dict().items()}
    training.run_until(1)
    after = {name: tensor.clone() for name, tensor in training.method.network.state_dict().items()}
    assert max(float((after[name] - before[name]).abs().max()) for name in before) == pytest.approx(0.01, rel=0.01)  # Adam's first step
    for name, tensor in training.finish().network.state_dict().items():
        torch.testing.assert_close(tensor, 2 / 11 * before[name] + 9 / 11 * after[name])

    ages = {}
    for total in (400, 4000):
        counting = nn.Linear(1, 1, bias=False).double().requires_grad_(False)
        averages = type(training.averages)(counting, [SCALE_FREE], 1)
        for step in range(1, total + 1):
            counting.weight.fill_(step)
            averages.update(step)
        ages[total] = 1 - float(averages.averages[SCALE_FREE]["weight"]) / total
    assert list(ages.values()) == pytest.approx([0.1, 0.1], abs=3e-3)  # a tenth but for terms in 1/total


def test_turns_are_taken_in_both_orders() -> None:
    turns: list[tuple[str, float]] = []

    class Player:
        def __init__(self, name: str) -> None:
            self.name = name

        def warm_up(self) -> None:
            turns.append((self.name, 0))

        def run_until(self, mark: float) -> None:
            turns.append((self.name, mark))

    alternate([Player("a"), Player("b")], 2.5)  # type: ignore[list-item]
    assert turns == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("b", 2), ("a", 2), ("a", 2.5), ("b", 2.5)]


@pytest.mark.parametrize("name", METHODS)
def test_training_lowers_the_loss_and_sees_the_same_images(name: str, constant: Config, digits: ImageDataset) -> None:
    """In 25 steps of 16 images the loss falls below 0.8 of where it starts, 1/2 |u|^2, for both."""
    training = Training(METHODS[name](constant), constant, digits, 3e-3, seconds=100, clock=Ticks())
    training.run_until(50)
    losses = torch.tensor(training.losses)
    assert len(losses) == 25
    assert losses[-5:].mean() < 0.8 * losses[:3].mean()
    batch = training.stream.__getitems__(range(16))
    start = 0.5 * (batch.images - batch.noise).square().flatten(1).sum(dim=1).mean()
    torch.testing.assert_close(losses[0], start)  # the velocity is zero at first, whatever the time


def test_steps_are_those_of_amgen_train(constant: Config, digits: ImageDataset, tmp_path: Path) -> None:
    """At a constant learning rate the clock changes nothing: six steps lead to the weights of a run of six steps, bit for bit."""
    train(constant, tmp_path / "run")
    training = Training(ActionMatching(constant), constant, digits, constant.training.learning_rate, seconds=100, clock=Ticks())
    training.warm_up()
    training.run_until(12)
    assert training.images == constant.training.images
    run = {name: tensor for name, tensor in newest_tensors(tmp_path / "run").items() if name.startswith("action.safetensors/")}
    assert_same_tensors({f"action.safetensors/{name}": tensor for name, tensor in training.method.network.state_dict().items()}, run)


@pytest.mark.parametrize("name", METHODS)
def test_exact_velocities_generate_the_known_gaussian(name: str, tiny: Config) -> None:
    """The flow takes noise x to m + c x. RK4 in 40 steps errs by less than a gray level, 1/127.5, and so does rounding."""
    method, settings = METHODS[name](tiny), config.change(tiny, {"seed": 3})
    method.network = EXACT[name]()
    images, evaluations = generate(method.velocity(), FIXED_STEP["rk4"](StepGrid(40)), 250, settings)
    noise = gaussian(3, Purpose.SAMPLE_NOISE, range(250), settings.shape)
    assert evaluations == 160
    assert images.shape == (250, 1, 8, 8)
    assert (to_float(images) - (MEAN + DEVIATION * noise)).abs().max() < 1 / 127.5
    count = images.numel()  # means and deviations within four standard errors
    assert float(to_float(images).mean()) == pytest.approx(MEAN, abs=4 * DEVIATION / count**0.5)
    assert float(to_float(images).std()) == pytest.approx(DEVIATION, abs=4 * DEVIATION / (2 * count) ** 0.5)


def test_features_of_magnified_digits(digits: ImageDataset) -> None:
    """Pixels in which every 2x2 have the digits' as their mean have the features of the digits."""
    small = digits.images(range(20)).clamp(20, 235)
    about_zero = torch.tensor([[20, -10], [10, -20]]).repeat(8, 8)
    large = (small.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2).int() + about_zero).to(torch.uint8)
    halved = tasks.make_features("digits-16", config.load("digits", ["data.size=16"]))
    torch.testing.assert_close(halved(large), make_extractor("digits", 1, 8)(small))
    with pytest.raises(UserError, match="gray 16x16 images, not 1x8x8"):
        tasks.make_features("digits-16", config.load("digits"))


def test_magnified_digits() -> None:
    task = tasks.open_task("digits-16", width=8, real=100)
    assert task.dataset.images(range(3)).shape == (3, 1, 16, 16)
    assert task.description == "the embedded digits magnified, 16x16 gray"
    assert (task.extractor.distance_name, task.reference.count) == ("FD (digits features at half size)", 100)
    assert task.settings.images.size == 16


def test_a_training_is_scored(constant: Config) -> None:
    """By the averaged weights, on images that come of its own seed, beside what the training took."""
    options = Namespace(num=100, solver="euler", steps=3)
    task = tasks.open_task("digits", width=8, real=300)
    training = Training(FlowMatching(constant), constant, task.dataset, 0.01, seconds=100)
    training.losses, training.spent = [float(number) for number in range(45)], 4.5
    row, images = equal_time.score(training, task, options)
    assert torch.equal(images, generate(training.method.velocity(), FIXED_STEP["euler"](StepGrid(3)), 100, constant)[0])
    real = task.reference.features
    assert real is not None
    features = make_extractor("digits", 1, 8)(images)
    assert row["fd"] == pytest.approx(frechet_distance(features, real))
    matched = matched_distance(features, real, 0)
    assert (row["matched_n"], row["matched_fd"], row["floor"]) == (100, pytest.approx(matched.generated), pytest.approx(matched.floor))
    assert (row["generated"], row["real"], row["evaluations"]) == (100, 300, 3)
    assert (row["steps"], row["images"], row["ms_per_step"]) == (45, 720, 100)
    assert row["loss"] == 42.5  # of 41, 42, 43 and 44


def a_row(method: str, seed: int, fd: float, ms: int) -> dict[str, object]:
    distances = {"fd": fd, "fd_error": 0.1, "matched_fd": 2 * fd, "matched_fd_error": 0.2, "matched_n": 900, "floor": 0.5}
    speed = {"steps": 1000 // ms, "images": 64_000 // ms, "ms_per_step": ms, "ms_per_image": 3}
    return {"method": method, "seed": seed, "loss": 9.0, **distances, **speed}


def test_means_and_differences_over_seeds() -> None:
    """FD 1, 2, 3 and 0.5, 1.5, 1: differences 0.5, 0.5, 2, whose mean is 1 and whose standard error is sqrt(0.75 / 3) = 0.5."""
    rows = [a_row("action", seed, fd, 20) for seed, fd in enumerate((1, 2, 3))] + [
        a_row("field", seed, fd, 10) for seed, fd in enumerate((0.5, 1.5, 1))
    ]
    summary = equal_time.summarise(rows)
    assert summary["means"]["action"]["fd"] == pytest.approx({"mean": 2, "error": 1 / math.sqrt(3)})
    assert summary["means"]["field"]["matched_fd"]["mean"] == pytest.approx(2)
    assert summary["difference"] == pytest.approx({"mean": 1, "error": 0.5})
    assert summary["step_ratio"] == pytest.approx({"mean": 2, "error": 0})
    action, field = equal_time.summary_cells(summary)
    assert action == ["action, mean", "", "2 ± 0.58", "4 ± 1.2", "8.00", "", "50", "3,200", "20.0", ""]
    assert field[0] == "field, mean"
    assert equal_time.difference_in_words(summary).endswith("seed by seed: 1 ± 0.5; time of a step, action over field: 2 ± 0.")
    assert equal_time.summarise([rows[0], rows[3]])["difference"] == {"mean": 0.5, "error": None}
    assert equal_time.cells_of(rows[2]) == ["action", "2", "3 ± 0.1", "6 ± 0.2", "12.00", "9", "50", "3,200", "20.0", "3.00"]


def test_the_table_the_report_and_the_grids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], digits: ImageDataset
) -> None:
    """Two seeds on the digits, and on a folder of colour photographs of another size, which become 16x16 gray."""
    monkeypatch.setattr(tasks, "importlib", FakeImportlib)
    monkeypatch.setattr(equal_time, "Training", NotedTraining)
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for number in range(20):
        pixels = torch.randint(0, 256, (20, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
        Image.fromarray(pixels.numpy()).save(photographs / f"{number}.png")
    file, out = tmp_path / "reports" / "report.json", tmp_path / "out"
    equal_time.main(
        ["--seconds", "0.1", "--seeds", "2", "--data", "digits", str(photographs), "--num", "80", "--steps", "2", "--solver", "midpoint",
         "--learning-rate-field", "2e-3", "--width", "4", "--json", str(file), "--out", str(out)]
    )  # fmt: skip
    assert NotedTraining.noted[:4] == [("action", 0, 4e-3, 0.1), ("field", 0, 2e-3, 0.1), ("action", 1, 4e-3, 0.1), ("field", 1, 2e-3, 0.1)]
    report = json.loads(file.read_text())
    printed = capsys.readouterr().out
    assert "0.1 s of training for each method and seed, seeds 0 to 1" in printed
    assert "learning rates: action 0.004, field 0.002; solver midpoint, steps 2" in printed
    assert report["learning_rates"] == {"action": 4e-3, "field": 2e-3}
    first, second = report["sets"]
    assert "the embedded digits, 8x8 gray: 1,797 images, batch 64, coupling ot; parameters: action 266,097, field 266,097" in printed
    assert "FD (digits features): 64 dimensions, preparation: none; 80 generated against 1,797 real images, NFE 4" in printed
    assert "photographs, 16x16 gray: 20 images" in printed
    assert "FD (pixels): 256 dimensions, preparation: none; 80 generated against 20 real images, NFE 4" in printed
    assert first["features"]["name"] == "digits"
    assert second["settings"]["action"]["width"] == 4
    for found, size, (headings, *rows) in zip((first, second), (8, 16), markdown_tables(printed), strict=True):
        assert headings[3] == f"FD at n = {found['matched_n']:,}"
        assert rows == [*map(equal_time.cells_of, found["rows"]), *equal_time.summary_cells(found)]
        assert equal_time.difference_in_words(found) in printed
        assert [(row["method"], row["seed"]) for row in found["rows"]] == [("action", 0), ("field", 0), ("action", 1), ("field", 1)]
        for row in found["rows"]:
            assert row["seconds"] >= 0.1
            assert row["images"] == 64 * row["steps"]
            assert row["ms_per_step"] == pytest.approx(1e3 * row["seconds"] / row["steps"])
            assert row["fd_error"] > 0
        name = {8: "digits", 16: "photographs"}[size]
        for method in METHODS:
            with Image.open(out / f"{name}-{method}.png") as picture:
                assert picture.width == 8 * (size + 1) * (32 // size) + 32 // size  # 8 images, lines between, enlarged


class NotedTraining(Training):
    """Keeps what each was made with."""

    noted: ClassVar[list[tuple[str, int, float, float]]] = []

    def __init__(self, method: Method, settings: Config, dataset: ImageDataset, learning_rate: float, seconds: float) -> None:
        super().__init__(method, settings, dataset, learning_rate, seconds)
        self.noted.append((method.name, settings.seed, learning_rate, seconds))


class FakeImportlib:
    """Where EfficientNet-Lite0 is not installed."""

    class util:
        @staticmethod
        def find_spec(name: str) -> None:
            return None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seconds", "0"], "--seconds 0.0: expected a positive number"),
        (["--seconds", "nan"], "--seconds nan: expected a positive number"),
        (["--steps", "0"], "--steps 0: expected at least 1"),
        (["--seeds", "0"], "--seeds 0: expected at least 1"),
        (["--num", "3"], "--num 3: expected at least 8"),
        (["--data", "nowhere/at/all"], "'nowhere/at/all' does not exist"),
    ],
)
def test_mistakes_are_reported_in_a_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        equal_time.main(arguments)
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert message in error
    assert error.count("\n") == 1


def test_a_loss_that_is_not_finite_stops_the_training(tiny: Config, digits: ImageDataset) -> None:
    training = Training(FlowMatching(tiny), tiny, digits, 1e-3, seconds=10, clock=Ticks())
    for parameter in training.method.network.parameters():
        parameter.data.fill_(math.nan)
    with pytest.raises(Diverged, match="the loss of the field is nan at step 1: try a lower --learning-rate-field"):
        training.run_until(1)
