"""The loop on one process: reproducible, resumable, and careful."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from helpers import TINY, amgen_process, assert_same_tensors, newest_tensors, sets

from amgen import config
from amgen.core.errors import Diverged, Interrupted, UserError
from amgen.losses import ConditionalLoss, LossTerms
from amgen.model import checkpoints
from amgen.model.checkpoints import Progress
from amgen.paths import PathSample
from amgen.training.loop import Trainer
from amgen.training.main import train
from amgen.training.rundir import lock

OVERRIDES = [*TINY, "action.dropout=0.1", "training.ema=[0.9,0.5]", "data.flip=true"]


def run(folder: Path, *overrides: str, restart: bool = False) -> Path:
    train(config.load("digits", [*OVERRIDES, *overrides]), folder, restart)
    return folder


def metrics(run: Path) -> list[dict[str, float]]:
    """Lines of metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("uninterrupted") / "run")


def test_run_directory_holds_what_it_should(uninterrupted: Path) -> None:
    assert sorted(entry.name for entry in uninterrupted.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.yaml",
        "machine.jsonl",
        "metrics.jsonl",
        "samples",
    ]
    assert [line["images"] for line in metrics(uninterrupted)] == [32, 64, 96]
    assert [entry.name for entry in (uninterrupted / "samples").iterdir()] == ["images-000000096.png"]
    recorded = f"data.classes={json.dumps(list('0123456789'))}"  # the names of the digits' classes
    assert config.load(str(uninterrupted / "config.yaml")) == config.load("digits", [*OVERRIDES, recorded])


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_stopping_and_resuming_at_any_step_changes_nothing(step: int, uninterrupted: Path, tmp_path: Path) -> None:
    """Weights, averages, optimiser state and metrics equal the uninterrupted run's bit for bit.

    The signal comes during a step that may be in the middle of a window of metrics. One process stops at the end of that step.
    """
    original = Trainer._step

    def stop(self: Trainer, *arguments: Any, **options: Any) -> None:
        if self.state.progress.step == step - 1:
            signal.raise_signal(signal.SIGTERM)
        original(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted, match="run the same command again to go on"):
        patch.setattr(Trainer, "_step", stop)
        run(tmp_path / "run")
    folder = checkpoints.latest(tmp_path / "run")
    assert folder is not None
    assert checkpoints.step_of(folder) == step
    run(tmp_path / "run")
    assert_same_tensors(newest_tensors(tmp_path / "run"), newest_tensors(uninterrupted))
    assert metrics(tmp_path / "run") == metrics(uninterrupted)


def test_work_lost_in_a_crash_is_done_again(uninterrupted: Path, tmp_path: Path) -> None:
    """Metrics written after the last checkpoint, and a line cut short, are dropped and written anew."""
    folder = run(tmp_path / "run", "training.images=32")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "images": 64, "loss": 1.0}\n{"step": 5, "ima')
    run(folder)
    assert metrics(folder) == metrics(uninterrupted)
    assert_same_tensors(newest_tensors(folder), newest_tensors(uninterrupted))


def test_accumulation_changes_nothing_but_rounding(tmp_path: Path) -> None:
    """Passes of 4 images instead of 16, dropout included: sums in another order, so equal to 1e-5 after 6 steps of Adam."""
    whole = newest_tensors(run(tmp_path / "whole"))
    parts = newest_tensors(run(tmp_path / "parts", "training.micro_batch=4"))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-5)
    # Adam and clipping hide a wrong scale of the gradient; its norm does not.
    for one, other in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "parts"), strict=True):
        assert other == pytest.approx(one, rel=1e-4)


def test_gradients_are_exchanged_once_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four passes, three keep their gradients to themselves."""
    alone: list[object] = []
    original = Accelerator.no_sync
    monkeypatch.setattr(Accelerator, "no_sync", lambda self, model: alone.append(model) or original(self, model))  # type: ignore[func-returns-value]
    run(tmp_path / "run", "training.micro_batch=4")
    assert len(alone) == 3 * 6


def test_one_training_at_a_time(tmp_path: Path) -> None:
    """A second one is refused while the first is at work, and welcome afterwards."""
    with lock(tmp_path / "run"), pytest.raises(UserError, match="another training writes to .*choose another --run-dir"):
        run(tmp_path / "run")
    run(tmp_path / "run")


def test_in_double_precision_accumulation_changes_nothing(tmp_path: Path) -> None:
    """Nothing but rounding of 1e-16 tells passes of 4 images from one of 16: 1e-10 leaves Adam room for gradients near zero."""
    options = ["training.precision=fp64", "training.sample_every=0"]
    whole = newest_tensors(run(tmp_path / "whole", *options))
    parts = newest_tensors(run(tmp_path / "parts", *options, "training.micro_batch=4"))
    assert whole["action.safetensors/body.stem.weight"].dtype == torch.float64
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-10)


def test_options_for_memory_and_precision_reach_the_network(tmp_path: Path) -> None:
    """Activations computed anew change rounding alone, and a run may be resumed with or without."""
    from amgen.model.build import build_action

    for asked in (True, False):
        options = config.load("digits", [*OVERRIDES, f"training.checkpoint_activations={str(asked).lower()}"])
        assert build_action(options).body.checkpoint is asked
    folder = run(tmp_path / "run", "training.images=48", "training.sample_every=0")
    anew = run(folder, "training.checkpoint_activations=true", "training.sample_every=0")
    kept = run(tmp_path / "kept", "training.sample_every=0")
    for name, value in newest_tensors(kept).items():
        torch.testing.assert_close(newest_tensors(anew)[name], value, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on machines of one core
def test_workers_change_nothing(uninterrupted: Path, tmp_path: Path) -> None:
    folder = run(tmp_path / "run", "data.workers=2")
    assert_same_tensors(newest_tensors(folder), newest_tensors(uninterrupted))


def test_restart_starts_over_and_spares_unknown_files(uninterrupted: Path, tmp_path: Path) -> None:
    folder = run(tmp_path / "run", "seed=5")
    (folder / "notes.txt").write_text("mine")
    run(folder, restart=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert_same_tensors(newest_tensors(folder), newest_tensors(uninterrupted))


def test_other_options_are_refused(uninterrupted: Path) -> None:
    with pytest.raises(UserError, match=r"training.learning_rate \(0.001 there, 0.002 now\).*--restart"):
        run(uninterrupted, "training.learning_rate=2e-3")


def test_other_images_are_refused(tmp_path: Path) -> None:
    from amgen.data import open_dataset, to_image

    dataset = open_dataset(config.load("digits").data)
    (tmp_path / "few").mkdir()
    for index, image in enumerate(dataset.images(range(20))):
        to_image(image).save(tmp_path / "few" / f"{index}.png")
    folder = run(tmp_path / "run", "training.images=32")
    with pytest.raises(UserError, match="was trained on other images"):
        run(folder, f"data.path={tmp_path / 'few'}")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="not empty and holds no config.yaml"):
        run(tmp_path, restart=True)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_finished_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tmp_path / "run", "training.images=32")
    before = newest_tensors(folder)
    run(folder, "training.images=32")
    assert "already trained on 32 images: raise training.images to go on" in capsys.readouterr().out
    assert_same_tensors(newest_tensors(folder), before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_it_does_harm(value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = ConditionalLoss.forward, []

    def poisoned(self: ConditionalLoss, sample: PathSample) -> LossTerms:
        calls.append(1)
        terms = original(self, sample)
        return LossTerms(terms.loss * value, terms.interior) if len(calls) == 4 else terms

    monkeypatch.setattr(ConditionalLoss, "forward", poisoned)
    with pytest.raises(Diverged, match=r"loss is .* at step 4 \(48 images\): the last good checkpoint is .*step-00000002") as caught:
        run(tmp_path / "run", "training.checkpoint_every=32")
    assert caught.value.exit_code == 1
    assert all(torch.isfinite(tensor).all() for tensor in newest_tensors(tmp_path / "run").values())


def test_averages_follow_their_formula(uninterrupted: Path, tmp_path: Path) -> None:
    """Replay from checkpoints of every step: a <- d a + (1 - d) w, d = min(rate, (1 + n) / (10 + n)), from the initial weights."""
    from amgen.model.build import build_action

    folder = run(tmp_path / "run", "training.checkpoint_every=16", "training.keep_last=99")
    average = {name: tensor.clone() for name, tensor in build_action(config.load("digits", OVERRIDES)).state_dict().items()}
    for number, path in enumerate(checkpoints.all_checkpoints(folder), start=1):
        checkpoint = checkpoints.load(path)
        decay = min(0.5, (1 + number) / (10 + number))
        for name, weight in checkpoint.weights["action"].items():
            average[name] = decay * average[name] + (1 - decay) * weight
            torch.testing.assert_close(checkpoint.weights["ema-0.5"][name], average[name], rtol=1e-5, atol=1e-6)
    assert number == 6


def test_milestones_are_counted_in_images(tmp_path: Path) -> None:
    """Checkpoints every 16 of 96 images: the newest stays, and the first at or after each 32 images."""
    folder = run(tmp_path / "run", "training.checkpoint_every=16", "training.keep_last=1", "training.keep_every=32")
    assert [checkpoints.load(path).progress.images for path in checkpoints.all_checkpoints(folder)] == [32, 64, 96]


def test_learning_rate_warms_up_over_images(uninterrupted: Path) -> None:
    """64 images of warm-up in batches of 16: a quarter more each step, then 0.001."""
    assert [line["learning_rate"] for line in metrics(uninterrupted)] == pytest.approx([0.0005, 0.001, 0.001])


def test_learning_rate_falls_at_the_end(tmp_path: Path) -> None:
    """The last half of 6 steps: 3/3, 2/3 and 1/3 of 0.001; and the end can then not be moved."""
    overrides = ["training.warmup_images=0", "training.decay=0.5", "training.log_every=16"]
    folder = run(tmp_path / "run", *overrides)
    rates = [line["learning_rate"] for line in metrics(folder)]
    assert rates == pytest.approx([0.001, 0.001, 0.001, 0.001, 0.002 / 3, 0.001 / 3])
    with pytest.raises(UserError, match=r"training.images \(96 there, 192 now\)"):
        run(folder, *overrides, "training.images=192")


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    """The norm that is logged is the one before clipping, and a clip that never binds is no clip."""
    tight = metrics(run(tmp_path / "tight", "training.clip=1e-3", "training.images=16"))
    loose = metrics(run(tmp_path / "loose", "training.clip=1e9", "training.images=16"))
    none = metrics(run(tmp_path / "none", "training.clip=null", "training.images=16"))
    assert tight[0]["gradient_norm"] == loose[0]["gradient_norm"] == none[0]["gradient_norm"] > 1
    first = newest_tensors(tmp_path / "tight")["optimizer.safetensors/body.head.weight:exp_avg"]
    second = newest_tensors(tmp_path / "loose")["optimizer.safetensors/body.head.weight:exp_avg"]
    torch.testing.assert_close(first * tight[0]["gradient_norm"] / 1e-3, second, rtol=1e-3, atol=0)
    assert_same_tensors(newest_tensors(tmp_path / "loose"), newest_tensors(tmp_path / "none"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_signals_save_and_exit(number: signal.Signals, tmp_path: Path) -> None:
    """A real process under a real signal: it exits with 75, says how to go on, and the same command finishes the run.

    Ctrl-C is answered at once, too, as a step may take long. The other signals come to whole groups of processes in the tests of clusters
    and of workers.
    """
    folder = tmp_path / "run"
    command = ["train", "digits", "--run-dir", folder, *sets([*OVERRIDES, "training.images=100000", "training.sample_every=0"])]
    process = amgen_process(*command)
    while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").read_text():
        assert process.poll() is None, process.communicate()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "run the same command again to go on" in errors
    lines = errors.strip().splitlines()
    assert [", with a checkpoint" in line for line in lines[:-1]] == [True] * (number == signal.SIGINT)
    found = checkpoints.latest(folder)
    assert found is not None
    images = checkpoints.load(found).progress.images
    run(folder, f"training.images={images + 16}", "training.sample_every=0")
    assert isinstance(checkpoints.load(checkpoints.find(folder)).progress, Progress)
    assert checkpoints.load(checkpoints.find(folder)).progress.images == images + 16


def test_classes_condition_the_action(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", "action.classes=10", "training.images=32")
    assert "action.safetensors/body.classes.weight" in newest_tensors(folder)
    with pytest.raises(UserError, match="action.classes=7 but the embedded digits has 10"):
        run(tmp_path / "other", "action.classes=7")
