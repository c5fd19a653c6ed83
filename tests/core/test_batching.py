"""Batches: of the size that the memory allows, halved where it does not, and the same work done whatever their size."""

import gc
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY, run_cli, start_process
from PIL import Image

from amgen import config, sampling
from amgen.actions import Action
from amgen.config import DataConfig
from amgen.core import batching
from amgen.core.batching import MOST, divide, fitting, in_batches
from amgen.core.errors import UserError
from amgen.core.processes import Processes
from amgen.data import open_dataset
from amgen.evaluation import likelihood
from amgen.evaluation.evaluator import Evaluator
from amgen.evaluation.features import make_extractor
from amgen.evaluation.features.digits import DigitFeatures
from amgen.evaluation.reference import reference_from_images
from amgen.sampling.inversion import encode_all
from amgen.sampling.trajectory import record
from amgen.training.main import train

CPU = torch.device("cpu")
MESSAGE = "CUDA out of memory. Tried to allocate 2.00 GiB."


def limited(most: int, calls: list[int] | None = None) -> Callable[[Sequence[int]], list[int]]:
    """Return work that does not fit for more than so many samples, and doubles their indices."""

    def work(batch: Sequence[int]) -> list[int]:
        if calls is not None:
            calls.append(len(batch))
        if len(batch) > most:
            raise torch.OutOfMemoryError(MESSAGE)
        return [2 * index for index in batch]

    return work


def unused(batch: Sequence[int]) -> None:
    raise AssertionError("nothing is measured for a size that is given")


@pytest.mark.parametrize(("count", "size", "processes", "sizes"), [
    (10, 4, 1, [4, 4, 2]), (9, 4, 1, [3, 3, 3]), (3, 100, 1, [3]), (3, 100, 2, [2, 1]), (23, 4, 2, [4] * 5 + [3]), (0, 4, 2, []),
])  # fmt: skip
def test_samples_are_divided_evenly(count: int, size: int, processes: int, sizes: list[int]) -> None:
    batches = divide(range(count), size, processes)
    assert [len(batch) for batch in batches] == sizes
    assert [index for batch in batches for index in batch] == list(range(count))


def test_a_batch_that_does_not_fit_is_halved_and_the_rest_is_as_small() -> None:
    """Everything is done once and in order; nothing larger is tried again; one line tells of it."""
    calls: list[int] = []
    said: list[str] = []
    found = list(in_batches(limited(3, calls), range(10, 42), 16, unused, CPU, say=said.append))
    assert [index for batch, _ in found for index in batch] == list(range(10, 42))
    assert all(done == [2 * index for index in batch] for batch, done in found)
    assert calls == [16, 8, 4, *[2] * 16]
    assert said == ["cpu ran out of memory with 16 samples at a time: going on with 2"]
    assert next(in_batches(limited(16, calls), range(32), 16, unused, CPU, say=said.append))[0] == range(16)
    assert len(said) == 1


def test_a_later_batch_may_be_the_first_that_does_not_fit() -> None:
    """What was done before it is not done again."""
    calls: list[int] = []

    def work(batch: Sequence[int]) -> None:
        calls.append(len(batch))
        if len(calls) > 1 and len(batch) > 3:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    assert [batch for batch, _ in in_batches(work, range(12), 6, unused, CPU, say=lambda line: None)] == [
        range(6),
        range(6, 9),
        range(9, 12),
    ]
    assert calls == [6, 6, 3, 3]


def test_one_sample_that_does_not_fit_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"cpu has no memory left for a single sample \(CUDA out of memory.*\): .* choose another --device"):
        list(in_batches(limited(0), range(5), 4, unused, CPU, say=lambda line: None))


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    calls = []

    def work(batch: Sequence[int]) -> None:
        calls.append(batch)
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(in_batches(work, range(4), 4, unused, CPU))
    assert len(calls) == 1


def test_failed_work_lets_go_of_its_tensors_before_it_is_done_again() -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    def work(batch: Sequence[int]) -> None:
        alive.extend(reference() is not None for reference in held)
        tensor = torch.zeros(len(batch))
        held.append(weakref.ref(tensor))
        cycle: list[object] = [tensor]
        cycle.append(cycle)  # as reference cycles of a framework would hold it
        if len(batch) > 1:
            raise torch.OutOfMemoryError(MESSAGE)

    gc.disable()
    try:
        next(in_batches(work, range(4), 4, unused, CPU, say=lambda line: None))
    finally:
        gc.enable()
    assert alive == [False] * 3


class Peers(Processes):
    """Two processes of which the other one says what this one does, or `theirs` of the numbers."""

    theirs: int | None = None

    def gather(self, values: list) -> list:  # type: ignore[type-arg]
        return values + ([self.theirs] if self.theirs is not None and isinstance(values[0], int) else values)


def test_size_follows_from_the_free_memory_and_the_measured_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """A need of 8,000 bytes and 4,000 a sample, within half of what is free, shared by those on the same device."""

    def probe(batch: Sequence[int]) -> None:
        constant, batches = torch.zeros(2000), torch.zeros(len(batch), 1000)
        del constant, batches

    def free(amount: int) -> None:
        monkeypatch.setattr(batching, "free_bytes", lambda device: amount)

    free(2 * (8_000 + 4_000 * 50))
    assert fitting(probe, range(1000), CPU) == 50
    free(2 * (8_000 + 4_000 * 51) - 2)
    assert fitting(probe, range(1000), CPU) == 50
    assert fitting(probe, range(1000), CPU, Peers(0, 2)) == 24  # half of 212,000 bytes, less 8,000, is 24.5 samples
    peers = Peers(0, 2)
    object.__setattr__(peers, "theirs", 7)
    assert fitting(probe, range(1000), CPU, peers) == 7
    free(2**50)
    assert fitting(probe, range(1000), CPU) == MOST
    monkeypatch.setattr(batching, "USEFUL_PER_THREAD", (8_000 + 4_000 * 30) / torch.get_num_threads())
    assert fitting(probe, range(1000), CPU) == 30
    free(100)
    assert fitting(probe, range(1000), CPU) == 1
    assert fitting(limited(1), range(1000), CPU) == 1


def test_auto_measures_the_model(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half as much free memory, half as many images; and the images stay the same."""
    model = sampling.load(trained)
    request = sampling.Request(seed=3)
    sizes = []
    for amount in (2**19, 2**20, 2**21):
        monkeypatch.setattr(batching, "free_bytes", lambda device, amount=amount: amount)
        found = list(sampling.generate_all(model, model.config.sampling, range(60), request))
        sizes.append(len(found[0].indices))
        if amount == 2**19:
            first = torch.cat([samples.images for samples in found]).int()
    assert (torch.cat([samples.images for samples in found]).int() - first).abs().max() <= 1
    assert model.config.sampling.batch_size == "auto"
    assert 1 < sizes[0] < sizes[1] < sizes[2]
    assert sizes[2] == pytest.approx(4 * sizes[0], rel=0.35)  # batches are of equal size, so that one may be smaller than what fits


def test_a_batch_far_larger_than_usual_is_measured_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a CPU's memory ends, the system ends the process, without an error. 4,000 bytes a sample, within half of what is free."""

    def probe(batch: Sequence[int]) -> None:
        torch.zeros(len(batch), 1000)

    said: list[str] = []
    monkeypatch.setattr(batching, "free_bytes", lambda device: 2 * 4_000 * 6_000)
    found = [len(batch) for batch, _ in in_batches(list, range(20_000), 10_000_000, probe, CPU, say=said.append)]
    assert found == [5_000] * 4
    assert said == ["20,000 samples at a time do not fit the memory of cpu: taking 6,000"]
    monkeypatch.setattr(batching, "free_bytes", lambda device: 2**50)
    assert [len(batch) for batch, _ in in_batches(list, range(20_000), 10_000_000, probe, CPU, say=said.append)] == [20_000]
    assert len(said) == 1


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Memory for three samples at a time, but for training."""
    forward = Action.forward

    def checked(self: Action, t: torch.Tensor, x: torch.Tensor, *rest: object) -> torch.Tensor:
        if len(x) > 3 and not self.training:
            raise torch.OutOfMemoryError(MESSAGE)
        return forward(self, t, x, *rest)

    monkeypatch.setattr(Action, "forward", checked)
    yield
    # Sampling that never met the limit would prove nothing.
    with pytest.raises(torch.OutOfMemoryError):
        checked(Action(torch.nn.Identity()).eval(), torch.zeros(4), torch.zeros(4, 1))


LINE = "cpu ran out of memory with 8 samples at a time: going on with 2"


def test_images_come_out_where_memory_is_scarce(scarce: None, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sampling to files, from Python and with its way recorded; encoding; one line each."""
    model = sampling.load(trained)
    options = model.options({"batch_size": 8})
    images = model.sample(8, batch_size=8)
    expected = model.sample(8, batch_size=1)
    assert (images.int() - expected.int()).abs().max() <= 1
    trajectory = record(model, options, range(8), sampling.Request())
    assert (trajectory.frames[-1].int() - expected.int()).abs().max() <= 1
    assert trajectory.speeds.shape == (len(trajectory.times), 8)
    ode = model.options({"batch_size": 8, "solver": "heun"})
    encoded = list(encode_all(model, ode, open_dataset(model.config.images), range(8), sampling.Request()))
    assert torch.cat([batch.noise for batch in encoded]).shape == (8, 1, 8, 8)
    assert capsys.readouterr().out.splitlines() == [LINE] * 3
    for form, count in (("png", 8), ("npz", 4)):
        outcome = run_cli("sample", trained, "-n", "8", "--batch-size", "8", "--out", tmp_path / form, "--format", form)
        assert outcome.code == 0, outcome.err
        assert outcome.out.count(LINE) == 1
        assert len(list((tmp_path / form).glob(f"*.{form}"))) == count
    for index in range(8):
        with Image.open(tmp_path / "png" / f"{index:06d}.png") as image:
            assert np.abs(np.asarray(image).astype(int) - expected[index, 0].numpy()).max() <= 1


def test_figures_come_out_where_memory_is_scarce(scarce: None, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scores and likelihoods are those of batches that fit."""
    model = sampling.load(trained)
    extractor = make_extractor("digits", 1, 8)
    score = Evaluator(extractor, reference_from_images(open_dataset(DataConfig()), extractor, Processes(), cache=False))
    likely = [likelihood.evaluate(model, likelihood.ode_options(model, {"solver": "heun", "batch_size": size}), 8) for size in (8, 2)]
    scores = [score(model, model.options({"batch_size": size}), 8) for size in (8, 2)]
    for large, small in (likely, scores):
        assert large.principal.value == pytest.approx(small.principal.value, rel=1e-5)
    assert [line for line in capsys.readouterr().out.splitlines() if "memory" in line] == [LINE] * 2


def test_features_that_take_memory_make_batches_small(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of 32 MB of free memory holds two images of which each takes 6 MB in the extractor, and hundreds of the model alone."""
    sizes: list[int] = []

    class Hungry(DigitFeatures):
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            sizes.append(len(images))
            torch.zeros(len(images), 6 * 2**18)
            return super().__call__(images)

    extractor = Hungry(None, CPU)
    reference = reference_from_images(open_dataset(DataConfig()), extractor, Processes(), cache=False)
    monkeypatch.setattr(batching, "free_bytes", lambda device: 32 * 2**20)
    model = sampling.load(trained)
    sizes.clear()
    Evaluator(extractor, reference)(model, model.options({"batch_size": "auto"}), 8)
    assert sizes == [1, 2, 2, 2, 2, 2]  # two to measure, then all


def test_training_draws_its_grid_where_memory_is_scarce(scarce: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The grid is the one that is drawn with room."""
    for size in ("8", "1"):
        train(config.load("digits", [*TINY, "training.images=16", "sampling.grid=8", f"sampling.batch_size={size}"]), tmp_path / size)
    assert capsys.readouterr().out.count(LINE) == 1
    grids = []
    for size in ("8", "1"):
        with Image.open(tmp_path / size / "samples" / "images-000000016.png") as image:
            grids.append(np.asarray(image).astype(int))
    assert np.abs(grids[0] - grids[1]).max() <= 1


SCARCE_ON_ONE = """
import os, sys
import torch
from amgen.actions import Action
from amgen_cli.app import run

forward = Action.forward

def checked(self, t, x, *rest):
    if len(x) > 3 and os.environ["RANK"] == "1":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return forward(self, t, x, *rest)

Action.forward = checked
sys.exit(run(sys.argv[1:]))
"""


def test_one_of_two_processes_runs_out_of_memory(trained: Path, tmp_path: Path) -> None:
    """Of the 12 images that fall to each, one process takes three at a time, the other one all; every image is there once."""
    (tmp_path / "scarce.py").write_text(SCARCE_ON_ONE)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(tmp_path / "scarce.py")]
    command = ["sample", str(trained), "-n", "24", "--batch-size", "auto", "--format", "npz", "--out", str(tmp_path / "out")]
    process = start_process([sys.executable, *launcher, *command, "--grid", str(tmp_path / "g.png")])
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.count("cpu ran out of memory with 12 samples at a time: going on with 3") == 1
    shards = [np.load(file)["indices"].tolist() for file in sorted((tmp_path / "out").glob("*.npz"))]
    assert sorted(index for shard in shards for index in shard) == list(range(24))
    assert sorted(map(len, shards)) == [3, 3, 3, 3, 12]
    assert (tmp_path / "g.png").is_file()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError(), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    """A batch that fails for it is halved, with or without a message; others are passed on."""

    def work(batch: Sequence[int]) -> int:
        if len(batch) > 2:
            raise error
        return len(batch)

    if not expected:
        with pytest.raises(RuntimeError, match=str(error)[:20]):
            list(in_batches(work, range(4), 4, unused, CPU, say=lambda line: None))
        return
    assert [done for _, done in in_batches(work, range(4), 4, unused, CPU, say=lambda line: None)] == [2, 2]
