"""Hostile and clumsy use of the command line: each ends in one clear line and the documented code."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import typer
from helpers import TINY, amgen_process, run_cli, sets

from amgen import config
from amgen.core.errors import Interrupted, UserError

COMMANDS = ["train", "sample", "encode", "eval-fid", "eval-bpd", "reference-stats", "report", "export", "presets", "config"]
LAUNCHED = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost"}


def in_shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of a shell in which `amgen` is ours."""
    script = f'amgen() {{ {sys.executable} -m amgen "$@"; }}\nset -o pipefail\n{command}'
    found = {**os.environ, "PYTHONWARNINGS": "error", **environment}
    return subprocess.run(["bash", "-c", script], env=found, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("amgen config > /dev/full", "standard output cannot be written (No space left on device): going on without it"),
        ("amgen --help > /dev/full", "standard output cannot be written (No space left on device): going on without it"),
        ("amgen config >&-", "standard output is closed: give it somewhere to go, such as > /dev/null"),
        ("amgen bogus <&-", "No such command 'bogus'. (see amgen --help)"),
    ],
)
def test_output_that_cannot_be_written_costs_one_line(command: str, line: str) -> None:
    """Exit code 2: something of the environment is wrong."""
    found = in_shell(command)
    assert (found.returncode, found.stderr) == (2, f"amgen: {line}\n")


@pytest.mark.parametrize("command", ["amgen config | true", "amgen config | head -1", "PYTHONIOENCODING=ascii amgen --help | true"])
def test_a_reader_that_stops_is_no_error(command: str) -> None:
    """As of other programs: no message, and the code of a process that SIGPIPE ends; `head` has its line.

    A reader that stops late may leave the whole output in the pipe, which then is no failure at all.
    """
    found = in_shell(command)
    assert found.stderr == ""
    assert found.returncode in ((0, 141) if "head" in command else (141,))
    assert found.stdout.count("\n") == command.count("head")


@pytest.mark.parametrize(
    "command", ["amgen bogus 2>&-", "amgen bogus 2> /dev/full", "amgen config >&- 2>&-", "amgen config > /dev/full 2>&1"]
)
def test_no_place_for_errors_is_no_error(command: str) -> None:
    assert in_shell(command).returncode == 2


def test_a_terminal_of_few_letters_gets_what_it_can_show() -> None:
    found = in_shell("amgen --help && amgen config é", PYTHONIOENCODING="ascii", LC_ALL="C.UTF-8")
    assert found.returncode == 2
    assert "Train image generators" in found.stdout
    assert found.stderr == "amgen: unknown option '\\xe9': amgen config lists all\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (MemoryError(), 1, "out of memory (MemoryError): try a smaller --batch-size"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nMore"), 1, "out of memory (CUDA out of memory. Tried to"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 1, "out of memory ([enforce fail]"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 1, "out of memory ([Errno 12]"),
        (EOFError("No data left in file"), 2, "a file ends too early: it is empty or was cut off (No data left in file;"),
        (RecursionError("maximum depth"), 2, "something in the input is nested too deeply"),
        (PermissionError(errno.EACCES, "Permission denied", "/there/x"), 2, "'/there/x': Permission denied\n"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", b"/there"), 2, "Is a directory\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "amgen: No space left on device\n"),
        (OSError(errno.EXDEV, "Invalid cross-device link", "/a", None, "/b"), 2, "'/a' and '/b': Invalid cross-device link\n"),
        (OSError("no such number"), 2, "amgen: no such number\n"),
        (
            RuntimeError("Could not determine home directory."),
            2,
            "there is no home folder, which caches and data sets are kept in: set HOME",
        ),
        (UserError("a file called \x1b[31m\n\udcff is bad"), 2, "a file called \\x1b[31m\\n\\udcff is bad\n"),
        (UserError("x" * 65_000), 2, "x [...] x"),
        (KeyboardInterrupt(), 130, "amgen: interrupted\n"),
        (typer.Abort(), 130, "amgen: interrupted\n"),
    ],
)
def test_any_error_of_the_system_is_one_line(error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(config, "load", load)
    outcome = run_cli("train")
    assert outcome.code == code
    assert line in outcome.err
    assert outcome.err.count("\n") == 1
    assert len(outcome.err) < 2200


def test_an_interrupt_while_modules_load_is_one_line() -> None:
    """From the first import on: here that of typer meets the signal."""
    code = "\n".join(
        [
            "import os, signal, sys",
            "signal.signal(signal.SIGINT, signal.default_int_handler)  # which jobs in the background of a shell start without",
            "class Finder:",
            "    def find_spec(self, name, path=None, target=None):",
            "        if name == 'typer':",
            "            os.kill(os.getpid(), signal.SIGINT)",
            "sys.meta_path.insert(0, Finder())",
            "from amgen_cli.entry import main",
            "main()",
        ]
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stderr) == (130, "amgen: interrupted\n")


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "load", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_cli("train")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_the_same_options_of_the_same_names(command: str) -> None:
    """-h and --debug everywhere, -n for the number of images, --device where something is computed."""
    from amgen_cli.app import app

    assert run_cli(command, "-h").out == run_cli(command, "--help").out
    known = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    names = {name for parameter in known for name in parameter.opts}
    assert "--debug" in names
    assert bool(names & {"--num", "--real"}) == ("-n" in names)
    assert ("--device" in names) == (command not in ("report", "export", "presets", "config"))


def test_wrong_values_of_options_are_named_in_our_words() -> None:
    for arguments, message in {
        ("sample", "x", "--seed", "1.5"): "Invalid value for '--seed': '1.5': expected an integer (see amgen sample --help)",
        ("sample", "x", "--rho", "big"): "Invalid value for '--rho': 'big': expected a number (see amgen sample --help)",
        ("sample", "x", "--num", "9" * 5000): "expected an integer (see amgen sample --help)",
        ("sample", "x", "--batch-size", "9" * 5000): "9...99999999999999999999': expected auto or a positive integer",
        ("sample", "x", "--between", "²,3"): "--between '²,3': expected two different indices such as 3,8",
        ("sample", "x", "--between", f"{'9' * 5000},3"): "expected two different indices such as 3,8",
        ("train", "--run-dir", ""): "--run-dir '': expected the name of a folder",
        ("train", "x\n\x1b[31m"): "unknown preset 'x\\n\\x1b[31m'",
        ("train", "y" * 70_000): "yyyy': choose one of cells",
        ("train", "--device", "tpu"): "training.device='tpu': expected 'auto' or 'cpu'",
    }.items():
        outcome = run_cli(*arguments)
        assert outcome.code == 2
        assert message in outcome.err
        assert len(outcome.err) < 700
        assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "File exists"),
        ("file/run", "Not a directory"),
        ("x" * 300, "File name too long"),
        ("/proc/run", "No such file or directory"),
        ("/dev/null", "File exists"),
        ("loop", "cannot create the folder"),
    ],
)
def test_run_directories_that_cannot_be(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    outcome = run_cli("train", "digits", "--run-dir", tmp_path / name, *sets(TINY))
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE='abc' in the environment: expected an integer from 1"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE='0' in the environment: expected an integer from 1"),
        ({"WORLD_SIZE": "9" * 5000}, "in the environment: expected an integer from 1"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 but RANK and MASTER_ADDR are not set: launch with torchrun"),
        ({**LAUNCHED, "RANK": "2"}, "RANK='2' in the environment: expected an integer from 0 to 1"),
        ({**LAUNCHED, "RANK": "x"}, "RANK='x' in the environment: expected an integer from 0 to 1"),
        ({**LAUNCHED, "RANK": "0", "MASTER_PORT": "http"}, "MASTER_PORT='http' in the environment: expected an integer from 1"),
        ({"RANK": "7"}, "unknown preset 'none'"),
        ({"RANK": "x"}, "unknown preset 'none'"),
        ({"WORLD_SIZE": ""}, "unknown preset 'none'"),
    ],
)
def test_the_environment_is_read_with_care(environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of a process without their count is of no launcher of ours, and passed over."""
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    outcome = run_cli("train", "none")
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_the_first_process_speaks_and_the_others_give_it_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only one of the others meets is said by it, later; what all certainly meet alike is not."""
    from amgen_cli import app

    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    for variable, value in LAUNCHED.items():
        monkeypatch.setenv(variable, value)
    assert "unknown preset" in run_cli("train", "none").err
    assert slept == [app.PATIENCE]

    def stop(*_: object) -> None:
        raise Interrupted("stopped")

    monkeypatch.setattr(config, "load", stop)
    outcome = run_cli("train")
    assert (outcome.code, outcome.err) == (75, "")
    monkeypatch.setenv("RANK", "0")
    assert run_cli("train").err == "amgen: stopped\n"
    assert slept == [app.PATIENCE]


def test_a_lost_process_is_noticed_by_any_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever operation met it, here one that no code of ours surrounds; each process that is left says so at once."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)

    def fail(*_: object) -> None:
        raise torch.distributed.DistStoreError("Timed out after 4 seconds waiting for clients. 1/2 clients joined.")

    monkeypatch.setattr(config, "load", fail)
    with pytest.raises(torch.distributed.DistStoreError):
        run_cli("train")  # alone, it is a mistake of ours
    for variable, value in LAUNCHED.items():
        monkeypatch.setenv(variable, value)
    outcome = run_cli("train")
    assert outcome.code == 76
    assert outcome.err.startswith("amgen: process 1 stops because another of the 2 is lost (Timed out after 4 seconds")
    assert outcome.err.count("\n") == 1
    assert slept == []


def test_three_processes_print_one_mistake_once() -> None:
    process = amgen_process("train", "digits", "--set", "training.imges=3", processes=3)
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert errors.count("unknown option 'training.imges'") == 1


def test_option_errors_come_before_torch() -> None:
    """What makes them quick: torch takes seconds to load. Commands and options that are wrong in every way, in one process."""
    mistakes = [
        [],
        ["presets"],
        ["config", "training"],
        ["bogus"],
        ["train", "nosuchpreset"],
        ["train", "nosuchfile.yaml"],
        ["train", "--set", "training.imges=3"],
        ["train", "--set", "training.images=many"],
        ["train", "--run-dir", ""],
        ["sample"],
        ["sample", "x", "--num", "few"],
        ["encode", "x", "--steps", "few"],
        ["eval-fid", "x", "--bogus"],
        ["eval-bpd", "x", "--num", "few"],
        ["reference-stats", "x", "--batch-size", "few"],
        ["export", "x", "--ema", "few"],
        ["report"],
    ]
    code = "\n".join(
        [
            "import sys",
            "from amgen_cli.app import run",
            f"codes = [run(arguments) for arguments in {mistakes!r}]",
            "sys.exit('torch' in sys.modules or codes != [0, 0, 0] + [2] * (len(codes) - 3))",
        ]
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr


def test_presets_are_listed_with_what_they_are() -> None:
    outcome = run_cli("presets")
    assert [line.split()[0] for line in outcome.out.splitlines()] == config.preset_names()
    about = next(line for line in outcome.out.splitlines() if line.startswith("digits "))
    assert about.endswith("The 8x8 handwritten digits that come with amgen: a few minutes on two CPU cores.")
    assert all(len(line.split()) > 5 for line in outcome.out.splitlines())


def test_options_are_listed_with_what_they_accept() -> None:
    outcome = run_cli("config", "data.resize")
    heading, line = outcome.out.splitlines()
    assert heading.startswith("data (kind=images): ")
    assert line.split()[:3] == ["data.resize", "forbid|crop|stretch", "forbid"]
    everything = run_cli("config").out
    defaults = config.Config().model_dump(mode="json")
    for section, options in defaults.items():
        for key in options if isinstance(options, dict) else []:
            assert f"  {section}.{key} " in everything
    assert "integer > 0, <= 1,000,000,000,000,000 or null" in run_cli("config", "training.micro_batch").out
    assert "path.beta_max" in run_cli("config", "path").out
    assert "training.images" not in run_cli("config", "path").out
    unknown = run_cli("config", "data.resiz")
    assert (unknown.code, unknown.err) == (2, "amgen: unknown option 'data.resiz' (did you mean 'data.resize'?): amgen config lists all\n")
