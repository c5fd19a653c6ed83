"""The evaluation commands: checks before the work, messages, and what is saved when a file cannot be written."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import run_cli
from PIL import Image

from amgen.config import ADAPTIVE_SOLVERS, DataConfig
from amgen.core import progress
from amgen.data import open_dataset
from amgen.evaluation.arguments import FEATURES
from amgen.evaluation.features import EXTRACTORS, make_extractor
from amgen.evaluation.frechet import frechet_distance
from amgen.solvers import ADAPTIVE


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the cache of the tests apart from the user's."""
    monkeypatch.setenv("AMGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_names_are_those_of_what_they_name() -> None:
    """Kept apart so that they can be checked before torch is loaded."""
    assert set(FEATURES) == set(EXTRACTORS)
    assert set(ADAPTIVE_SOLVERS) == set(ADAPTIVE)


MISTAKES: list[tuple[list[str], str]] = [
    (["eval-fid", "RUN", "--features", "digit"], "unknown features 'digit' (did you mean 'digits'?)"),
    (["eval-fid", "RUN", "--metrics", "fidd"], "unknown metric 'fidd'"),
    (["eval-fid", "RUN", "--sweep", "stepz=1"], "did you mean 'steps'"),
    (["eval-fid", "RUN", "--sweep", "steps=[,1"], "is not a value"),
    (["eval-fid", "RUN", "--sweep", "steps=1,2", "--solver", "dopri5"], "--sweep steps: the solver dopri5 chooses its own steps"),
    (["eval-fid", "RUN", "-n", "60", "--metrics", "kid"], "KID subsets of 1000 images need at least 1000 images on each side, not 60"),
    (
        ["eval-fid", "RUN", "-n", "60", "--metrics", "kid", "--kid-subset-size", "40", "--real", "30"],
        "at least 40 images on each side, not 30",
    ),
    (["eval-fid", "RUN", "--data", "x.npz", "--no-convert"], "--no-convert: x.npz holds statistics of images that are prepared already"),
    (["eval-fid", "RUN", "--data", "x.npz", "--resize", "crop"], "--resize crop: x.npz holds statistics of images that are prepared"),
    (["eval-fid", "RUN", "-n", "7"], "need at least 8 generated and 4 real images, not 7 and 7"),
    (["eval-fid", "RUN", "--raw", "--ema", "0.99"], "--raw and --ema each say which weights to use"),
    (["eval-fid", "RUN", "--json", "."], "--json . is a folder"),
    (["eval-fid", "RUN", "--csv", "."], "--csv . is a folder"),
    (["eval-fid", "RUN", "--csv", "FILE/x.csv"], "--csv FILE/x.csv: cannot create the folder FILE"),
    (["eval-fid", "RUN", "--plot", "FILE/x.png"], "--plot FILE/x.png: cannot create the folder FILE"),
    (["eval-fid", "RUN", "--plot", "x.txt"], "--plot x.txt: expected a file name that ends in .png, .pdf, .svg"),
    (["eval-fid", "RUN", "--neighbours", "FILE/x.png"], "--neighbours FILE/x.png: cannot create the folder FILE"),
    (["eval-fid", "RUN", "--resize", "squash"], "resize='squash'"),
    (["eval-bpd", "RUN", "--json", "."], "--json . is a folder"),
    (["eval-bpd", "RUN", "--raw", "--ema", "0.99"], "--raw and --ema each say which weights to use"),
    (["eval-bpd", "RUN", "--solver", "rk4", "--tolerance", "0.1"], "--tolerance 0.1: the solver rk4 takes a fixed number of --steps"),
    (["eval-bpd", "RUN", "--resize", "squash"], "resize='squash'"),
    (["reference-stats", "digits", "--features", "digit"], "unknown features 'digit'"),
    (["reference-stats", "digits", "--out", "FILE/x.npz"], "--out FILE/x.npz: cannot create the folder FILE"),
    (["reference-stats", "digits", "-n", "0"], "--real 0: expected at least 1"),
    (["reference-stats", "digits", "--resize", "squash"], "resize='squash'"),
    (["report", "RUN", "--out", "."], "--out . is a folder"),
    (["eval-fid", "NOWHERE"], "NOWHERE does not exist: give the folder of a run or of a checkpoint"),
    (["eval-bpd", "NOWHERE"], "NOWHERE does not exist: give the folder of a run or of a checkpoint"),
    (["report", "NOWHERE"], "NOWHERE is not a folder: give the folder of a run that `amgen train` has written"),
    (["report", "EMPTY"], "EMPTY is not a run directory: it holds no config.yaml: give the folder of a run"),
    (["sample", "RUN", "--raw", "--ema", "0.99"], "--raw and --ema each say which weights to use"),
    (["encode", "RUN", "--ema", "0.99", "--raw"], "--raw and --ema each say which weights to use"),
    (["export", "RUN", "--raw", "--ema", "0.99"], "--raw and --ema each say which weights to use"),
]
SCRIPT = """
import contextlib, io, json, sys
from amgen_cli.app import run
found = []
for arguments in json.load(sys.stdin):
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        found.append((run(arguments), errors.getvalue(), "torch" in sys.modules))
print(json.dumps(found))
"""


def test_mistakes_are_reported_before_torch_is_loaded(trained: Path, tmp_path: Path) -> None:
    """One line and code 2 for each, and nothing is left behind."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    places = {"RUN": str(trained), "FILE": str(tmp_path / "file"), "NOWHERE": str(tmp_path / "nowhere"), "EMPTY": str(tmp_path / "empty")}

    def filled(text: str) -> str:
        for word, place in places.items():
            text = text.replace(word, place)
        return text

    texts = json.dumps([[filled(argument) for argument in arguments] for arguments, _ in MISTAKES])
    done = subprocess.run([sys.executable, "-c", SCRIPT], input=texts, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    for (arguments, message), (code, error, loaded) in zip(MISTAKES, json.loads(done.stdout), strict=True):
        assert (code, error.count("\n"), filled(message) in error, loaded) == (2, 1, True, False), (arguments, error, loaded)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]
    assert not list((tmp_path / "empty").iterdir())


def test_a_missing_matplotlib_is_reported_first(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("amgen.sampling.model.load", None)
    outcome = run_cli("eval-fid", trained, "--features", "digits", "--plot", "plot.png")
    assert (outcome.code, outcome.err) == (2, "amgen: --plot needs matplotlib: pip install 'amgen[plots]'\n")
    help_text = re.sub(r"[\s│]+", " ", run_cli("eval-fid", "--help").out)
    assert "(needs matplotlib: pip install 'amgen[plots]')" in help_text


def test_scores_are_printed_though_the_run_cannot_be_written_to(trained: Path, tmp_path: Path) -> None:
    """A file stands where the folder of reports would be, as what nobody can write into; the scores are those that --json saves."""
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "eval").write_text("in the way")
    commands = {"eval-fid": ["--features", "digits", "-n", "10"], "eval-bpd": ["-n", "2", "--solver", "euler", "--steps", "1"]}
    for command, options in commands.items():
        arguments = [*options, "--batch-size", "10"]
        outcome = run_cli(command, run, *arguments)
        assert outcome.code == 0, outcome.err
        [warning] = [line for line in outcome.out.splitlines() if "not saved" in line]
        assert warning.startswith(f"warning: the report is not saved: cannot create the folder {run / 'eval'}: ")
        assert warning.endswith("; --json FILE saves it elsewhere")
        assert run_cli(command, run, *arguments, "--json", tmp_path / "e.json").code == 0
        score = json.loads((tmp_path / "e.json").read_text())["scores"][0]
        assert f"\n{score['name']} {score['value']:.4g} +- " in outcome.out
    assert (run / "eval").read_text() == "in the way"


def test_scores_are_printed_though_a_table_cannot_be_written(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the disk has filled up since it was tried."""

    def full(*arguments: Any) -> None:
        from amgen.core.errors import UserError

        raise UserError("cannot write x.csv: No space left on device")

    monkeypatch.setattr("amgen.evaluation.sweep.write_csv", full)
    outcome = run_cli("eval-fid", trained, "--features", "digits", "-n", "10", "--json", tmp_path / "e.json", "--csv", tmp_path / "x.csv")
    assert (outcome.code, outcome.err) == (2, "amgen: cannot write x.csv: No space left on device\n")
    assert "\nFD (digits features) " in outcome.out


def test_long_work_reports_its_progress(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Extraction is announced with its number of images. Every phase reports how much is done, how fast, and the time left."""
    monkeypatch.setattr(progress, "REPORT_EVERY", 0.0)
    arguments = [trained, "--features", "digits", "-n", "20", "--batch-size", "10", "--json", tmp_path / "e.json"]
    outcome = run_cli("eval-fid", *arguments)
    assert outcome.code == 0, outcome.err
    lines = [line for line in outcome.out.splitlines() if not line.startswith("reading: ")]
    assert lines[0] == (
        "extracting features of 1,797 real images of the embedded digits (saved in the cache for the next time; --real N takes fewer)"
    )
    progress_lines = [line.split("  ")[0] for line in lines if "left" in line]
    assert progress_lines[0] == "extracting features of real images: 10/1,797 images"
    assert progress_lines[180:] == [
        "generating and extracting features: 10/20 images",
        "generating and extracting features: 20/20 images",
        "computing scores: 1/3 parts",
        "computing scores: 2/3 parts",
        "computing scores: 3/3 parts",
    ]
    assert all(" images/s  " in line or " parts/s  " in line for line in lines if "left" in line)
    again = run_cli("eval-fid", *arguments)
    assert "real images:" not in again.out
    assert "extracting features of 1,797" not in again.out
    bits = run_cli("eval-bpd", trained, "-n", "4", "--solver", "euler", "--steps", "1", "--batch-size", "2", "--json", tmp_path / "b.json")
    assert [line.split("  ")[0] for line in bits.out.splitlines() if "left" in line and not line.startswith("reading: ")] == [
        "integrating images to noise: 2/4 images",
        "integrating images to noise: 4/4 images",
    ]
    stats = run_cli("reference-stats", "digits", "--features", "pixels", "-n", "30", "--batch-size", "20")
    assert [line.split("  ")[0] for line in stats.out.splitlines() if "left" in line and not line.startswith("reading: ")] == [
        "extracting features of real images: 20/30 images",
        "extracting features of real images: 30/30 images",
    ]


def test_images_of_another_form_are_brought_into_the_models(trained: Path, tmp_path: Path) -> None:
    """Coloured images of 12x10: refused with options of the command at hand, and scored as they are when cropped and made gray."""
    import numpy as np

    for index in range(8):
        pixels = np.random.default_rng(index).integers(0, 256, (10, 12, 3)).astype(np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    stretched = open_dataset(DataConfig(path=str(tmp_path / "photos"), resize="stretch", convert=True))
    extractor = make_extractor("pixels", 1, 8)
    commands = {
        "eval-fid": [
            trained,
            "--features",
            "pixels",
            "-n",
            "10",
            "--json",
            tmp_path / "e.json",
            "--data",
            tmp_path / "photos",
            "--batch-size",
            "10",
        ],
        "eval-bpd": [
            trained,
            "--solver",
            "euler",
            "--steps",
            "1",
            "--json",
            tmp_path / "b.json",
            "--data",
            tmp_path / "photos",
            "--batch-size",
            "8",
        ],
        "reference-stats": ["digits", "--features", "pixels", "--out", tmp_path / "s.npz", "--data", tmp_path / "photos"],
        "encode": [trained, "--solver", "euler", "--steps", "1", "--out", tmp_path / "n.npz", "--data", tmp_path / "photos"],
    }
    for command, arguments in commands.items():
        refused = run_cli(command, *arguments)
        assert refused.code == 2
        assert "(or --convert)" in refused.err
        refused = run_cli(command, *arguments, "--convert")
        assert refused.code == 2
        assert "(or --resize crop)" in refused.err
        outcome = run_cli(command, *arguments, "--convert", "--resize", "stretch")
        assert outcome.code == 0, outcome.err
    with np.load(tmp_path / "s.npz") as stored:
        assert np.array_equal(stored["features"], extractor(stretched.images(range(8))).numpy())
    generated = run_cli("sample", trained, "-n", "10", "--out", tmp_path / "images", "--format", "npz")
    assert generated.code == 0, generated.err
    with np.load(tmp_path / "images" / "images-000000-000009.npz") as stored:
        import torch

        images = torch.from_numpy(stored["images"]).permute(0, 3, 1, 2)
    expected = frechet_distance(extractor(images), extractor(stretched.images(range(8))))
    assert json.loads((tmp_path / "e.json").read_text())["scores"][0]["value"] == pytest.approx(expected, rel=1e-6)
