"""What each option does to a training: by what its trainer draws and computes, against formulas and against other parts of the product."""

import json
import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from helpers import TINY, run_cli
from PIL import Image
from rich.console import Console
from torch import Tensor

from amgen import config
from amgen.actions import SquareAction
from amgen.config import change
from amgen.core.randomness import Purpose, uniform
from amgen.data import open_dataset, to_image, training_stream
from amgen.data.systems.mixture import Mixture
from amgen.data.systems.simulation import rng_of
from amgen.losses import MarginalLoss
from amgen.paths import PathSample
from amgen.training import main
from amgen.training.batches import Loader, TrainingBatch
from amgen.training.loop import Trainer
from amgen.training.signals import StopRequest

SMALL = [*TINY, "training.sample_every=0", "training.batch_size=16"]
POINTS = ["action.width=8", "action.depth=1", "training.images=96", "training.batch_size=16", "training.sample_every=0"]
CELLS = ["data.path=TABLE", "data.dimension=2"]
SHARES = "data.masses.end=[10,9,8,7,6,5,4,3,2,1]"
UNBALANCED = ["dynamics.kind=unbalanced", SHARES]
ENTROPIC = ["dynamics.kind=entropic", "sampling.solver=euler-maruyama"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30, 40 and 20 points in two dimensions at times 0, 1 and 2."""
    file = tmp_path_factory.mktemp("table") / "cells.npz"
    times = np.repeat([0.0, 1.0, 2.0], [30, 40, 20])
    np.savez(file, sample_labels=times, pcs=np.random.default_rng(0).normal(size=(90, 2)) + times[:, None] * [1, 0])
    return file


@pytest.fixture
def make(table: Path, tmp_path: Path) -> Callable[..., Trainer]:
    """Prepares a trainer of some options without training it."""

    def build(*overrides: str, preset: str = "digits") -> Trainer:
        base = SMALL if preset == "digits" else POINTS if preset != "cells" else [*POINTS, *CELLS]
        options = config.load(preset, [override.replace("TABLE", str(table)) for override in (*base, *overrides)])
        dataset = open_dataset(options.data)
        options = change(options, {"data": {**options.data.model_dump(mode="json"), **dataset.record()}})
        AcceleratorState._reset_state()
        return Trainer(options, dataset, tmp_path, Accelerator(cpu=True), Console())

    return build


def drawn(trainer: Trainer, first: int = 0, count: int = 16) -> tuple[TrainingBatch, PathSample]:
    """A batch of the stream and the samples of the path that the trainer makes of it."""
    batch = trainer.items.__getitems__(range(first, first + count))
    return batch, trainer._sample(batch)


# What is drawn


def test_independent_boundaries_are_others_and_weigh_by_their_own_classes(make: Callable[..., Trainer]) -> None:
    """Paired: the ends of the interior's own pairs. Independent: other images, with the masses of their classes, not of the interior's."""
    for boundaries in ("paired", "independent"):
        trainer = make(*UNBALANCED, "loss.form=marginal", f"loss.boundaries={boundaries}")
        batch, sample = drawn(trainer)
        ends = batch.pairs if batch.boundary is None else batch.boundary
        assert (ends is batch.pairs) == (boundaries == "paired")
        torch.testing.assert_close(sample.boundary.start, ends.noise)
        torch.testing.assert_close(sample.boundary.end, ends.data)
        counts = torch.bincount(trainer.dataset.labels, minlength=10).double()
        heavier = torch.arange(10, 0, -1) / 55 / (counts / counts.sum())  # mass of an image of each class at t = 1, and 1 at t = 0
        assert sample.boundary.end_mass is not None
        assert sample.mass is not None
        torch.testing.assert_close(sample.boundary.end_mass, heavier[ends.classes].float())
        expected = 1 - sample.t + sample.t * heavier[batch.pairs.classes].float()
        torch.testing.assert_close(sample.mass, expected)
    assert (ends.classes != batch.pairs.classes).any()


def test_masses_change_as_asked(make: Callable[..., Trainer]) -> None:
    """Geometric: m_0^(1-t) m_1^t; with `start`, m_0 is that share over the class's share in the data."""
    conditioning = "data.masses.start=[1,2,3,4,5,6,7,8,9,9]"
    for overrides in (["data.masses.interpolation=geometric"], [conditioning], [conditioning, "data.masses.interpolation=geometric"]):
        trainer = make(*UNBALANCED, *overrides, "coupling.kind=independent")
        batch, sample = drawn(trainer)
        counts = torch.bincount(trainer.dataset.labels, minlength=10).double()
        shares = counts / counts.sum()
        begin = torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 9]).double() / 54 if conditioning in overrides else shares
        first, last = (begin / shares)[batch.pairs.classes], (torch.arange(10, 0, -1) / 55 / shares)[batch.pairs.classes]
        t = sample.t.double()
        geometric = overrides[-1].endswith("geometric")
        expected = first ** (1 - t) * last**t if geometric else (1 - t) * first + t * last
        assert sample.mass is not None
        torch.testing.assert_close(sample.mass.double(), expected, rtol=1e-5, atol=0)


def test_noise_stays_within_the_class_where_classes_condition(make: Callable[..., Trainer]) -> None:
    """In each group of 48 the images of a class keep the noise that was drawn for them, as a whole; without classes they do not."""
    for classes in (10, 0):
        trainer = make(f"action.classes={classes}", "coupling.kind=ot", "coupling.group=48")
        coupled = trainer.items.stream.__getitems__(range(48))
        plain = training_stream(trainer.dataset, trainer.config.seed).__getitems__(range(48))
        assert torch.equal(coupled.labels, plain.labels)
        kept = []
        for label in range(10):
            sums = [batch.noise[batch.labels == label].sum(dim=(1, 2, 3)).sort().values for batch in (coupled, plain)]
            kept.append(torch.equal(*sums))
        assert all(kept) == (classes == 10)
        assert not torch.equal(coupled.noise, plain.noise)


def test_times_are_below_one(make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch) -> None:
    """A time of 1 - 1e-12 becomes the largest float32 below 1, where scores are finite; smaller ones stay."""
    trainer = make(*ENTROPIC)
    times = torch.full((16,), 1 - 1e-12, dtype=torch.float64)
    times[0] = 0.25
    monkeypatch.setattr(trainer.times, "sample", lambda *_: (times, torch.ones(16)))
    _, sample = drawn(trainer)
    assert sample.t.tolist() == [0.25] + [float(np.nextafter(np.float32(1), np.float32(0)))] * 15
    assert sample.score is not None
    assert torch.isfinite(sample.score).all()


def test_times_are_drawn_as_asked(make: Callable[..., Trainer]) -> None:
    """Uniform: the stream's own; stratified: one in each sixteenth; adaptive: a floor that no density is below."""
    _, sample = drawn(make("times.kind=uniform"), first=32)
    torch.testing.assert_close(sample.t, uniform(0, Purpose.TIME, range(32, 48)).float(), rtol=0, atol=1e-7)
    _, sample = drawn(make("times.kind=stratified"), first=32)
    assert (16 * sample.t).floor().tolist() == list(range(16))
    times = make("times.kind=adaptive", "times.bins=2", "times.floor=0.9", "times.memory=0.5").times
    values = torch.tensor([1.0, 1.0, 1.0, 1.0, -9.0, 9.0, -9.0, 9.0])  # no deviation in the first half, all of it in the second
    times.learn(times.statistics(torch.tensor([0.1] * 4 + [0.9] * 4), values))
    assert [float(density) for density in times.sample(0, 0, range(16), 16)[1].unique()] == pytest.approx([0.9, 1.1])


def test_probes_are_signs(make: Callable[..., Trainer]) -> None:
    for probes in (1, 3):
        _, sample = drawn(make(*ENTROPIC, "loss.form=marginal", f"loss.probes={probes}"))
        assert sample.probes is not None
        assert sample.probes.shape == (16, probes, 1, 8, 8)
        assert set(sample.probes.unique().tolist()) == {-1.0, 1.0}
    assert drawn(make(*ENTROPIC, "loss.form=marginal", "loss.probes=0"))[1].probes is None


def test_rates_of_the_diffusion_shape_the_path(make: Callable[..., Trainer]) -> None:
    """alpha = exp(-r^2/4 (beta_max - beta_min) - r beta_min/2) with r = 1 - t: x_t = sqrt(1 - alpha^2) eps + alpha x_1."""
    for low, high in ((0.1, 20.0), (0.1, 10.0), (1.0, 20.0)):
        batch, sample = drawn(make("path.kind=vp", f"path.beta_min={low}", f"path.beta_max={high}"))
        r = 1 - sample.t.double()[:, None, None, None]
        alpha = torch.exp(-(r**2) / 4 * (high - low) - r * low / 2)
        torch.testing.assert_close(
            sample.x.double(), (1 - alpha**2).sqrt() * batch.pairs.noise + alpha * batch.pairs.data, rtol=1e-4, atol=1e-4
        )


# What is minimised


def test_dynamics_are_as_asked(make: Callable[..., Trainer]) -> None:
    """sigma(t), lambda and |y|^(q-2) y of the trained kind."""
    t = torch.tensor([0.0, 0.25, 0.75])
    for overrides, expected in (
        (["dynamics.schedule=sqrt(a)"], (1 - t).sqrt()),
        (["dynamics.schedule=1-t"], 1 - t),
        (["dynamics.schedule=sqrt(a)", "dynamics.sigma=0.5"], 0.5 * (1 - t).sqrt()),
    ):
        torch.testing.assert_close(make(*ENTROPIC, *overrides).loss.dynamics.sigma(t), expected)
    for rate in (0.01, 0.02):
        trainer = make(*UNBALANCED, f"dynamics.rate={rate}")
        assert trainer.loss.dynamics.rate == rate
    slope = torch.tensor([[3.0, 4.0]])
    for power in (3.0, 2.5):
        kind = make("dynamics.kind=convex", f"dynamics.power={power}").loss.dynamics
        torch.testing.assert_close(kind.velocity(slope), slope * 5 ** (power / (power - 1) - 2))


def test_a_weight_multiplies_the_loss_of_its_time(make: Callable[..., Trainer]) -> None:
    plain, weighted = make(), make("loss.weight=1-t")
    _, sample = drawn(plain)
    torch.testing.assert_close(weighted.loss(sample).loss, (1 - sample.t) * plain.loss(sample).loss)


def test_forms_and_heads(make: Callable[..., Trainer]) -> None:
    """The marginal form is the paper's class of loss; square: 1/2 |x - f|^2; pooled: the mean of the features, weighed."""
    assert isinstance(make("loss.form=marginal").loss, MarginalLoss)
    action = make("action.head=square").action
    t, x = torch.rand(3), torch.randn(3, 1, 8, 8)
    assert isinstance(action, SquareAction)
    torch.testing.assert_close(action(t, x), 0.5 * (x - action.body(t, x)).square().sum(dim=(1, 2, 3)))
    action = make("action.head=pooled").action
    features = action.body(t, x)
    assert features.shape == (3, 8, 8, 8)
    torch.testing.assert_close(action(t, x), features.mean(dim=(2, 3)) @ action.weight)


def first_step(trainer: Trainer) -> dict[str, tuple[Tensor, Tensor, dict[str, Tensor]]]:
    """Take a step; return each weight before and after it, and what the optimiser remembers of it."""
    before = {name: parameter.detach().clone() for name, parameter in trainer.action.named_parameters()}
    trainer._step(Loader(iter([trainer.items.__getitems__(range(16))])), watch=False)
    return {
        name: (before[name], parameter.detach(), trainer.optimizer.state[parameter])
        for name, parameter in trainer.action.named_parameters()
    }


def test_weight_decay_shrinks_the_weights(make: Callable[..., Trainer]) -> None:
    """By learning rate times decay of themselves, beside Adam's own step, which is the same."""
    more = ["training.warmup_images=0", "training.learning_rate=0.01"]
    plain = first_step(make(*more))
    decayed = first_step(make(*more, "training.optimizer=adamw", "training.weight_decay=0.1"))
    for name, (before, after, _) in plain.items():
        torch.testing.assert_close(decayed[name][1], after - 0.001 * before, rtol=1e-4, atol=1e-6)


def test_betas_are_those_of_the_moments(make: Callable[..., Trainer]) -> None:
    """After one step of gradient g the moments are (1 - beta_1) g and (1 - beta_2) g^2."""
    for first, second in ((0.6, 0.9), (0.9, 0.999)):
        for _, _, state in first_step(make(f"training.betas=[{first},{second}]")).values():
            gradient = state["exp_avg"] / (1 - first)
            torch.testing.assert_close(state["exp_avg_sq"], (1 - second) * gradient.square(), rtol=1e-3, atol=1e-20)


def test_skipped_images_are_counted_over_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes alike, each of which meets k of them, 2 k are counted. (What they reduce is then what each has.)"""
    dataset = open_dataset(config.load("digits").data)
    for index in range(32):
        to_image(dataset.images([index])[0]).save(tmp_path / f"{index:02d}.png")
    for index in range(0, 32, 4):
        (tmp_path / f"{index:02d}.png").write_text("no image")
    options = config.load("digits", [*SMALL, f"data.path={tmp_path}", "data.on_error=skip"])
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=True)
    monkeypatch.setattr(Accelerator, "num_processes", property(lambda self: 2))
    monkeypatch.setattr(Accelerator, "reduce", lambda self, tensor, reduction: tensor)
    trainer = Trainer(options, open_dataset(options.data), tmp_path, accelerator, Console())
    assert trainer.share == 8
    batches = [trainer.items.__getitems__(range(start, start + 8)) for start in (0, 16)]
    assert all(batch.skipped > 0 for batch in batches)
    loader = Loader(iter(batches))
    for _ in batches:
        trainer._step(loader, watch=False)
    trainer._synchronise(StopRequest())
    assert trainer.state.progress.skipped == 2 * sum(batch.skipped for batch in batches)


def test_the_processes_wait_as_long_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """training.timeout is what the group of processes is made with."""
    found: list[Any] = []

    def stop(**options: Any) -> None:
        found.extend(options["kwargs_handlers"])
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "Accelerator", stop)
    with pytest.raises(KeyboardInterrupt):
        main.train(config.load("digits", [*SMALL, "training.timeout=123"]), tmp_path / "run")
    assert [handler.timeout for handler in found] == [timedelta(seconds=123)]


# What is drawn of the model while training


@pytest.mark.parametrize(
    ("overrides", "without"),
    [
        (["action.classes=10", "action.label_dropout=0.5", "sampling.guidance=6"], ["--guidance", "1"]),
        (["sampling.solver=euler-maruyama", "sampling.noise_level=2"], ["--noise-level", "0", "--solver", "euler"]),
    ],
)
def test_grids_and_scores_are_those_of_the_commands(overrides: list[str], without: list[str], tmp_path: Path) -> None:
    """With guidance and with a noise level, which matter: the picture is the one of `amgen sample`, the score that of `amgen eval-fid`."""
    more = [
        "training.learning_rate=0.02",
        "evaluation.every=96",
        "evaluation.features=digits",
        "evaluation.num=16",
        "sampling.batch_size=8",
    ]
    run = tmp_path / "run"
    main.train(config.load("digits", [*TINY, *more, *overrides]), run)
    with Image.open(run / "samples" / "images-000000096.png") as image:
        trained = np.asarray(image).astype(int)
    pictures = []
    for options in ([], without):
        outcome = run_cli("sample", run, "-n", "4", "--grid", tmp_path / "grid.png", *options)
        assert outcome.code == 0, outcome.err
        with Image.open(tmp_path / "grid.png") as image:
            pictures.append(np.asarray(image).astype(int))
    assert abs(trained - pictures[0]).max() <= 1
    assert abs(trained - pictures[1]).max() > 10
    (file,) = (run / "eval").glob("training-*.json")
    score = json.loads(file.read_text())["scores"][0]["value"]
    outcome = run_cli("eval-fid", run, "--features", "digits", "--num", "16", "--json", tmp_path / "again.json")
    assert outcome.code == 0, outcome.err
    assert json.loads((tmp_path / "again.json").read_text())["scores"][0]["value"] == pytest.approx(score, rel=1e-3)


# Populations


def test_points_are_linked_as_asked(make: Callable[..., Trainer]) -> None:
    """Independent: as they were drawn. By transport: the points of a time are exchanged within groups of 8, and the way gets shorter."""
    whole = {}
    for name, overrides in {"none": ["coupling.kind=independent"], "eight": ["coupling.group=8"], "all": ["coupling.group=24"]}.items():
        trainer = make("data.hold_out=1", *overrides, preset="cells")
        whole[name] = trainer.items.stream.__getitems__(range(24)).images
        plain = training_stream(trainer.dataset, trainer.config.seed).__getitems__(range(24)).images
        assert torch.equal(whole[name], plain) == (name == "none")
        size = {"none": 1, "eight": 8, "all": 24}[name]
        for start in range(0, 24, size):
            rows = slice(start, start + size)
            assert torch.equal(whole[name][rows, 1, 0].sort().values, plain[rows, 1, 0].sort().values)
    lengths = {name: float((chains[:, 1, :2] - chains[:, 0, :2]).square().sum()) for name, chains in whole.items()}
    assert lengths["none"] > lengths["eight"] > lengths["all"]


def test_points_are_in_the_units_asked_for(make: Callable[..., Trainer], table: Path) -> None:
    """none: the table's own; common: centred, with a mean square deviation of 1; times: one point of each in a chain."""
    with np.load(table) as stored:
        first = stored["pcs"][stored["sample_labels"] == 0]
    raw = make("data.standardize=none", preset="cells").dataset.floats(range(5))
    np.testing.assert_allclose(raw[:, 0, :2], first[:5], rtol=1e-5)
    assert raw.shape == (5, 3, 3)
    assert make("data.times=[0,2]", preset="cells").dataset.floats(range(5)).shape == (5, 2, 3)
    trainer = make("data.standardize=global", preset="cells")
    points = torch.cat([trainer.dataset.units.transform(torch.as_tensor(part)) for part in trainer.dataset.source.points])  # type: ignore[union-attr]
    np.testing.assert_allclose(points.mean(dim=0), 0, atol=1e-4)
    assert float(points.square().mean()) == pytest.approx(1, rel=1e-3)


def test_points_are_blurred_and_weighed_and_wrapped_as_asked(make: Callable[..., Trainer]) -> None:
    """path.noise: x = line + b eps; counts: the masses of times are N_k / N_0; period: x in [-P/2, P/2)."""
    _, plain = drawn(make(preset="cells"))
    batch, noisy = drawn(make("path.noise=0.3", preset="cells"))
    torch.testing.assert_close(noisy.x, plain.x + 0.3 * batch.pairs.noise)
    for counts, masses in (("true", [1, 40 / 30, 20 / 30]), ("false", [1, 1, 1])):
        unbalanced = ["dynamics.kind=unbalanced", "action.head=linear", f"data.mass_from_counts={counts}"]
        chains = make(*unbalanced, preset="cells").dataset.floats(range(5))
        np.testing.assert_allclose(chains[..., -1], [masses] * 5, rtol=1e-6)
    _, wrapped = drawn(make("data.period=2", "data.standardize=none", preset="cells"))
    assert -1 <= wrapped.x.min() < -0.5
    assert 0.5 < wrapped.x.max() < 1


def test_networks_of_points_are_as_asked(make: Callable[..., Trainer]) -> None:
    """gain: the network sees that much of x; time_frequency: the highest of the embedding; rate and sigma: of the kind."""
    plain, strong = make(preset="cells").action, make("action.gain=3", preset="cells").action
    t, x = torch.rand(4), torch.randn(4, 2)
    torch.testing.assert_close(strong.body(t, x), plain.body(t, 3 * x))
    for frequency in (2.0, 7.0):
        assert float(make(f"action.time_frequency={frequency}", preset="cells").action.body.time.frequencies.max()) == pytest.approx(
            frequency
        )
    entropic = ["dynamics.kind=entropic", "path.noise=0.2", "sampling.solver=euler-maruyama", "dynamics.sigma=2"]
    times = torch.tensor([0.0, 0.5])
    kind = make(*entropic, preset="cells").loss.dynamics
    torch.testing.assert_close(kind.sigma(times), torch.full((2,), 2 * math.sqrt(0.2)))
    assert make("dynamics.kind=unbalanced", "data.mass_from_counts=true", "dynamics.rate=0.7", preset="cells").loss.dynamics.rate == 0.7


def test_simulations_are_those_of_their_seed(make: Callable[..., Trainer]) -> None:
    for seed in (0, 1):
        dataset = make("data.particles=50", f"data.seed={seed}", preset="mixture-unbalanced").dataset
        np.testing.assert_allclose(dataset.source.points[0], Mixture().sample(50, rng_of(seed, 0))[0])
