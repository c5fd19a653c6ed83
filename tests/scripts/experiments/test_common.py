"""What scripts share: tables in Markdown, conditions, options and errors; every script explains itself and runs by its path."""

import importlib
import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import common
import pytest
import torch
from helpers import markdown_tables

from amgen.core.errors import UserError

SCRIPTS = Path(__file__).parents[3] / "scripts"
COMMANDS = [
    file for folder in ("benchmarks", "experiments") for file in sorted((SCRIPTS / folder).glob("*.py")) if "def main(" in file.read_text()
]


def test_tables_are_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    common.print_table(["solver", "NFE", "FD", "note"], [["ab2", 9, "0.38 ± 0.01", ""], ["heun", 1_000, "-1.5", "best"]], "A title:")
    printed = capsys.readouterr().out
    assert printed == (
        "\nA title:\n\n"
        "| solver |  NFE |          FD | note |\n"
        "| ------ | ---: | ----------: | ---- |\n"
        "| ab2    |    9 | 0.38 ± 0.01 |      |\n"
        "| heun   | 1000 |        -1.5 | best |\n"
    )
    assert markdown_tables(printed) == [
        [["solver", "NFE", "FD", "note"], ["ab2", "9", "0.38 ± 0.01", ""], ["heun", "1000", "-1.5", "best"]]
    ]


def test_a_row_has_a_cell_for_each_column() -> None:
    with pytest.raises(ValueError, match="argument"):
        common.print_table(["a", "b"], [["1"]])


def test_conditions_name_the_command_and_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    common.print_conditions(Namespace(command="python scripts/x.py --num 3"), "seed 0", "3 samples")
    assert capsys.readouterr().out == f"\n`python scripts/x.py --num 3`: seed 0; 3 samples; {common.describe_machine()}\n"
    machine = common.describe_machine()
    assert machine.startswith(common.processor())
    assert f"{os.cpu_count()} core" in machine
    assert f", {torch.get_num_threads()} thread" in machine
    assert machine.endswith(f"PyTorch {torch.__version__}")


def test_the_command_is_kept(tmp_path: Path) -> None:
    parser = common.new_parser(common.__file__, "What it is.")
    common.add_outputs(parser)
    options = common.parse(parser, ["--json", str(tmp_path / "new" / "a b.json")])
    assert options.command == f"python scripts/experiments/common.py --json '{tmp_path}/new/a b.json'"
    assert (tmp_path / "new").is_dir()
    for arguments in (["--json", str(tmp_path)], ["--figure", str(tmp_path / "figure.txt")]):
        with pytest.raises(UserError, match=arguments[0]):
            common.parse(parser, arguments)


def test_errors_end_a_script_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    @common.script
    def main(arguments: Sequence[str] | None = None) -> None:
        raise UserError("what was wrong")

    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "tests/scripts/experiments/test_common.py: what was wrong\n"


def test_numbers_in_words() -> None:
    assert common.mean_and_error([1, 2, 3]) == (2, pytest.approx(1 / 3**0.5))
    assert common.with_error(*common.mean_and_error([1, 2, 3]), ".1f", ".2f") == "2.0 ± 0.58"
    assert common.with_error(*common.mean_and_error([2])) == common.with_error(2, None) == "2"
    assert [common.counted(number, "round") for number in (1, 2, 5000)] == ["1 round", "2 rounds", "5,000 rounds"]
    assert [common.seeds_in_words(seeds) for seeds in ([3], range(4), [0, 5])] == ["seed 3", "seeds 0 to 3", "seeds 0, 5"]


def test_reports_and_figures_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    common.save_report({"a": [1]}, tmp_path / "report.json")
    figure, axes = common.new_figure(1, 2)
    assert axes.shape == (1, 2)
    common.save_figure(figure, tmp_path / "figure.png")
    assert json.loads((tmp_path / "report.json").read_text()) == {"a": [1]}
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert capsys.readouterr().err == f"wrote {tmp_path}/report.json\nwrote {tmp_path}/figure.png\n"


@pytest.mark.parametrize("file", COMMANDS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_scripts_explain_themselves(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The help has the question that the script answers, how long it takes, and a line for each option."""
    monkeypatch.setenv("COLUMNS", "200")
    module = importlib.import_module(file.stem)
    assert Path(module.__file__ or "") == file
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    usage, _, text = capsys.readouterr().out.partition("\n\n")
    assert usage.startswith(f"usage: scripts/{file.parent.name}/{file.name} ")
    assert "?" in text.splitlines()[0]
    assert "akes " in text
    lines = text.partition("options:\n")[2].splitlines()
    assert lines
    assert all(line.startswith("  ") and "  " in line.strip() for line in lines), lines


def test_scripts_run_by_their_path(tmp_path: Path) -> None:
    """From any folder; a benchmark finds what it shares with the experiments."""
    command = [sys.executable, str(SCRIPTS / "benchmarks" / "randomness.py"), "--rounds", "1"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("| shape ")
    assert "`python scripts/benchmarks/randomness.py --rounds 1`: " in found.stdout
