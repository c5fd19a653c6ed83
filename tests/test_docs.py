"""The README and the pages of docs/: their commands and their code run as printed, with short budgets, and what they name exists.

A command that cannot run here stands after a comment `<!-- checked only: REASON -->`. Its options are validated all the same.
"""

import io
import pkgutil
import re
import shlex
import shutil
import sys
import zipfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from helpers import TINY, run_cli
from PIL import Image

from amgen import config
from amgen.config import Config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COLLECTION = ROOT / "docs" / "results.md"
"""The page that repeats commands of the others."""
LANGUAGES = ("bash", "python", "text", "yaml", "bibtex")
"""Languages of fenced blocks; `text` is output and files, and is not run."""
FENCE = re.compile(
    r"(?:<!-- checked only: (?P<reason>[^\n]+) -->\n)?^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
PROGRAMS = ("git", "mypy", "pip", "pre-commit", "pytest", "ruff", "source")
"""Other programs that pages may call; they are not run here."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: what it is written in.
        text: its lines.
        title: the file that it stands for, or None.
        reason: why it is not run, or None.
    """

    language: str
    text: str
    title: str | None
    reason: str | None


def blocks(page: Path) -> list[Block]:
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Block(match["language"], match["text"], match["title"], match["reason"]) for match in found]


def commands(block: Block) -> Iterator[list[str]]:
    """Yield the words of each command of a bash block, without variables that are set for it and without the launcher of processes."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words.pop(0)
        if words[:1] == ["torchrun"]:
            words = ["amgen", *words[words.index("amgen") + 1 :]]
        if words:
            yield words


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


# What pages find in the folder that they are run in


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small trained run runs/digits, photographs in photos/ and images.zip, and two tables of cells, as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AMGEN_CACHE", str(tmp_path / "cache"))
    shutil.copytree(trained, tmp_path / "runs" / "digits")
    random = np.random.default_rng(0)
    with zipfile.ZipFile("images.zip", "w") as archive:
        for number in range(32):
            file = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "png")
            archive.writestr(f"{'cats' if number % 2 else 'dogs'}/{number:02}.png", file.getvalue())
    Path("photos").mkdir()
    for number in range(16):
        Image.fromarray(random.integers(0, 256, (30, 40 + number), dtype=np.uint8)).save(f"photos/{number:02}.png")
    rows = [[time, *(random.normal(size=10) + time)] for time in range(4) for _ in range(24)]
    header = ",".join(["samples", *(f"d{column}" for column in range(1, 11))])
    np.savetxt("cells.csv", rows, delimiter=",", header=header, comments="")
    write_cells(random)
    return tmp_path


def write_cells(random: np.random.Generator) -> None:
    """Write cells.h5ad: 72 cells of 12 genes at 3 times."""
    import anndata
    import pandas as pd

    days = np.repeat([10.0, 10.5, 11.0], 24)
    labels = pd.Categorical(random.choice(["Epithelial", "Stromal"], len(days)))
    table = pd.DataFrame({"day": pd.Categorical(days), "cell_type": labels}, index=[f"cell{row}" for row in range(len(days))])
    genes = pd.DataFrame(index=[f"gene{place}" for place in range(12)])
    anndata.AnnData(X=random.normal(size=(len(days), 12)).astype(np.float32) + days[:, None], obs=table, var=genes).write_h5ad("cells.h5ad")


# Commands


def parsed(arguments: list[str]) -> dict[str, Any]:
    """Return the parameters of an amgen command, refusing options that it does not have."""
    from amgen_cli.app import app

    group = typer.main.get_command(app)
    with group.make_context("amgen", list(arguments)) as context:
        command = group.get_command(context, arguments[0])  # type: ignore[attr-defined]
        assert command is not None, f"amgen has no command {arguments[0]}"
        if hasattr(command, "commands"):  # a group of commands, such as amgen cells
            assert arguments[1] in command.commands, f"amgen {arguments[0]} has no command {arguments[1]}"
            command, arguments = command.commands[arguments[1]], arguments[1:]
        with command.make_context(arguments[0], arguments[1:], parent=context) as inner:
            return dict(inner.params)


def validate(arguments: list[str]) -> None:
    """Check the options of a command that is not run."""
    parameters = parsed(arguments)
    if arguments[0] == "train":
        config.load(parameters["preset"], parameters["overrides"] or [])


def short_training(parameters: dict[str, Any]) -> list[str]:
    """Return overrides that make a training take a second."""
    options = config.load(parameters["preset"], parameters["overrides"] or [])
    short = {
        "training.images": 32,
        "training.batch_size": 16,
        "training.warmup_images": 0,
        "training.log_every": 16,
        "training.sample_every": 0,
        "training.checkpoint_every": 32,
        "action.width": 8,
        **({"action.depth": 1} if options.action.kind == "mlp" else {"action.blocks": 1, "action.attention": "[]"}),
        **({"coupling.group": 16} if options.coupling.kind == "ot" else {}),
        **({"data.particles": 64, "data.snapshots": 3} if options.data.kind == "simulated" else {}),
        **({"evaluation.every": 32, "evaluation.num": 32} if options.evaluation.every else {}),
    }
    return [part for key, value in short.items() for part in ("--set", f"{key}={value}")]


def shortened(arguments: list[str]) -> list[str]:
    """Return a command with a short budget."""
    parameters = parsed(arguments)
    command = arguments[0]
    if command == "train":
        run = Path(parameters["run_dir"] or Path("runs", Path(parameters["preset"]).stem))
        again = ["--restart"] if run.exists() else []  # trained with other options by what stands before on the page
        return arguments if parameters["dry_run"] else [*arguments, *short_training(parameters), *again]
    most = {"sample": 16, "encode": 4, "eval-fid": 32, "eval-bpd": 2}.get(command)
    if most is None or parameters.get("noise") or parameters.get("seeds"):
        return arguments
    fewer = [*arguments, "--num", str(min(parameters["num"] or most, most))]
    if command == "eval-fid":
        fewer += ["--real", "32", "--kid-subset-size", "8", "--kid-subsets", "4"]
        for place in [place for place, word in enumerate(fewer) if word == "--sweep"]:
            key, _, values = fewer[place + 1].partition("=")
            for value in values.split(","):
                config.change(config.SamplingConfig(), {key: int(value) if value.isdecimal() else value})
            fewer[place + 1] = "steps=1,2" if key == "steps" else f"{key}={','.join(values.split(',')[:2])}"
    return fewer


def check_script(words: list[str]) -> None:
    """Check that a script exists and knows the options that it is called with."""
    script = ROOT / words[0]
    assert script.is_file(), f"{words[0]} does not exist"
    if script.suffix == ".py":
        own = script.read_text(encoding="utf-8")
        beside = [script.with_name(f"{module}.py") for module in re.findall(r"^from (\w+) import", own, re.MULTILINE)]
        texts = [
            own,
            *(file.read_text(encoding="utf-8") for file in [*beside, script.parents[1] / "experiments" / "common.py"] if file.is_file()),
        ]
        for option in [word.partition("=")[0] for word in words[1:] if word.startswith("--")]:
            assert any(f'"{option}"' in text for text in texts), f"{words[0]} has no option {option}"


def run_command(words: list[str], reason: str | None) -> None:
    program, *arguments = words
    if program == "amgen":
        if reason:
            validate(arguments)
            return
        outcome = run_cli(*shortened(arguments))
        assert outcome.code == 0, f"{shlex.join(words)}: {outcome.err}"
    elif program in ("python", "sbatch"):
        check_script(arguments)
    elif program.startswith("./"):
        check_script([program])
    else:
        assert program in PROGRAMS, f"{shlex.join(words)}: unknown program"


# Code


def run_code(code: str, variables: dict[str, Any]) -> None:
    """Run a block of Python. Its `print`s must print what the comments behind them say; amgen itself may print more."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(code, "<block>", "exec"), variables)
    promised = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert code.count("print(") == len(promised)
    assert [line for line in printed.getvalue().splitlines() if line in promised] == promised


@pytest.mark.parametrize("page", [page for page in PAGES if page.exists()], ids=name)
def test_commands_and_code_run_as_printed(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page, in order, in one folder. Trainings are cut short, and the rest is as it stands."""
    from amgen.training import main

    really_train = main.train

    def briefly(options: Config, run: Path, **arguments: Any) -> None:
        really_train(config.load("digits", TINY), run, **arguments)

    monkeypatch.setattr(main, "train", briefly)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    variables: dict[str, Any] = {"__name__": "page"}
    repeated = "run on the page that it belongs to" if page == COLLECTION else None
    for block in blocks(page):
        if block.title is not None:
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            run_code(block.text, variables)
        elif block.language == "bash":
            for words in commands(block):
                with monkeypatch.context() as patch:
                    patch.setattr(main, "train", really_train)
                    run_command(words, block.reason or repeated)


def test_the_collection_only_repeats_commands() -> None:
    elsewhere = [
        words for page in PAGES if page != COLLECTION for block in blocks(page) if block.language == "bash" for words in commands(block)
    ]
    own = [words for block in blocks(COLLECTION) if block.language == "bash" for words in commands(block) if words[0] == "amgen"]
    assert own
    assert [words for words in own if words not in elsewhere] == []


# What pages name


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_name_their_language(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * len(blocks(page)), "a block is not closed, is indented or starts in an unknown way"
    assert {block.language for block in blocks(page)} <= set(LANGUAGES)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_pages_name_exist(page: Path) -> None:
    named = re.findall(r"`((?:amgen|cli|configs|docs|scripts|tests)/[\w/.-]+)[^`]*`", page.read_text(encoding="utf-8"))
    missing = [file for file in named if not (ROOT / file).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_options_that_pages_name_exist(page: Path) -> None:
    sections = "|".join(Config.model_fields)
    named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)(?:=[^`]*)?`", page.read_text(encoding="utf-8")))
    unknown = [key for key in sorted(named) if not key.endswith(("yaml", "json")) and run_cli("config", key).code != 0]
    assert not unknown


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_extras_that_pages_name_exist(page: Path) -> None:
    extras = re.search(r"^\[project.optional-dependencies\]$(.*?)^\[", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    assert extras is not None
    known = set(re.findall(r"^(\w+) = \[", extras[1], re.MULTILINE))
    named = re.findall(r"(?:amgen|\.)\[([a-z,]+)\]", page.read_text(encoding="utf-8"))
    assert {extra for extras in named for extra in extras.split(",")} <= known


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("getting-started.md", config.preset_names()),
        ("choosing/solver.md", config.SOLVERS),
        ("how-it-is-built.md", [f"amgen/{folder.parent.name}" for folder in (ROOT / "amgen").glob("*/__init__.py")]),
        ("choosing/path.md", ["linear", "vp", "trigonometric", "torus", "super-resolution", "in-painting", "colourisation", "heat"]),
    ],
)
def test_tables_are_complete(page: str, words: list[str]) -> None:
    rows = [line for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert set(words) <= set(re.findall(r"`([\w/-]+)`", "\n".join(rows)))


def test_new_names_in_the_changelog_exist() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    tables = text[text.index("### Layout and names") : text.index("### Results that change")]
    new = [name for row in re.findall(r"^\| .* \| (.*) \|$", tables, re.MULTILINE) for name in re.findall(r"`(amgen\.[\w.]+)`", row)]
    assert len(new) > 100
    assert not [name for name in new if not exists(name)]


def exists(name: str) -> bool:
    """Return whether a module, or a name in a module, with its attributes and dataclass fields, can be imported."""
    try:
        pkgutil.resolve_name(name)
    except (AttributeError, ImportError):
        owner, _, attribute = name.rpartition(".")
        return attribute in getattr(pkgutil.resolve_name(owner), "__annotations__", {})
    return True


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_citation_names_the_version() -> None:
    import yaml

    from amgen import __version__

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
