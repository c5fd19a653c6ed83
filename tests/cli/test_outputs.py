"""What commands that sample refuse before they work, and what a disk that is full leaves behind."""

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import Outcome, run_cli
from PIL import Image

from amgen import sampling
from amgen.core import checks

DIGITS = "9" * 5000
"""More digits than Python turns into a number."""


def assert_refused(outcome: Outcome, message: str) -> None:
    assert outcome.code == 2, outcome.err
    assert message in outcome.err
    assert outcome.err.startswith("amgen: ")
    assert outcome.err.count("\n") == 1
    assert "Traceback" not in outcome.err


def below_a_file(folder: Path, name: str) -> Path:
    (folder / "file").write_text("")
    return folder / "file" / name


def a_folder(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


@pytest.mark.parametrize(
    ("command", "option", "name"),
    [
        *(
            ("sample", option, name)
            for option, name in (("--grid", "g.png"), ("--strip", "s.png"), ("--gif", "a.gif"), ("--plot", "p.pdf"))
        ),
        ("encode", "--out", "noise.npz"),
        ("export", "--out", "m.safetensors"),
    ],
)
def test_outputs_are_checked_before_the_model_is_loaded(
    command: str, option: str, name: str, tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(sampling, "load", never)
    monkeypatch.setattr("amgen.model.export.read_weights", never)
    for place, message in ((below_a_file, "cannot create the folder"), (a_folder, "is a folder: give the name of a file")):
        file = place(tmp_path, name)
        assert_refused(run_cli(command, trained, option, file), message)
        assert str(file) in run_cli(command, trained, option, file).err


def test_a_folder_that_cannot_be_made_is_refused_first(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "load", None)
    assert_refused(run_cli("sample", trained, "--out", below_a_file(tmp_path, "out")), "cannot create the folder")
    assert_refused(run_cli("sample", tmp_path / "nowhere", "--out", tmp_path / "out"), "nowhere does not exist")
    assert not (tmp_path / "out").exists()


def test_a_plot_without_matplotlib_is_refused_first(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "load", None)
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    outcome = run_cli("sample", trained, "--plot", tmp_path / "p.png")
    assert_refused(outcome, "--plot needs matplotlib: pip install 'amgen[plots]'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "--seed", "-1"], "--seed"),
        (["sample", "--seed", str(2**63)], "--seed"),
        (["encode", "--seed", "-1"], "--seed"),
        (["eval-fid", "--seed", "-1"], "--seed"),
        (["eval-bpd", "--seed", str(2**63)], "--seed"),
        (["sample", "--seed", DIGITS], "--seed"),
        (["sample", "--num", "1e12"], "--num"),
        (["sample", "--num", str(10**12)], "--num 1000000000000: expected at least 1 and at most 10,000,000"),
        (["sample", "--num", DIGITS], "--num"),
        (["encode", "-n", "0"], "--num 0: expected at least 1"),
        (["encode", "-n", str(10**12)], "at most 10,000,000"),
        (["sample", "--seeds", "5-99999999999"], "names 99,999,999,995 indices: expected at most 10,000,000"),
        (["sample", "--seeds", DIGITS], "expected indices and ranges such as 5,17-20"),
        (["sample", "--between", f"0,{10**30}"], "expected two different indices such as 3,8"),
        (["sample", "--between", f"{DIGITS},1"], "expected two different indices such as 3,8"),
        (["sample", "--between", "-1,3"], "expected two different indices such as 3,8"),
        (["sample", "--rho", "1e308"], "rho=1e+308: expected a number of at most 100"),
        (["sample", "--rho", "nan"], "rho=nan"),
        (["sample", "--rho", "100", "--step-grid", "polynomial", "--solver", "ab2"], "rho=100 with steps=2: some steps are shorter than"),
        (["sample", "--steps", str(10**9)], "steps=1000000000: expected a number of at most 100000"),
        (["encode", "--steps", str(10**9)], "steps=1000000000: expected a number of at most 100000"),
        (["sample", "--steps", DIGITS], "--steps"),
        (["sample", "--batch-size", DIGITS], "expected auto or a positive integer"),
        (["sample", "--gif", "a.gif", "--steps", "5000"], "--gif, --strip and --plot keep the images of each step: expected at most 2,000"),
        (["sample", "--resample"], "the images of this model carry no weights"),
        (["encode", "--out", "x.txt"], "--out x.txt: expected a file name that ends in .npz"),
        (["encode", "--solver", "sra1"], "sra1"),
        (["encode", "--guidance", "3"], "guidance=3.0 needs a model that was also trained without classes"),
        (["export", "--out", "x.pt"], "expected a name that ends in .safetensors"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    arguments: list[str], message: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(run_cli(arguments[0], trained, *arguments[1:]), message)
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_found_without_torch(tmp_path: Path) -> None:
    """Loading torch takes seconds, and a mistake in an option need not wait for it."""
    commands = [
        ["sample", str(tmp_path), "--solver", "eular"],
        ["sample", str(tmp_path), "--seeds", "5-99999999999"],
        ["sample", str(tmp_path), "--grid", "g.txt"],
        ["sample", str(tmp_path), "--noise", "none.npz"],
        ["sample", "nowhere"],
        ["encode", str(tmp_path), "--out", "x.txt"],
        ["encode", str(tmp_path), "--steps", "0"],
        ["export", str(tmp_path), "--out", "x.pt"],
        ["export", "nowhere"],
    ]
    script = f"import sys; from amgen_cli.app import run; print([run(c) for c in {commands!r}], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == f"{[2] * len(commands)} False", done.stderr
    assert done.stderr.count("\n") == len(commands)


def half_written(*arguments: Any, **options: Any) -> None:
    """Write a part of what was to be written to a file or its path, and find the disk full."""
    (target,) = (argument for argument in arguments if isinstance(argument, Path) or hasattr(argument, "write"))
    if isinstance(target, Path):
        target.write_bytes(b"half")
    else:
        target.write(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("arguments", "owner", "function"),
    [
        (["sample", "-n", "2", "--grid"], "PIL.Image.Image", "save"),
        (["sample", "-n", "2", "--strip"], "PIL.Image.Image", "save"),
        (["sample", "-n", "2", "--plot"], "matplotlib.figure.Figure", "savefig"),
        (["encode", "-n", "2", "--solver", "euler", "--out"], "numpy", "savez_compressed"),
    ],
)
def test_a_full_disk_leaves_what_was_there(
    arguments: list[str], owner: str, function: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ("x.npz" if arguments[0] == "encode" else "x.png")
    file.write_bytes(b"good")
    monkeypatch.setattr(f"{owner}.{function}", half_written)
    outcome = run_cli(arguments[0], trained, *arguments[1:], file)
    assert_refused(outcome, f"cannot write {file}: No space left on device")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [(file.name, b"good")]


def test_image_files_have_the_format_of_their_name(trained: Path, tmp_path: Path) -> None:
    """They are written under another name first."""
    for name, form in (("g.PNG", "PNG"), ("g.jpg", "JPEG"), ("g.webp", "WEBP")):
        assert run_cli("sample", trained, "-n", "2", "--steps", "1", "--grid", tmp_path / name).code == 0
        with Image.open(tmp_path / name) as image:
            assert image.format == form
    assert run_cli("sample", trained, "-n", "1", "--steps", "1", "--plot", tmp_path / "p.svg").code == 0
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["g.PNG", "g.jpg", "g.webp", "p.svg"]
