"""The wheel, installed elsewhere, holds all it needs."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy of what git would ship, with the build backend of the environment (no network)."""
    import shutil

    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("amgen", "cli", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source], check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_wheel_installs_every_module_and_nothing_called_cli(wheel: Path) -> None:
    shipped = set(zipfile.ZipFile(wheel).namelist())
    for folder, installed in {"amgen": "amgen", "cli": "amgen_cli", "configs": "amgen/configs"}.items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{installed}/{path.relative_to(ROOT / folder).as_posix()}" in shipped
    assert {name.split("/")[0] for name in shipped if ".dist-info" not in name} == {"amgen", "amgen_cli"}


def test_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere it finds its presets, its digits and its classifier."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import amgen, sys; assert amgen.__file__.startswith(sys.argv[1]), amgen.__file__\n"
        "from amgen import config, data; from amgen.evaluation.features.digits import pretrained\n"
        "pretrained(); print(len(data.open_dataset(config.load('digits').data)), config.preset_names())\n"
        "import amgen_cli.app; assert amgen_cli.__file__.startswith(sys.argv[1])"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr
    presets = sorted(file.stem for file in (ROOT / "configs").glob("*.yaml"))
    assert found.stdout.split(maxsplit=1) == ["1797", f"{presets}\n"]


def test_a_clone_called_amgen_says_that_it_is_not_the_package(tmp_path: Path) -> None:
    """Seen from the folder around it, which Python searches before it asks where an editable package lies."""
    import shutil

    (tmp_path / "amgen").mkdir()
    shutil.copy(ROOT / "__init__.py", tmp_path / "amgen")
    message = f"this is not the package amgen but the source tree {tmp_path / 'amgen'}, which lies in the folder that Python was started in"
    for code in ("import amgen; amgen.load('run')", "from amgen import load", "from amgen_cli.app import main; main(['--version'])"):
        found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert found.returncode != 0
        assert message in found.stderr.splitlines()[-1]
    assert found.stderr.startswith("amgen: this is not")
