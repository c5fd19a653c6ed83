"""Every kind, path, form and sampler through the trainer: the same run however it is divided, stopped and resumed; and what it can draw."""

from pathlib import Path

import pytest
import torch
from helpers import TINY, amgen_process, assert_learned_the_same, assert_same_tensors, newest_tensors, run_cli, sets

from amgen import config, sampling
from amgen.core.errors import UserError
from amgen.data import open_dataset
from amgen.model import checkpoints
from amgen.training.loop import Trainer
from amgen.training.main import train

SHARES = "data.masses.end=[10,9,8,7,6,5,4,3,2,1]"
ENTROPIC = ["dynamics.kind=entropic", "sampling.solver=euler-maruyama"]
FAMILY = {
    "entropic": ENTROPIC,
    "entropic marginal": [*ENTROPIC, "loss.form=marginal", "loss.probes=2"],
    "unbalanced": ["dynamics.kind=unbalanced", SHARES, "coupling.kind=ot", "coupling.group=24"],
    "unbalanced marginal": ["dynamics.kind=unbalanced", SHARES, "loss.form=marginal", "loss.boundaries=independent"],
    "convex": ["dynamics.kind=convex", "dynamics.power=1.5"],
    "vp": ["path.kind=vp", "loss.weight=1-t", "times.kind=uniform"],
    "trigonometric": ["path.kind=trigonometric", "action.head=pooled"],
    "torus": ["path.kind=torus"],
    "super-resolution": ["path.kind=super-resolution", "loss.form=marginal"],
    "in-painting": ["path.kind=in-painting", "path.region=box", "loss.form=marginal", "loss.boundaries=independent"],
    "heat": ["path.kind=heat", "path.blur=1.5"],
    "classes": ["action.classes=10", "action.label_dropout=0.5", "coupling.kind=ot", "coupling.group=48"],
    "adaptive": ["times.kind=adaptive", "times.bins=2", "times.memory=0.9"],
}


def run(folder: Path, *overrides: str) -> Path:
    train(config.load("digits", [*TINY, *overrides]), folder)
    return folder


@pytest.mark.parametrize("name", FAMILY)
def test_a_run_does_not_depend_on_accumulation_or_on_a_stop(name: str, tmp_path: Path) -> None:
    """In passes of 8 images it learns the same; stopped after 3 steps and resumed, the same bit for bit."""
    whole = newest_tensors(run(tmp_path / "whole", *FAMILY[name]))
    assert all(torch.isfinite(tensor).all() for tensor in whole.values())
    parts = newest_tensors(run(tmp_path / "parts", *FAMILY[name], "training.micro_batch=8"))
    assert_learned_the_same(parts, whole, config.load("digits", [*TINY, *FAMILY[name]]))
    run(tmp_path / "resumed", *FAMILY[name], "training.images=48")
    assert_same_tensors(newest_tensors(run(tmp_path / "resumed", *FAMILY[name])), whole)


@pytest.mark.parametrize(
    "overrides",
    [
        [*FAMILY["adaptive"], *FAMILY["unbalanced marginal"]],
        [*FAMILY["entropic marginal"], "action.classes=10", "action.label_dropout=0.5"],
        ["path.kind=in-painting", "path.region=box", "times.kind=uniform", "sampling.grid=3"],
    ],
)
def test_two_processes_learn_what_one_does(overrides: list[str], tmp_path: Path) -> None:
    """What is gathered or drawn for each sample agrees."""
    process = amgen_process("train", "digits", "--run-dir", tmp_path / "two", *sets([*TINY, *overrides]), processes=2)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    one = newest_tensors(run(tmp_path / "one", *overrides))
    assert_learned_the_same(newest_tensors(tmp_path / "two"), one, config.load("digits", [*TINY, *overrides]))


def test_what_the_adaptive_sampler_learned_is_saved(tmp_path: Path) -> None:
    folder = checkpoints.latest(run(tmp_path / "run", *FAMILY["adaptive"]))
    assert folder is not None
    counts, _, squares = checkpoints.load(folder).progress.times
    assert sum(counts) == pytest.approx(16 * sum(0.9**k for k in range(6)))
    assert min(squares) > 0


def draw(folder: Path, request: sampling.Request, count: int = 6, guidance: float = 1.0) -> sampling.Samples:
    model = sampling.load(folder)
    options = config.change(model.config.sampling, {"steps": 3, "guidance": guidance})
    (batch,) = sampling.generate_all(model, options, range(count), request)
    return batch


@pytest.mark.parametrize("name", ["super-resolution", "in-painting"])
def test_known_pixels_are_kept_exactly(name: str, tmp_path: Path) -> None:
    folder = run(tmp_path / "run", *FAMILY[name])
    dataset = open_dataset(config.load("digits").data)
    batch = draw(folder, sampling.Request(images=dataset))
    assert batch.truths is not None
    assert batch.inputs is not None
    assert torch.equal(batch.truths, dataset.images(range(6)))
    changed = (batch.images != batch.truths).any(dim=1)
    if name == "super-resolution":
        assert not changed[:, ::2, ::2].any()
        assert torch.equal(batch.inputs[:, :, ::2, ::2], batch.truths[:, :, ::2, ::2])
        assert changed[:, 1::2].any()
    else:
        assert changed.flatten(1).any(dim=1).all()
        assert changed.flatten(1).sum(dim=1).max() <= 16  # boxes of at most 4 by 4
    with pytest.raises(UserError, match="starts from images: give some"):
        draw(folder, sampling.Request())


def test_unbalanced_samples_carry_weights(tmp_path: Path) -> None:
    """Log-weights are the integral of lambda s along the way: against Euler steps by hand."""
    folder = run(tmp_path / "run", *FAMILY["unbalanced"])
    model = sampling.load(folder)
    options = config.change(model.config.sampling, {"solver": "euler", "steps": 4})
    (batch,) = sampling.generate_all(model, options, range(5), sampling.Request())
    assert batch.log_weights is not None
    from amgen.core.randomness import Purpose, gaussian

    x, expected = gaussian(0, Purpose.SAMPLE_NOISE, range(5), (1, 8, 8)).requires_grad_(), torch.zeros(5)
    for step in range(4):
        action = model.action(torch.full((5,), step / 4), x)
        (slope,) = torch.autograd.grad(action.sum(), x)
        expected = expected + 0.25 * 0.01 * action.detach()
        x = (x + 0.25 * slope).detach().requires_grad_()
    torch.testing.assert_close(batch.log_weights.float(), expected, rtol=1e-4, atol=1e-6)
    assert sampling.effective_sample_size([0.0, 0.0, 0.0]) == pytest.approx(3)
    assert sampling.effective_sample_size([1000.0, 1000.0, -1000.0]) == pytest.approx(2)


def test_entropic_samples_depend_on_their_noise_alone(tmp_path: Path) -> None:
    """The same images, to one gray level, alone and in a batch; others with another seed."""
    folder = run(tmp_path / "run", *ENTROPIC)
    model = sampling.load(folder)
    (whole,) = sampling.generate_all(model, model.config.sampling, range(6), sampling.Request())
    (part,) = sampling.generate_all(model, model.config.sampling, [4, 1], sampling.Request())
    assert (part.images.int() - whole.images[[4, 1]].int()).abs().max() <= 1
    (other,) = sampling.generate_all(model, model.config.sampling, range(6), sampling.Request(seed=1))
    assert (other.images != whole.images).flatten(1).any(dim=1).all()


def test_guidance_reaches_the_samples(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", *FAMILY["classes"], "training.learning_rate=0.05")
    plain, strong, none = (draw(folder, sampling.Request(), guidance=strength) for strength in (1.0, 3.0, 0.0))
    assert (plain.evaluations, strong.evaluations) == (4, 8)
    assert not torch.equal(plain.images, strong.images)
    other = draw(folder, sampling.Request(label=7), guidance=0.0)
    assert torch.equal(other.images, none.images)  # without guidance towards it, the class does not matter


def test_a_share_of_the_samples_goes_without_its_class(tmp_path: Path) -> None:
    """Of 2,000 samples a tenth, within 5 standard errors, whichever part of them is asked for; the others keep their class."""
    from accelerate import Accelerator
    from rich.console import Console

    options = config.load("digits", [*TINY, "action.classes=10", "action.label_dropout=0.1"])
    trainer = Trainer(options, open_dataset(options.data), tmp_path, Accelerator(cpu=True), Console())
    pairs = trainer.items.__getitems__(range(2000)).pairs
    labels = pairs.label
    assert labels is not None
    dropped = labels == 10
    assert abs(float(dropped.double().mean()) - 0.1) < 5 * (0.1 * 0.9 / 2000) ** 0.5
    assert torch.equal(labels[~dropped], pairs.classes[~dropped])
    part = trainer.items.__getitems__(range(300, 400)).pairs.label
    assert part is not None
    assert torch.equal(part, labels[300:400])


def test_cli_options_of_the_family(tmp_path: Path) -> None:
    """Weights and effective sample size, images to start from, guidance; and what does not fit a model is refused in one line."""
    import numpy as np

    weighted = run(tmp_path / "weighted", *FAMILY["unbalanced"])
    outcome = run_cli("sample", weighted, "--num", "6", "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert "effective sample size" in outcome.out
    lines = (tmp_path / "out" / "weights.csv").read_text().splitlines()
    assert lines[0] == "index,log_weight"
    assert [line.split(",")[0] for line in lines[1:]] == [str(index) for index in range(6)]
    outcome = run_cli("sample", weighted, "--num", "6", "--out", tmp_path / "out", "--resample", "--grid", tmp_path / "r.png")
    assert outcome.code == 0, outcome.err
    chosen = (tmp_path / "out" / "resampled.csv").read_text().split()[1:]
    assert len(chosen) == 6
    assert set(chosen) <= {str(index) for index in range(6)}
    outcome = run_cli("eval-fid", weighted, "--features", "digits", "--num", "10", "--json", tmp_path / "e.json")
    assert (outcome.code, "the images carry weights" in outcome.out) == (0, True)

    completing = run(tmp_path / "completing", *FAMILY["super-resolution"])
    outcome = run_cli("sample", completing, "--num", "5", "--out", tmp_path / "npz", "--format", "npz", "--grid", tmp_path / "g.png")
    assert outcome.code == 0, outcome.err
    with np.load(tmp_path / "npz" / "images-000000-000004.npz") as arrays:
        assert arrays["images"].shape == arrays["inputs"].shape == arrays["truths"].shape == (5, 8, 8, 1)
    outcome = run_cli("sample", completing, "--condition-data", tmp_path / "missing")
    assert (outcome.code, "does not exist" in outcome.err) == (2, True)

    outcome = run_cli("sample", weighted, "--condition-data", tmp_path)
    assert (outcome.code, "starts from noise alone" in outcome.err) == (2, True)
    outcome = run_cli("sample", weighted, "--guidance", "2")
    assert (outcome.code, "needs a model that was also trained without classes" in outcome.err) == (2, True)
    outcome = run_cli("sample", weighted, "--solver", "euler-maruyama")
    assert (outcome.code, "solves SDEs" in outcome.err) == (2, True)


def test_masses_need_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data.masses.end has 2 shares: expected one for each of the 10 classes"):
        run(tmp_path / "run", "dynamics.kind=unbalanced", "data.masses.end=[1,2]")
