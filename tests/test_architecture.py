"""The layout of the sources: imports run one way, and files stay small."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    ("core",),
    ("config", "transport"),
    ("data",),
    ("actions", "paths"),
    ("dynamics", "solvers"),
    ("losses",),
    ("model",),
    ("visualization",),
    ("sampling",),
    ("evaluation",),
    ("reporting", "training"),
)
"""Packages of amgen from the bottom up; those of one layer do not import each other."""
LEVELS = {package: level for level, layer in enumerate(LAYERS) for package in layer}
LONGEST = 400
"""Lines of a file that needs no reason for its length; longer ones give theirs in a comment `# Long because ...` after the docstring."""
WITHOUT_TORCH = ("amgen.config", "amgen.core.checks", "amgen.core.errors", "amgen.core.files", "amgen.core.launch", "amgen_cli.app")


def imported(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level or "cli" in file.parts, f"{file}: relative import"
            yield from ([f"amgen.{alias.name}" for alias in node.names] if node.module == "amgen" else [node.module or ""])
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def sources() -> list[Path]:
    return sorted((ROOT / "amgen").rglob("*.py"))


def test_every_package_has_a_layer() -> None:
    assert {folder.name for folder in (ROOT / "amgen").iterdir() if (folder / "__init__.py").is_file()} == LEVELS.keys()


@pytest.mark.parametrize("package", LEVELS)
def test_imports_run_one_way(package: str) -> None:
    for file in sorted((ROOT / "amgen" / package).rglob("*.py")):
        for module in imported(file):
            first, _, rest = module.partition(".")
            assert first not in ("cli", "amgen_cli"), f"{file} imports the command line"
            other = rest.partition(".")[0]
            if first == "amgen" and other in LEVELS and other != package:
                assert LEVELS[other] < LEVELS[package], f"{file} imports {module}, which is not below {package}"


@pytest.mark.parametrize("package", ["actions", "losses", "paths", "solvers"])
def test_mathematics_knows_no_files_and_no_processes(package: str) -> None:
    for file in sorted((ROOT / "amgen" / package).rglob("*.py")):
        refused = {"amgen.core.files", "amgen.core.processes", "accelerate", "torch.distributed"}
        assert not refused.intersection(imported(file)), file


@pytest.mark.parametrize("file", [*sources(), *sorted((ROOT / "cli").glob("*.py"))], ids=lambda file: str(file.relative_to(ROOT)))
def test_files_are_short_or_say_why_not(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert len(lines) <= LONGEST or any(line.startswith("# Long because ") for line in lines[:40])


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_options_are_checked_before_torch_is_loaded(module: str) -> None:
    import subprocess
    import sys

    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
