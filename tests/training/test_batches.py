"""Item n of the training stream: a function of (seed, n), whoever asks for it and with whatever others."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from helpers import TINY
from torch import Tensor

from amgen import config
from amgen.config import DataConfig
from amgen.data import open_dataset, training_stream
from amgen.model.build import build_times
from amgen.paths import OptimalTransportCoupling
from amgen.training.batches import CoupledStream, Loader, TrainingBatch, TrainingItems, parts

INDEPENDENT = ["loss.form=marginal", "loss.boundaries=independent", "action.dropout=0.1", "data.flip=true", "training.batch_size=48"]
EVERYTHING = ["dynamics.kind=entropic", "sampling.solver=euler-maruyama", "loss.probes=3", "action.classes=10", "action.label_dropout=0.5",
              "coupling.kind=ot", "coupling.group=12"]  # fmt: skip
"""Everything random, but for the numbers of conditional paths."""
PAIRS = ["noise", "data", "classes", "label", "dropout_seeds"]


def make_items(*overrides: str, dtype: torch.dtype = torch.float32) -> TrainingItems:
    options = config.load("digits", [*TINY, *INDEPENDENT, *overrides])
    return TrainingItems(options, open_dataset(options.data), build_times(options), dtype)


def tensors(part: Any) -> dict[str, Tensor]:
    """Every tensor of a batch by its name."""
    found: dict[str, Tensor] = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Tensor):
            found[field.name] = value
        elif is_dataclass(value):
            found |= {f"{field.name}.{name}": tensor for name, tensor in tensors(value).items()}
    return found


@pytest.mark.parametrize("times", ["uniform", "stratified"])
def test_items_do_not_depend_on_who_asks(times: str) -> None:
    """Parts of any size and place within a step hold the rows of the whole, in everything that is random."""
    items = make_items(*EVERYTHING, f"times.kind={times}")
    whole = tensors(items.__getitems__(range(48, 96)))
    assert set(whole) == {"t", "density", "probes", *(f"{place}.{name}" for place in ("pairs", "boundary") for name in PAIRS)}
    for part in (range(48, 53), range(53, 68), range(71, 73), range(95, 96)):
        for name, tensor in tensors(items.__getitems__(part)).items():
            assert torch.equal(tensor, whole[name][part.start - 48 : part.stop - 48]), name
    for name in ("data", "noise", "dropout_seeds"):
        assert not torch.equal(whole[f"pairs.{name}"], whole[f"boundary.{name}"])


@pytest.mark.parametrize("rule", ["antithetic", "simpson"])
def test_items_of_a_group_share_a_pair(rule: str) -> None:
    """With 3 or 4 nodes, item n has all that belongs to pair n // nodes of the stream, and a time and probes of its own."""
    nodes = {"antithetic": 4, "simpson": 3}[rule]
    quadrature = ["loss.boundaries=paired", "times.kind=quadrature", f"times.rule={rule}", f"times.nodes={nodes}"]
    items, plain = make_items(*EVERYTHING, *quadrature), make_items(*EVERYTHING, "loss.boundaries=paired")
    whole = tensors(items.__getitems__(range(48, 96)))
    shared = tensors(plain.__getitems__(range(48 // nodes, 96 // nodes)))
    for name in PAIRS:
        assert torch.equal(whole[f"pairs.{name}"], shared[f"pairs.{name}"].repeat_interleave(nodes, dim=0)), name
    for name in ("t", "probes"):
        assert len(whole[name].unique(dim=0)) > 1
    assert torch.equal(whole["probes"], tensors(plain.__getitems__(range(48, 96)))["probes"])
    for part in (range(48, 53), range(53, 68), range(71, 73), range(95, 96)):
        for name, tensor in tensors(items.__getitems__(part)).items():
            assert torch.equal(tensor, whole[name][part.start - 48 : part.stop - 48]), name


def test_numbers_of_conditional_paths_come_with_the_items() -> None:
    batch = make_items("path.kind=in-painting", "path.region=box").__getitems__(range(8))
    for pairs in (batch.pairs, batch.boundary):
        assert pairs is not None
        assert pairs.auxiliary is not None
        assert len(pairs.auxiliary) == 8
        assert (pairs.auxiliary >= 0).all()
        assert (pairs.auxiliary < 1).all()
    assert batch.probes is None


def test_everything_moves_together() -> None:
    """To the device, all of it; in the precision of the run, but for labels and seeds."""
    batch = make_items(*EVERYTHING, dtype=torch.float64).__getitems__(range(8))
    assert {tensor.device.type for tensor in tensors(batch.to(torch.device("meta"))).values()} == {"meta"}
    assert {name for name, tensor in tensors(batch).items() if tensor.dtype != torch.float64} == {
        f"{place}.{name}" for place in ("pairs", "boundary") for name in ("classes", "label", "dropout_seeds")
    }


def test_everything_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tensor once. (Without a GPU there is no page-locked memory.)"""
    pinned: list[Tensor] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: pinned.append(self) or self)  # type: ignore[func-returns-value]
    found = tensors(make_items(*EVERYTHING).__getitems__(range(8)).pin_memory())
    assert sorted(map(id, pinned)) == sorted(map(id, found.values()))


def test_adaptive_times_are_left_to_the_loop() -> None:
    batch = make_items("times.kind=adaptive", "times.bins=2").__getitems__(range(8))
    assert batch.t is None
    assert batch.density is None


def test_processes_divide_each_step() -> None:
    """Two processes in passes of 3: together every item of the steps, each its own half in order."""
    first, second = (list(parts(12, range(2, 4), rank, 6, 3)) for rank in (0, 1))
    assert first == [range(24, 27), range(27, 30), range(36, 39), range(39, 42)]
    assert second == [range(30, 33), range(33, 36), range(42, 45), range(45, 48)]


def test_a_loader_keeps_what_it_fetched() -> None:
    """Fetching twice is fetching once; an error is raised when its batch is needed; the time of each is measured."""
    items = make_items()
    waited: list[float] = []

    def made() -> Iterator[TrainingBatch]:
        yield items.__getitems__(range(4))
        yield items.__getitems__(range(4, 8))
        raise RuntimeError("no third batch")

    loader = Loader(made(), waited.append)
    loader.fetch()
    loader.fetch()
    assert loader.take().indices == range(4)
    assert loader.take().indices == range(4, 8)
    loader.fetch()
    with pytest.raises(RuntimeError, match="no third batch"):
        loader.take()
    assert len(waited) == 3
    assert min(waited) > 0
    with pytest.raises(IndexError):
        Loader(iter([])).take()


def test_pairs_do_not_depend_on_who_asks() -> None:
    """Parts of any size and place hold the rows of the whole; images stay, and the noise of each group is exchanged within it."""
    plain = training_stream(open_dataset(DataConfig()), seed=0)
    coupled = CoupledStream(plain, OptimalTransportCoupling(12), within_classes=False)
    whole, drawn = coupled.__getitems__(range(36)), plain.__getitems__(range(36))
    for part in (range(0, 5), range(5, 20), range(23, 25), range(35, 36)):
        found = coupled.__getitems__(part)
        assert found.indices == part
        for name in ("images", "noise", "labels"):
            assert torch.equal(getattr(found, name), getattr(whole, name)[part.start : part.stop])
    assert torch.equal(whole.images, drawn.images)
    for start in (0, 12, 24):
        sums = [batch.noise[start : start + 12].sum(dim=(1, 2, 3)).sort().values for batch in (whole, drawn)]
        assert torch.equal(*sums)
    assert not torch.equal(whole.noise, drawn.noise)
    closer = (whole.noise - whole.images).square().sum() < (drawn.noise - drawn.images).square().sum()
    assert closer
