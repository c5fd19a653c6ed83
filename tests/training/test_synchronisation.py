"""The loop reads nothing from the device between synchronisations, fetches ahead, and never saves what it has not checked."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from helpers import TINY, assert_same_tensors, newest_tensors
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from amgen import config
from amgen.core.errors import Diverged, Interrupted, UserError
from amgen.data.stream import ImageStream
from amgen.losses import ConditionalLoss, LossTerms
from amgen.model import checkpoints
from amgen.paths import PathSample
from amgen.training.batches import TrainingItems
from amgen.training.loop import Trainer
from amgen.training.main import train
from amgen.training.measurements import StepMetrics
from amgen.training.periodic import Periodic, due_after

QUIET = [*TINY, "training.sample_every=0", "training.log_every=96", "training.checkpoint_every=96", "training.sync_every=4"]
"""Six steps of 16 images, of which the fourth and the last synchronise."""
POINTS = ["data.particles=50", "data.snapshots=4", "action.width=8", "action.depth=1", "training.images=96", "training.batch_size=16",
          "training.warmup_images=64", "training.decay=0", *QUIET[-4:]]  # fmt: skip
WAITING = {
    torch.ops.aten._local_scalar_dense.default,  # item, float(), int(), bool()
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
    torch.ops.aten._unique2.default,
}
"""Operations that wait for a GPU, as their result decides what the CPU does."""


class Reads(TorchDispatchMode):
    """Counts what would wait for a GPU while `counting`; tolist, which is no operation of torch, by `watch`."""

    def __init__(self) -> None:
        super().__init__()
        self.counting = False
        self.found: list[str] = []

    def note(self, name: str) -> None:
        if self.counting:
            self.found.append(name)

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        masked = operation is torch.ops.aten.index.Tensor and any(part is not None and part.dtype == torch.bool for part in arguments[1])
        if operation in WAITING or masked:
            self.note(str(operation))
        return operation(*arguments, **(options or {}))

    @contextmanager
    def paused(self, counting: bool = False) -> Iterator[None]:
        before, self.counting = self.counting, counting
        try:
            yield
        finally:
            self.counting = before


def watch(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count from the beginning of each step to the next synchronisation, but not while batches are made, which are on the CPU."""
    tolist, step, synchronise, make = Tensor.tolist, Trainer._step, Trainer._synchronise, TrainingItems.__getitems__

    def watched_tolist(self: Tensor) -> Any:
        reads.note("tolist")
        return tolist(self)

    def watched_step(self: Trainer, *arguments: Any, **options: Any) -> None:
        reads.counting = True
        step(self, *arguments, **options)

    def watched_synchronise(self: Trainer, *arguments: Any) -> Any:
        reads.counting = False
        return synchronise(self, *arguments)

    def watched_make(self: TrainingItems, indices: Any) -> Any:
        with reads.paused():
            return make(self, indices)

    monkeypatch.setattr(Tensor, "tolist", watched_tolist)
    monkeypatch.setattr(Trainer, "_step", watched_step)
    monkeypatch.setattr(Trainer, "_synchronise", watched_synchronise)
    monkeypatch.setattr(TrainingItems, "__getitems__", watched_make)


ENTROPIC = ["dynamics.kind=entropic", "sampling.solver=euler-maruyama"]
MASSES = ["dynamics.kind=unbalanced", "data.masses.end=[10,9,8,7,6,5,4,3,2,1]"]


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [
        ("digits", [*QUIET, "action.dropout=0.1", "coupling.kind=ot", "coupling.group=24", "training.micro_batch=8"]),
        ("digits", [*QUIET, *ENTROPIC, "loss.form=marginal", "loss.probes=2", "action.classes=10", "action.label_dropout=0.5"]),
        ("digits", [*QUIET, *MASSES, "loss.form=marginal", "loss.boundaries=independent", "path.kind=trigonometric"]),
        ("digits", [*QUIET, "path.kind=in-painting", "path.region=box", "training.optimizer=adamw", "training.clip=null"]),
        ("mixture-unbalanced", POINTS),
    ],
)
def test_nothing_is_read_between_synchronisations(
    preset: str, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads()
    watch(reads, monkeypatch)
    with reads:
        train(config.load(preset, overrides), tmp_path / "run")
    assert reads.found == []
    with reads, reads.paused(counting=True):  # what is counted is found
        value = torch.ones(2)
        assert float(value[0]) == value[1].item() == value.tolist()[0]
        assert value[value > 0].shape == (2,)
    assert len(reads.found) == 4


def test_adaptive_times_read_the_losses_of_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one exception: what they learned from a step is known when the next one begins, wherever metrics are read."""
    options = ["times.kind=adaptive", "times.bins=2", "times.memory=0.9"]
    for every in (1, 4):
        train(config.load("digits", [*QUIET, *options, f"training.sync_every={every}"]), tmp_path / str(every))
    assert_same_tensors(newest_tensors(tmp_path / "1"), newest_tensors(tmp_path / "4"))


def test_reading_seldom_changes_nothing(tmp_path: Path) -> None:
    """Weights and metrics.jsonl are the same bit for bit."""
    for every in (1, 4, 1000):
        options = [*QUIET, "training.log_every=48", "training.micro_batch=8", f"training.sync_every={every}"]
        train(config.load("digits", options), tmp_path / str(every))
        assert_same_tensors(newest_tensors(tmp_path / str(every)), newest_tensors(tmp_path / "1"))
        assert (tmp_path / str(every) / "metrics.jsonl").read_bytes() == (tmp_path / "1" / "metrics.jsonl").read_bytes()


def test_synchronisations_come_when_they_are_due() -> None:
    """Every 4 steps, and with log lines (every 48 images, step 3), checkpoints (80, step 5), grids (112, step 7) and the end."""
    options = config.load("digits", [*QUIET, "training.log_every=48", "training.checkpoint_every=80", "training.sample_every=112"])
    due = {step: due_after(options, step, 11) for step in range(1, 12)}
    assert [step for step in due if due[step].synchronisation] == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert [step for step in due if due[step].line] == [3, 6, 9, 11]
    assert [step for step in due if due[step].checkpoint] == [5, 10, 11]
    assert [step for step in due if due[step].grid] == [7, 11]
    assert not any(entry.evaluation for entry in due.values())


# The next batch


def test_the_next_batch_is_made_before_numbers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a GPU still works on the step."""
    events: list[str] = []
    make, read = TrainingItems.__getitems__, StepMetrics.read
    monkeypatch.setattr(TrainingItems, "__getitems__", lambda self, part: events.append(f"make {part[0]}") or make(self, part))  # type: ignore[func-returns-value]
    monkeypatch.setattr(StepMetrics, "read", lambda self, *rest: events.append("read") or read(self, *rest))  # type: ignore[func-returns-value]
    train(config.load("digits", [*QUIET, "training.images=48", "training.sync_every=1"]), tmp_path / "run")
    assert events == ["make 0", "make 16", "read", "make 32", "read", "read"]
    events.clear()
    train(config.load("digits", [*QUIET, "training.sync_every=2"]), tmp_path / "run")
    assert events == ["make 48", "make 64", "read", "make 80", "read"]


def test_a_batch_that_fails_ahead_of_its_step_costs_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Image 48 cannot be read: the checkpoint after the 48 images before it is written."""
    original = ImageStream.__getitems__

    def broken(self: ImageStream, indices: Any) -> Any:
        if 48 in indices:
            raise UserError("cannot read the image cat.png: replace or remove it")
        return original(self, indices)

    monkeypatch.setattr(ImageStream, "__getitems__", broken)
    with pytest.raises(UserError, match=r"cat\.png"):
        train(config.load("digits", [*QUIET, "training.checkpoint_every=48"]), tmp_path / "run")
    assert checkpoints.load(checkpoints.find(tmp_path / "run")).progress.images == 48


# Numbers that are not finite

OCCASIONS = [
    "training.checkpoint_every=48",
    "training.sample_every=48",
    "training.log_every=48",
    "evaluation.every=48",
    "training.sync_every=3",
    "signal",
]
"""Why step 3 synchronises."""


def poison(step: int, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loss or the gradient of a step, counted from 1, be NaN."""
    forward, backward, calls = ConditionalLoss.forward, Accelerator.backward, [0]

    def poisoned(self: ConditionalLoss, sample: PathSample) -> LossTerms:
        calls[0] += 1
        terms = forward(self, sample)
        return LossTerms(terms.loss * float("nan"), terms.interior, terms.terms) if where == "loss" and calls[0] == step else terms

    def after(self: Accelerator, loss: Tensor, **options: Any) -> None:
        backward(self, loss, **options)
        if where == "gradient" and calls[0] == step:
            next(p.grad for p in trainers[0].action.parameters() if p.grad is not None).fill_(float("nan"))

    trainers: list[Trainer] = []
    initialise = Trainer.__init__
    monkeypatch.setattr(Trainer, "__init__", lambda self, *rest: trainers.append(self) or initialise(self, *rest))  # type: ignore[func-returns-value]
    monkeypatch.setattr(ConditionalLoss, "forward", poisoned)
    monkeypatch.setattr(Accelerator, "backward", after)


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("occasion", OCCASIONS)
def test_a_step_that_is_not_finite_is_never_saved(where: str, occasion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN in step 2 is found after step 3, before whatever is due then; the first checkpoint, after step 1, stays the last one."""
    shown: list[str] = []
    for name in ("_sample_grid", "_evaluate"):
        monkeypatch.setattr(Periodic, name, lambda self, *_, name=name: shown.append(name))
    options = [*QUIET, "evaluation.features=pixels", "evaluation.num=8", "data.size=8"]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        stop_in_step(1, patch)
        train(config.load("digits", options), tmp_path / "run")
    before = newest_tensors(tmp_path / "run")
    poison(1, where, monkeypatch)  # the first step from here on, step 2 of the run
    if occasion == "signal":
        stop_in_step(3, monkeypatch)
    else:
        options.append(occasion)
    name = {"loss": "loss", "gradient": "gradient_norm"}[where]
    with pytest.raises(Diverged, match=rf"{name} is nan at step 2 \(16 images\): the last good checkpoint is .*step-00000001; "):
        train(config.load("digits", options), tmp_path / "run")
    assert [folder.name for folder in checkpoints.folder_of(tmp_path / "run").iterdir()] == ["step-00000001"]
    assert_same_tensors(newest_tensors(tmp_path / "run"), before)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == ""
    assert shown == []


def stop_in_step(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SIGTERM to this process during a step, counted from 1."""
    original = Trainer._step

    def stop(self: Trainer, *arguments: Any, **options: Any) -> None:
        if self.state.progress.step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "_step", stop)


def test_one_process_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal in step 2 ends the run after it, although nothing is read before step 4."""
    stop_in_step(2, monkeypatch)
    with pytest.raises(Interrupted, match="stopped after 32 of 96 images"):
        train(config.load("digits", QUIET), tmp_path / "run")
    assert checkpoints.load(checkpoints.find(tmp_path / "run")).progress.images == 32
