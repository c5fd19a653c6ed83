"""The command line from outside: what it prints, what it writes, and one clear line for every mistake."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY, run_cli, sets
from PIL import Image
from safetensors.torch import load_file, save_file

from amgen import config
from amgen.model import checkpoints


def test_help_is_quick_and_loads_no_torch() -> None:
    """`amgen --help` imports nothing heavy; that, not a stop-watch, is what keeps it under a second."""
    code = "import sys; from amgen_cli.app import run; run(['--help']); sys.exit('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0
    for command in ("train", "sample", "eval-fid", "export"):
        assert command in found.stdout


@pytest.mark.parametrize("command", ["train", "sample", "eval-fid", "export"])
def test_each_command_has_help(command: str) -> None:
    outcome = run_cli(command, "--help")
    assert outcome.code == 0
    assert "--debug" in outcome.out


def test_version() -> None:
    from amgen import __version__

    assert run_cli("--version").out.strip() == __version__


def test_python_dash_m_is_the_same_command() -> None:
    found = subprocess.run([sys.executable, "-m", "amgen", "--version"], capture_output=True, text=True, timeout=60)
    assert found.stdout == run_cli("--version").out


def test_dry_run_describes_and_writes_nothing(tmp_path: Path) -> None:
    outcome = run_cli("train", "cifar10", "--dry-run", "--run-dir", tmp_path / "run", "--set", "training.images=1000")
    assert outcome.code == 0
    assert "# 36,989,955 parameters" in outcome.out
    assert "# 8 steps of 128 images" in outcome.out
    described = tmp_path / "described.yaml"
    described.write_text(outcome.out)
    assert config.load(str(described)) == config.load("cifar10", ["training.images=1000"])
    assert not (tmp_path / "run").exists()


def test_train_sample_and_score(tmp_path: Path) -> None:
    """The main job, end to end."""
    run = tmp_path / "run"
    trained = run_cli("train", "digits", "--run-dir", run, *sets(TINY))
    assert trained.code == 0, trained.err
    assert "trained on 96 images" in trained.out

    grid, out = tmp_path / "grid.png", tmp_path / "out"
    sampled = run_cli("sample", run, "--num", "5", "--solver", "rk4", "--steps", "3", "--out", out, "--grid", grid)
    assert sampled.code == 0, sampled.err
    assert "NFE 12" in sampled.out
    assert "images/s" in sampled.out
    assert sorted(file.name for file in out.glob("*.png")) == [f"{index:06d}.png" for index in range(5)]
    with Image.open(out / "000003.png") as picture, Image.open(grid) as tiles:
        assert (picture.mode, picture.size) == ("L", (8, 8))
        assert tiles.size[0] > 8
        pixels = np.asarray(picture)

    archive = run_cli("sample", run, "--num", "5", "--solver", "rk4", "--steps", "3", "--out", tmp_path / "npz", "--format", "npz")
    assert archive.code == 0, archive.err
    with np.load(tmp_path / "npz" / "images-000000-000004.npz") as stored:
        arrays = dict(stored)
    assert arrays["images"].shape == (5, 8, 8, 1)
    assert np.array_equal(arrays["images"][3, ..., 0], pixels)

    report = tmp_path / "report.json"
    scored = run_cli("eval-fid", run, "--features", "digits", "--num", "20", "--json", report)
    assert scored.code == 0, scored.err
    assert "FD (digits features)" in scored.out
    assert "times the floor" in scored.out
    assert json.loads(report.read_text())["generated"] == 20
    assert run_cli("eval-fid", run, "--features", "pixels", "--num", "20").code == 0
    assert len(list((run / "eval").glob("pixels-000000096-*.json"))) == 1


def test_other_settings_do_not_mix_in_a_folder(trained: Path, tmp_path: Path) -> None:
    assert run_cli("sample", trained, "--num", "2", "--out", tmp_path).code == 0
    assert run_cli("sample", trained, "--num", "3", "--out", tmp_path).code == 0
    outcome = run_cli("sample", trained, "--num", "2", "--out", tmp_path, "--seed", "1")
    assert outcome.code == 2
    assert "holds images made with seed=0, not 1: choose another --out" in outcome.err


def gray_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(4):
        Image.new("L", (8, 8), 50 * index).save(folder / f"{index}.png")
    return folder


def truncated(tmp_path: Path) -> list[str | Path]:
    folder = gray_folder(tmp_path)
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:40])
    return ["train", "digits", "--run-dir", tmp_path / "run", "--set", f"data.path={folder}"]


def other_size(tmp_path: Path) -> list[str | Path]:
    folder = gray_folder(tmp_path)
    Image.new("L", (9, 8)).save(folder / "3.png")
    return ["train", "digits", "--run-dir", tmp_path / "run", "--set", f"data.path={folder}"]


def other_mode(tmp_path: Path) -> list[str | Path]:
    return ["train", "digits", "--run-dir", tmp_path / "run", "--set", f"data.path={gray_folder(tmp_path)}", "--set", "data.channels=3"]


def empty_data(tmp_path: Path) -> list[str | Path]:
    (tmp_path / "empty").mkdir()
    return ["train", "digits", "--run-dir", tmp_path / "run", "--set", f"data.path={tmp_path / 'empty'}"]


def missing_data(tmp_path: Path) -> list[str | Path]:
    return ["train", "digits", "--run-dir", tmp_path / "run", "--set", f"data.path={tmp_path / 'nowhere'}"]


def unwritable(tmp_path: Path) -> list[str | Path]:
    """A place that not even root can write to, or else one that this user cannot."""
    place = tmp_path / "locked"
    place.mkdir(mode=0o555)
    if os.geteuid() == 0:
        place = Path("/sys")
    return ["train", "digits", "--run-dir", place / "run", *sets(TINY)]


def below_a_file(tmp_path: Path) -> list[str | Path]:
    (tmp_path / "file").write_text("")
    return ["train", "digits", "--run-dir", tmp_path / "file" / "run", *sets(TINY)]


def damaged_checkpoint(trained: Path, tmp_path: Path) -> list[str | Path]:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    file = checkpoints.find(run) / f"{checkpoints.ema_name(config.load(str(run / 'config.yaml')).training.ema[0])}.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return ["sample", run]


def foreign_checkpoint(trained: Path, tmp_path: Path) -> list[str | Path]:
    """A weights file that names one architecture and holds another, with a manifest to match."""
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    folder = checkpoints.find(run)
    file = folder / f"{checkpoints.ema_name(config.load(str(run / 'config.yaml')).training.ema[0])}.safetensors"
    wide = config.load("digits", [*TINY, "action.width=12"])
    metadata = {"amgen": json.dumps({"format": 1, "config": wide.model_dump(mode="json"), "step": 6, "images": 96})}
    for path in (file, folder / "action.safetensors"):
        save_file(load_file(path), path, metadata)
    manifest = {path.name: checkpoints.sha256(path) for path in folder.iterdir() if path.name != "manifest.json"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return ["sample", run]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train", "digit"], "unknown preset 'digit' (did you mean 'digits'?)"),
        (["train", "--set", "training.imges=1"], "unknown option 'training.imges' (did you mean 'images'?)"),
        (["train", "--set", "training.images=many"], "training.images='many': expected an integer"),
        (["train", "--set", "training.images=-5"], "training.images=-5: expected a number greater than 0"),
        (["train", "--set", "training.batch_size=10", "--set", "training.micro_batch=4"], "batch_size=10 is not a multiple of"),
        (["train", "--set", "sampling.solver=rk5"], "unknown solver 'rk5'"),
        (["train", "--set", "training.micro_batch=0"], "training.micro_batch=0: expected a number greater than 0"),
        (["train", "--nonsense"], "--nonsense"),
        (["sample"], "Missing argument"),
        (["sample", "nowhere"], "nowhere does not exist: give the folder of a run"),
        (["sample", "nowhere", "--num", "0"], "--num 0: expected at least 1"),
        (["sample", "nowhere", "--num", "few"], "'--num'"),
        (
            ["sample", "nowhere", "--solver", "eular"],
            "unknown solver 'eular' (did you mean 'euler'?): choose one of ab2, ab3, adaptive-heun",
        ),
        (["sample", "nowhere", "--steps", "0"], "steps=0: expected a number greater than 0"),
        (["sample", "nowhere", "--tolerance", "0"], "tolerance=0.0: expected a number of at least 1e-07"),
        *(
            ([command, "nowhere", "--batch-size", size], f"batch_size={value}: expected auto or a positive integer")
            for command in ("sample", "encode", "eval-fid", "eval-bpd")
            for size, value in (("0", "0"), ("many", "'many'"), ("-3", "'-3'"))
        ),
        (["eval-fid", "nowhere", "--num", "0"], "--num 0: expected at least 1"),
        (missing_data, "does not exist: give a folder or .zip of images"),
        (empty_data, "holds no images"),
        (truncated, "images/2.png"),
        (other_size, "images/3.png is 9x8 pixels, expected 8x8"),
        (other_mode, "is gray but data.channels=3 asks for RGB"),
        (below_a_file, "cannot create the folder"),
        (unwritable, "cannot create the folder"),
    ],
)
def test_mistakes_cost_one_line(command: list[str] | Callable[[Path], list[str]], message: str, tmp_path: Path) -> None:
    outcome = run_cli(*(command if isinstance(command, list) else command(tmp_path)))
    assert_one_line(outcome.code, outcome.err, message)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (damaged_checkpoint, "is damaged (its SHA-256 differs from the manifest's)"),
        (foreign_checkpoint, "is of another architecture than its configuration describes"),
        (lambda run, _: ["sample", run, "--ema", "0.123"], "has no averaged weights of rate 0.123"),
        (lambda run, _: ["sample", run, "--format", "gif"], "unknown format 'gif': choose one of npz, png"),
        (lambda run, _: ["sample", run, "--grid", "grid.txt"], "expected a file name that ends in .png"),
        (lambda run, _: ["sample", run, "--device", "abacus"], "device='abacus' cannot be used here"),
        (lambda run, _: ["sample", run, "--label", "3"], "trained without classes"),
        (lambda run, _: ["eval-fid", run, "--features", "digit"], "unknown features 'digit' (did you mean 'digits'?)"),
        (lambda run, folder: ["eval-fid", run, "--weights", folder / "none.pth"], "none.pth, which does not exist: download https://"),
        (lambda run, _: ["train", "digits", "--run-dir", run, *sets([*TINY, "seed=9"])], "seed (0 there, 9 now)"),
    ],
)
def test_mistakes_with_a_run(command: Callable[[Path, Path], list[str]], message: str, trained: Path, tmp_path: Path) -> None:
    outcome = run_cli(*command(trained, tmp_path))
    assert_one_line(outcome.code, outcome.err, message)


def assert_one_line(code: int, error: str, message: str) -> None:
    assert code == 2, error
    assert message in error
    assert error.startswith("amgen: ")
    assert error.count("\n") == 1


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from amgen.core.errors import UserError

    monkeypatch.setenv("AMGEN_DEBUG", "")  # restored afterwards, since the option sets it
    with pytest.raises(UserError):
        run_cli("sample", "nowhere", "--debug")


def test_several_processes_are_refused_where_work_is_not_divided(monkeypatch: pytest.MonkeyPatch, trained: Path) -> None:
    for variable, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(variable, value)
    outcome = run_cli("encode", trained)
    assert_one_line(outcome.code, outcome.err, "amgen encode runs in one process")


def test_trains_on_real_photographs(amgen_data: Path, tmp_path: Path) -> None:
    """The cifar10-small preset on a zip of JPEGs, cut to two steps."""
    small = ["training.images=16", "training.batch_size=8", "action.width=8", "sampling.grid=2", "sampling.steps=1"]
    path = f"data.path={amgen_data / 'cifar10-test.zip'}"
    outcome = run_cli("train", "cifar10-small", "--run-dir", tmp_path / "run", *sets([path, *small]))
    assert outcome.code == 0, outcome.err
    assert run_cli("sample", tmp_path / "run", "--num", "2", "--grid", tmp_path / "g.png").code == 0
    with Image.open(tmp_path / "g.png") as tiles:
        assert tiles.mode == "RGB"


def test_dry_run_is_quick() -> None:
    """Generous against noise: it takes about 3 seconds here and must stay a matter of seconds, not of data or training."""
    start = time.perf_counter()
    assert subprocess.run([sys.executable, "-m", "amgen", "train", "--dry-run"], capture_output=True, timeout=60).returncode == 0
    assert time.perf_counter() - start < 30
