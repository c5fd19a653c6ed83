"""The experiments' scripts end to end on runs of a second; their figures and reports are whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from amgen import config
from amgen.data.tables import read_table
from amgen.training.main import train

SCRIPTS = Path(__file__).parents[2] / "scripts"
TINY = [
    "action.width=8",
    "action.depth=1",
    "training.images=64",
    "training.batch_size=32",
    "training.warmup_images=32",
    "training.decay=0",
    "training.log_every=32",
    "training.sample_every=0",
    "data.particles=60",
    "data.snapshots=4",
]


def run_script(name: str, *arguments: str | Path) -> str:
    command = [sys.executable, str(SCRIPTS / name), *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    return found.stdout


def assert_written(folder: Path) -> dict[str, object]:
    with Image.open(folder / "figure.png") as picture:
        assert picture.width > 300
    report: dict[str, object] = json.loads((folder / "report.json").read_text())
    return report


@pytest.mark.parametrize(
    ("preset", "script", "more"),
    [
        ("hydrogen", "hydrogen.py", ["--num", "40", "--times", "2", "--steps", "1", "--score-samples", "200"]),
        ("mixture-unbalanced", "unbalanced.py", ["--num", "40"]),
        ("ornstein-uhlenbeck", "entropic.py", ["--num", "40", "--steps", "1"]),
    ],
)
def test_scripts(preset: str, script: str, more: list[str], tmp_path: Path) -> None:
    train(config.load(preset, TINY), tmp_path / "run")
    out = run_script(script, tmp_path / "run", *more, "--json", tmp_path / "report.json", "--figure", tmp_path / "figure.png")
    assert f"wrote {tmp_path / 'figure.png'}" in out
    assert assert_written(tmp_path)


def test_cells(amgen_data: Path, tmp_path: Path) -> None:
    """The table of cells: 3,133 rows of ten columns at four times; one seed of every model, trained for two steps."""
    table = read_table(config.SnapshotsConfig(path=str(amgen_data / "emt.csv"), time_column="samples", dimension=10))
    assert list(table.times) == [0, 1, 2, 3]
    assert sum(map(len, table.points)) == 3133
    small = ["action.width=8", "action.depth=1", "training.batch_size=128", "coupling.group=128", "training.warmup_images=0"]
    overrides = [part for override in small for part in ("--set", override)]
    out = run_script(
        "cells.py", "--data", amgen_data / "emt.csv", "--seeds", "1", "--images", "256", "--runs", tmp_path / "runs", *overrides,
        "--json", tmp_path / "report.json", "--figure", tmp_path / "figure.png",
    )  # fmt: skip
    assert "not moved              W1 0.3732" in out
    assert assert_written(tmp_path)
