"""What processes tell each other, and how they part."""

from pathlib import Path

import pytest
import torch
from helpers import run_cli

from amgen.processes import Processes, leave


@pytest.fixture
def joined(tmp_path: Path) -> None:
    """A group of this process alone, as torchrun would have made."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)


def test_commands_part_from_the_others(joined: None, trained: Path, tmp_path: Path) -> None:
    """An open connection can abort an interpreter that ends."""
    outcome = run_cli("sample", trained, "--num", "1", "--grid", tmp_path / "g.png")
    assert outcome.code == 0, outcome.err
    assert not torch.distributed.is_initialized()
    leave()  # nobody is there any more, which is no mistake


def test_work_is_shared_whole() -> None:
    shares = [Processes(rank, 3).share(range(10)) for rank in range(3)]
    assert sorted(index for share in shares for index in share) == list(range(10))
