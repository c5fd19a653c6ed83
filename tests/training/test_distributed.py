"""Two processes over gloo against one, dropout included."""

from pathlib import Path

import pytest
import torch
from helpers import TINY, amgen_process, newest_tensors, sets

from amgen import config
from amgen.config import Config
from amgen.model.build import build_action, build_loss, build_path
from amgen.training.loop import compile_loss
from amgen.training.main import train

STEPS = 20
OVERRIDES = [
    *TINY,
    f"training.images={16 * STEPS}",
    "training.sample_every=0",
    "coupling.kind=ot",
    "coupling.group=32",
    "action.dropout=0.1",
]
"""Groups of 32 images, of which each process holds 8 at a time."""


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    """The same global batch on two processes gives the same weights to 1e-5 after 20 steps, and is reported once."""
    process = amgen_process("train", "digits", "--run-dir", tmp_path / "two", *sets(OVERRIDES), processes=2)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "batch 16 on 2 x cpu" in output
    assert output.count("trained on 320 images") == 1
    train(config.load("digits", OVERRIDES), tmp_path / "one")
    one, two = newest_tensors(tmp_path / "one"), newest_tensors(tmp_path / "two")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5)


def test_two_processes_draw_the_grid_that_one_does(tmp_path: Path) -> None:
    """Grids drawn by two processes are complete, in order, and equal to within one gray level."""
    from PIL import Image, ImageChops

    overrides = [*TINY, "training.images=16", "sampling.grid=5"]
    process = amgen_process("train", "digits", "--run-dir", tmp_path / "two", *sets(overrides), processes=2)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    train(config.load("digits", overrides), tmp_path / "one")
    file = Path("samples") / "images-000000016.png"
    with Image.open(tmp_path / "one" / file) as one, Image.open(tmp_path / "two" / file) as two:
        assert one.size == two.size
        assert max(level for band in ImageChops.difference(one, two).getextrema() for level in band) <= 1


def test_a_batch_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    overrides = [*TINY, "training.batch_size=9"]
    process = amgen_process("train", "digits", "--run-dir", tmp_path / "run", *sets(overrides), processes=2)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "amgen: training.batch_size=9 is not a multiple of the 2 processes" in errors


def test_a_compiled_loss_is_not_divided_with_the_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under DDP with more than one bucket of gradients (25 MB each; here 1 kB) it gives the gradients of the eager loss, to rounding."""
    import torch._dynamo
    from torch.nn.parallel import DistributedDataParallel

    original = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: original(self, backend="aot_eager"))  # without minutes of C++
    monkeypatch.setattr("torch.distributed._DEFAULT_FIRST_BUCKET_BYTES", 1000)
    tiny: Config = config.load("digits", [*TINY, "action.multipliers=[1]", "action.attention=[]"])
    gradients = []
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        # Not by monkeypatch, which deletes the option afterwards.
        with torch._dynamo.config.patch(optimize_ddp=True):
            for compiled in (False, True):
                action, path = build_action(tiny), build_path(tiny)
                loss = build_loss(tiny, action, path)
                if compiled:
                    compile_loss(loss)
                noise, data = torch.randn(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
                wrapped = DistributedDataParallel(loss, bucket_cap_mb=0.001)  # type: ignore[arg-type]
                wrapped(path.sample(torch.linspace(0.1, 0.9, 4), noise, data)).loss.mean().backward()
                gradients.append(torch.cat([p.grad.flatten() for p in action.parameters() if p.grad is not None]))
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)
