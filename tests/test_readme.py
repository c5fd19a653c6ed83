"""What the README prints as Python runs as printed."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY

from amgen import config
from amgen.config import Config
from amgen.model import checkpoints

README = Path(__file__).parents[1] / "README.md"


def snippets() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_snippets_run_as_printed(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself, in a folder with the run that the quickstart leaves; the training is cut short, and the rest is as it stands."""
    from amgen.training import main

    asked: list[tuple[int, Path]] = []
    really_train = main.train

    def briefly(options: Config, run: Path, **arguments: Any) -> None:
        asked.append((options.training.images, run))
        really_train(config.load("digits", TINY), run, **arguments)

    monkeypatch.setattr(main, "train", briefly)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(trained)
    left: list[dict[str, Any]] = []
    for code in snippets():
        left.append({})
        exec(compile(code, str(README), "exec"), left[-1])
    drawn, _, parts = left
    assert (drawn["images"].shape, drawn["images"].dtype) == ((64, 1, 8, 8), torch.uint8)
    assert asked == [(20_000, Path("runs/short"))]
    assert checkpoints.latest(tmp_path / "runs" / "short") is not None
    assert parts["terms"].loss.shape == (16,)
    assert all(parameter.grad is not None for parameter in parts["loss"].parameters())
