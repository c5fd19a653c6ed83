"""Reports of amgen 0.1.0, whose keys had other names, are read and compared as those of today.

The files in reports_0_1_0/ were written by that version: a run of `digits` with the overrides TINY and training.images=64, then
`amgen eval-fid --metrics all`, `amgen eval-fid --sweep steps=1,2` and `amgen eval-bpd`; evaluation.json is that of checkpoints/best.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import TINY

from amgen import config, sampling
from amgen.core.processes import Processes
from amgen.evaluation.evaluator import Evaluator
from amgen.evaluation.features import make_extractor
from amgen.evaluation.likelihood import evaluate, ode_options
from amgen.evaluation.metric_options import MetricOptions
from amgen.evaluation.reference import open_reference
from amgen.evaluation.report import Evaluation, file_name
from amgen.training.main import train

FOLDER = Path(__file__).parent / "reports_0_1_0"


def old_report(pattern: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the name of an old report and its evaluations."""
    [file] = FOLDER.glob(pattern)
    contents = json.loads(file.read_text())
    return file.name, contents.get("evaluations", [contents])


@pytest.mark.parametrize("pattern", ["digits-*.json", "sweep-*.json", "bpd-*.json"])
def test_a_repeated_evaluation_replaces_its_old_report(pattern: str) -> None:
    """The file name is a hash of the conditions, and stays the same."""
    name, entries = old_report(pattern)
    assert file_name([Evaluation.from_dict(entry) for entry in entries]) == name


def test_old_reports_keep_their_contents() -> None:
    _, [entry] = old_report("digits-*.json")
    assert "scores" not in entry
    evaluation = Evaluation.from_dict(entry)
    assert [score.value for score in evaluation.scores] == [figure["value"] for figure in entry["figures"]]
    assert evaluation.metric_options == entry["choices"]
    written = evaluation.to_dict()
    assert not {"figures", "choices"}.intersection(written)
    assert Evaluation.from_dict(json.loads(json.dumps(written))) == evaluation


def test_scores_of_today_are_compared_with_old_ones(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same conditions as then, other weights: comparable. Other metrics, solvers or numbers of images: not."""
    monkeypatch.setenv("AMGEN_CACHE", str(tmp_path))
    model = sampling.load(trained)
    extractor = make_extractor("digits", 1, 8)
    reference = open_reference(None, model.config.images, extractor, Processes())
    _, [old] = old_report("evaluation.json")
    before = Evaluation.from_dict(old)
    options = model.options({"solver": "ab2", "steps": 2})
    evaluator = Evaluator(extractor, reference)
    assert before.comparable(evaluator(model, options, 20))
    assert not before.comparable(evaluator(model, options, 21))
    assert not before.comparable(evaluator(model, model.options({"solver": "heun", "steps": 2}), 20))
    assert not before.comparable(Evaluator(extractor, reference, MetricOptions(("fid", "is")))(model, options, 20))
    _, [entry] = old_report("bpd-*.json")
    likelihood = evaluate(model, ode_options(model, {"solver": "euler", "steps": 2, "tolerance": 1e-5}), 4)
    assert Evaluation.from_dict(entry).comparable(likelihood)


@pytest.mark.parametrize(("value", "kept"), [(1e-9, True), (1e9, False)])
def test_a_resumed_run_compares_its_best_weights_with_the_old_report(value: float, kept: bool, tmp_path: Path) -> None:
    """As if amgen 0.1.0 had begun the run: the best weights stay if their old score is better, and are replaced if it is worse."""
    options = [*TINY, "evaluation.every=32", "evaluation.features=digits", "evaluation.num=20"]
    train(config.load("digits", [*options, "training.images=32"]), tmp_path / "run")
    file = tmp_path / "run" / "checkpoints" / "best" / "evaluation.json"
    contents = json.loads(file.read_text())
    old = {**contents, "figures": contents.pop("scores"), "choices": contents.pop("metric_options")}
    old = {key: old[key] for key in old if key not in ("scores", "metric_options")}
    old["figures"][0]["value"] = value
    file.write_text(json.dumps(old))
    train(config.load("digits", [*options, "training.images=64"]), tmp_path / "run")
    found = json.loads(file.read_text())
    assert (found == old) == kept
    assert found["model"]["images_trained"] == (32 if kept else 64)
    assert ("scores" in found) != kept
