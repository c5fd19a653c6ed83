"""The report of a run: its contents, that it needs no other file, that damaged files cannot break it, and its charts."""

import json
import math
import os
import re
import shutil
import subprocess
import tempfile
from base64 import b64decode
from collections.abc import Sequence
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from helpers import run_cli
from PIL import Image

from amgen import config
from amgen.reporting.axes import fitting_axis, linear_axis, logarithmic_axis
from amgen.reporting.charts import PLOT_HEIGHT, RIGHT, TOP, WIDTH, Point, Series, make_chart, number, thin
from amgen.reporting.collect import GRIDS, LARGEST_SIDE, Environment, collect, evenly_spaced
from amgen.reporting.evaluations import groups_of
from amgen.reporting.page import classes_of, curves_of, duration, facts_of, render

HERE = Environment(datetime(2025, 1, 2, 3, 4, tzinfo=timezone.utc), "0.1.0", "2.6.0", "3.12.1", "Linux-test", "CPU, 2 threads")
SECTIONS = ["Curves", "Samples", "Evaluation", "Configuration", "Environment"]


class Page(HTMLParser):
    """A page taken apart: its elements, the text in each element by kind, and all words that are shown, a space between elements."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self._pieces: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img"):
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data
        if "head" not in self._open:
            self._pieces.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._pieces).split())


def make_run(
    folder: Path, metrics: Sequence[dict[str, Any]] = (), evaluations: dict[str, Any] | None = None, grids: Sequence[int] = ()
) -> Path:
    """Write a run directory by hand."""
    (folder / "eval").mkdir(parents=True)
    (folder / "samples").mkdir()
    (folder / "config.yaml").write_text(config.load("digits").to_yaml())
    if metrics:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    for name, contents in (evaluations or {}).items():
        (folder / "eval" / name).write_text(json.dumps(contents))
    for images in grids:
        Image.new("L", (40, 30), images % 256).save(folder / "samples" / f"images-{images:09d}.png")
    return folder


def line(images: int, **values: Any) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    step = {"step": images // 10, "images": images, "loss": 1.0, "velocity_error": 1.0, "gradient_norm": 2.0}
    return {**step, "learning_rate": 1e-3, "images_per_second": 50.0, **values}


def evaluation(value: float, images: int = 1_000, nfe: int = 20, generated: int = 500, **sampling: Any) -> dict[str, Any]:
    """An evaluation as amgen eval-fid writes it."""
    distance = {"name": "FD (digits features)", "value": value, "standard_error": 0.125, "note": "", "details": {}}
    precision = {"name": "precision (digits features)", "value": 0.75, "standard_error": None, "note": "3 neighbours", "details": {}}
    precision["lower_is_better"] = False
    return {
        "scores": [distance, precision],
        "generated": generated,
        "real": 1_797,
        "reference": "the embedded digits",
        "features": {"name": "digits", "dimension": 64, "preparation": "none", "sha256": "fb448c216c67"},
        "model": {"checkpoint": "runs/x/checkpoints/step-00000100", "weights": "ema-0.998", "images_trained": images},
        "sampling": {"solver": "midpoint", "steps": nfe // 2, "NFE": nfe, "seed": 0, "label": None, **sampling},
        "seconds": {"generating": 10.5, "extracting": 0.25},
        "warnings": ["few images"],
    }


def page_of(run: Path) -> Page:
    return Page(render(collect(run), HERE))


def test_report_of_a_trained_run(trained: Path, tmp_path: Path) -> None:
    before = sorted(trained.rglob("*"))
    file = tmp_path / "new" / "page.html"
    outcome = run_cli("report", trained, "--out", file)
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"wrote {file} ({file.stat().st_size / 1000:,.0f} kB)\n"
    assert sorted(trained.rglob("*")) == before

    page = Page(file.read_text(encoding="utf-8"))
    assert page.texts["h1"] == ["run"]
    assert page.texts["h2"] == SECTIONS
    assert "preset: digits, 9 options changed" in page.text
    assert "times: stratified" in page.text
    assert "of 96, 100 %" in page.text
    assert "training.batch_size 16 64" in page.text
    assert "action.attention [4] []" in page.text
    assert (trained / "config.yaml").read_text() in page.texts["pre"]
    assert "step-00000006" in page.text
    assert "action, ema-0.99, ema-0.998" in page.texts["td"]
    assert "There are no evaluations yet" in page.text
    assert [title for title in page.texts["figcaption"] if "images seen" not in title] == [
        "Loss",
        "Gradient norm, before clipping",
        "Learning rate",
        "Norm of the weights",
        "Distance of the averaged weights",
        "Throughput",
    ]
    images = [b64decode(str(image["src"]).removeprefix("data:image/png;base64,")) for image in page.all("img")]
    assert images == [file.read_bytes() for file in sorted((trained / "samples").iterdir())]
    assert page.all("img")[-1]["alt"] == "Image grid of samples after 96 images of training"


def test_report_goes_into_the_run_directory_and_replaces_the_last_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert run_cli("report", run).code == 0
    first = (run / "report.html").read_text()
    (run / "metrics.jsonl").write_text(json.dumps(line(100)) + "\n")
    assert run_cli("report", run).out.startswith(f"wrote {run / 'report.html'} (")
    assert "no metrics yet" in first
    assert "no metrics yet" not in (run / "report.html").read_text()
    assert not list(run.glob("*.tmp"))


def test_environment_is_this_one() -> None:
    import platform

    import torch

    here = Environment.here()
    assert torch.__version__.startswith(here.torch)
    assert here.python == platform.python_version()
    assert here.device.startswith("CPU, ") or torch.accelerator.is_available()
    assert abs((datetime.now().astimezone() - here.written).total_seconds()) < 60


def test_page_names_the_environment(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run"))
    for text in ("2025-01-02 03:04 UTC", "amgen 0.1.0", "torch 2.6.0", "Python 3.12.1", "Linux-test", "CPU, 2 threads"):
        assert text in page.text


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    """Nothing but its configuration is there."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(config.load("digits").to_yaml())
    page = page_of(run)
    assert page.texts["h2"] == SECTIONS
    for text in ("no metrics yet", "no image grids yet", "no evaluations yet", "no checkpoints yet"):
        assert text in page.text
    assert "All options that change the trained model are those of the preset digits." in page.text
    assert not page.all("svg")
    assert "dl" not in page.texts


@pytest.mark.parametrize("case", ["missing", "file", "folder", "checkpoint"])
def test_what_is_no_run_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    place = tmp_path / "there"
    if case == "file":
        place.write_text("")
    elif case != "missing":
        place.mkdir()
        (place / "action.safetensors").touch()
    outcome = run_cli("report", place)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    expected = "is not a folder" if case in ("missing", "file") else "is not a run directory: it holds no config.yaml"
    assert f"amgen: {place} {expected}" in outcome.err
    assert "give the folder of a run that `amgen train` has written" in outcome.err


@pytest.mark.parametrize(("out", "reason"), [("run/samples", "is a folder"), (".", "is a folder"), ("run/config.yaml/x", "cannot create")])
def test_a_place_that_cannot_be_written_to_is_named(out: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the run is read, which is not done here."""
    run = make_run(tmp_path / "run")
    monkeypatch.setattr("amgen.reporting.collect.collect", None)
    outcome = run_cli("report", run, "--out", tmp_path / out)
    assert outcome.code == 2
    assert f"amgen: --out {tmp_path / out}" in outcome.err
    assert reason in outcome.err
    assert outcome.err.count("\n") == 1


# --- what a page may hold -------------------------------------------------------------------------------------------------------


def full_run(folder: Path) -> Path:
    """A run with everything that a page can show."""
    terms = [line(100 * k, velocity_error=9.0 / k, growth_error=4.0, loss=9.0 / k + 4) for k in range(1, 9)]
    sweep = [evaluation(2 / nfe, nfe=nfe, solver=solver) for solver in ("midpoint", "euler") for nfe in (4, 20, 100)]
    single = {f"at-{images}.json": evaluation(3e4 / images**1.5, images) for images in (500, 1_000, 2_000)}
    return make_run(folder, terms, {"sweep.json": {"evaluations": sweep}, **single}, grids=[100, 200])


def test_a_page_refers_to_nothing_outside_itself(tmp_path: Path) -> None:
    text = render(collect(full_run(tmp_path / "run")), HERE)
    page = Page(text)
    assert len(page.all("svg")) == 7
    for tag, attributes in page.elements:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form", "use", "audio", "video")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "srcset", "data", "poster", "action", "background"):
                assert str(value).startswith(("data:", "#")), f"{tag} {name}={value}"
            if name in ("href", "aria-labelledby") and not str(value).startswith("data:"):
                known = {attributes.get("id") for _, attributes in page.elements}
                assert set(str(value).removeprefix("#").split()) <= known
    style = "".join(page.texts["style"])
    assert "url(" not in style
    assert "@import" not in style
    policies = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_identifiers_are_unique_and_every_image_has_a_description(tmp_path: Path) -> None:
    page = page_of(full_run(tmp_path / "run"))
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert len(page.texts["desc"]) == len(page.all("svg"))
    assert all(page.texts["desc"])
    assert all(svg["role"] == "img" and svg["aria-labelledby"] for svg in page.all("svg"))
    assert all(image["alt"] for image in page.all("img"))


def test_nothing_from_a_run_is_taken_for_markup(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"
    found = evaluation(1.0, solver=bad)
    found["scores"][0] |= {"name": f"FD {bad}", "note": bad}
    found |= {"reference": bad, "warnings": [bad]}
    found["features"]["name"] = found["model"]["weights"] = found["model"]["checkpoint"] = bad
    other = json.loads(json.dumps(found))
    other["sampling"]["NFE"] = 40
    run = make_run(tmp_path / "<b>&amp;", [line(10, **{bad: 1.0}), line(20, **{bad: 2.0})], {"a.json": found, "b.json": other})
    options = config.load("digits", [f"data.path={bad}"])
    (run / "config.yaml").write_text(options.to_yaml())
    (run / "eval" / "<i>.json").write_text("{")
    page = page_of(run)
    assert not page.all("script")
    assert not page.all("b")
    assert not page.all("i")
    assert page.texts["h1"] == ["<b>&amp;"]
    assert page.texts["title"][0] == "<b>&amp; – amgen report"
    assert f"data: {bad}" in page.text
    assert bad in page.texts["pre"][0]
    assert page.text.count(bad) > 10
    assert "eval/<i>.json" in page.text


def test_a_broken_configuration_is_shown_as_it_is(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [line(10), line(20)])
    (run / "config.yaml").write_text("path: {kind: <script>}\n")
    page = page_of(run)
    assert page.texts["pre"] == ["path: {kind: <script>}\n"]
    assert "this version of amgen cannot read it: " in page.text
    assert "path: <script>" in page.texts["ul"][0]
    assert "preset:" not in page.text
    (run / "config.yaml").write_bytes(b"\xff\xfe: [")
    assert "��: [" in page_of(run).text


DAMAGED_LINES = {
    '{"step": 3, "ima': "not valid JSON",
    "[" * 100_000: "not valid JSON",
    "[1, 2]": "not a JSON object",
    "": "not valid JSON",
    '{"step": 3, "loss": 2.0}': "it has no number of images seen",
    '{"images": "many", "loss": 2.0}': "it has no number of images seen",
    '{"images": true, "loss": 2.0}': "it has no number of images seen",
    '{"images": -1, "loss": 2.0}': "it has no number of images seen",
    f'{{"images": 1{"0" * 400}}}': "it has no number of images seen",
    '{"images": 70, "loss": NaN, "gradient_norm": "big", "learning_rate": -Infinity}': "not a finite number: loss, gradient_norm, lea",
}


@pytest.mark.parametrize("damage", DAMAGED_LINES, ids=range(len(DAMAGED_LINES)))
def test_damaged_metrics_are_left_out_and_named(damage: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    good = [json.dumps(line(images, loss=images / 100)) for images in (10, 20)]
    (run / "metrics.jsonl").write_text("\n".join([good[0], damage, good[1]]) + "\n")
    record = collect(run)
    assert [(skipped.name, DAMAGED_LINES[damage] in skipped.reason) for skipped in record.skipped] == [("metrics.jsonl, line 2", True)]
    assert [values["loss"] for values in record.metrics if "loss" in values] == [0.1, 0.2]
    page = Page(render(record, HERE))
    assert "What could not be read" in page.text
    assert DAMAGED_LINES[damage] in page.text
    assert "2 points, from 0.1 at 10 to 0.2 at 20" in page.text


def changed(**parts: Any) -> dict[str, Any]:
    return {**evaluation(1.0), **parts}


DAMAGED_EVALUATIONS: list[tuple[Any, str]] = [
    ({"metric": "FD (digits features)", "value": 1.0}, "it holds no scores"),
    ([], "not a JSON object"),
    ({"evaluations": [3]}, "it holds no scores"),
    (changed(scores=[]), "its list of scores is empty"),
    (changed(scores=[{"name": "FD"}]), "it lacks scores.0.value"),
    (changed(scores=[{"name": "FD", "value": math.nan}]), "FD is not a finite number"),
    (changed(scores=[{"name": "FD", "value": 1.0, "standard_error": math.inf}]), "FD is not a finite number"),
    (changed(scores=[{"name": "FD", "value": [1]}]), "scores.0.value: expected a number"),
    (changed(sampling=None), "sampling: expected names with values"),
    (changed(model={"weights": "raw"}), "model.images_trained is not a number of images"),
    (changed(seconds={"generating": math.nan}), "seconds are not finite numbers"),
    (changed(model={"images_trained": 10**400}), "model.images_trained is not a number of images"),
    (changed(model={"images_trained": "x"}), "model.images_trained is not a number of images"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGED_EVALUATIONS, ids=range(len(DAMAGED_EVALUATIONS)))
def test_damaged_evaluations_are_left_out_and_named(damage: Any, reason: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", evaluations={"bad.json": damage, "good.json": {"evaluations": [evaluation(3.5)]}})
    record = collect(run)
    [skipped] = record.skipped
    assert skipped.name.startswith("eval/bad.json")
    assert reason in skipped.reason
    assert [found.evaluation.principal.value for found in record.evaluations] == [3.5]
    assert skipped.reason in Page(render(record, HERE)).text


def test_reports_of_the_first_version_are_shown(tmp_path: Path) -> None:
    """Files that amgen 0.1.0 wrote, whose scores are called figures; damage in them is named as it stands in the file."""
    old = Path(__file__).parents[1] / "evaluation" / "reports_0_1_0"
    contents = {file.name: json.loads(file.read_text()) for file in sorted(old.iterdir())}
    record = collect(make_run(tmp_path / "run", evaluations=contents))
    assert not record.skipped
    assert len(record.evaluations) == 5  # one each, and two of the sweep
    page = Page(render(record, HERE))
    for text in ("53.76 ± 3.8", "8.594 ± 0.022", "KID (digits features): 100 subsets of 10 images", "FD at infinite n", "bits/dim"):
        assert text in page.text
    damaged = {"bad.json": {**evaluation(1.0), "figures": [{"name": "FD"}]}}
    del damaged["bad.json"]["scores"]
    [skipped] = collect(make_run(tmp_path / "other", evaluations=damaged)).skipped
    assert skipped.reason == "it lacks figures.0.value"


def test_what_is_a_folder_instead_of_a_file_is_named_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for place in ("metrics.jsonl", "eval/a.json", "samples/images-000000001.png"):
        (run / place).mkdir()
    skipped = collect(run).skipped
    assert [one.name for one in skipped] == ["metrics.jsonl", "samples/images-000000001.png", "eval/a.json"]
    assert all("Is a directory" in one.reason for one in skipped)


@pytest.mark.parametrize("folder", ["samples", "eval", "checkpoints"])
def test_folders_that_may_not_be_looked_into_are_named(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", evaluations={"a.json": evaluation(3.5)}, grids=[100])
    (run / "checkpoints").mkdir()
    original = Path.iterdir

    def iterdir(self: Path) -> Any:
        if self.name == folder:
            raise PermissionError(13, "Permission denied")
        return original(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    outcome = run_cli("report", run)
    assert outcome.code == 0, outcome.err
    assert re.search(f"{folder} : .*Permission denied", Page((run / "report.html").read_text()).text)
    assert (len(collect(run).evaluations), len(collect(run).grids)) == (int(folder != "eval"), int(folder != "samples"))


def test_named_pipes_are_not_waited_for(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "checkpoints" / "step-00000001").mkdir(parents=True)
    places = ["metrics.jsonl", "samples/images-000000001.png", "eval/a.json", "checkpoints/step-00000001/action.safetensors"]
    for place in places:
        os.mkfifo(run / place)
    skipped = collect(run).skipped
    assert [one.name for one in skipped] == [*places[:3], "checkpoints/step-00000001"]
    assert all("it is neither a file nor a folder" in one.reason for one in skipped)


def test_metrics_that_are_no_text_are_left_out_line_by_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "metrics.jsonl").write_bytes(json.dumps(line(10)).encode() + b"\n\xff\xfe\n" + json.dumps(line(20)).encode() + b"\n")
    record = collect(run)
    assert [values["images"] for values in record.metrics] == [10, 20]
    assert [skipped.name for skipped in record.skipped] == ["metrics.jsonl, line 2"]


def test_grids_of_populations_are_shown(tmp_path: Path) -> None:
    """They are called by points, as training writes them."""
    run = make_run(tmp_path / "run")
    Image.new("L", (512, 512), 9).save(run / "samples" / "points-000000100.png")
    Image.new("L", (512, 512), 9).save(run / "samples" / "mine-000000100.png")
    page = page_of(run)
    [image] = page.all("img")
    assert b64decode(str(image["src"]).removeprefix("data:image/png;base64,")) == (run / "samples" / "points-000000100.png").read_bytes()
    assert image["alt"] == "Image grid of samples after 100 images of training"


def test_names_of_classes_are_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    record = collect(run)
    assert not any("classes:" in part for part in page_of(run).texts["li"])

    class Data:
        classes = ("cat", "<dog>")

    class Named:
        data = Data()

    assert classes_of(Named()) == ["classes: 0 cat, 1 <dog>"]  # type: ignore[arg-type]
    assert classes_of(record.config) == []


def test_unusual_details_are_shown(tmp_path: Path) -> None:
    details = {"n": 5, "share": math.nan, "most": 10**400, "by_n": [[1, 2.0]], "words": None}
    unusual = changed(scores=[{"name": "FD", "value": 1.0, "details": details}], features={"name": ["x"], "dimension": 10**400})
    page = page_of(make_run(tmp_path / "run", evaluations={"a.json": unusual}))
    assert "FD: n 5, share nan, most inf, by_n [[1, 2.0]], words None" in page.text
    assert "Features: ['x']" in page.text


def test_one_bad_evaluation_does_not_spoil_a_sweep(tmp_path: Path) -> None:
    sweep = {"evaluations": [evaluation(3.0), {"scores": []}, evaluation(4.0, nfe=40)]}
    record = collect(make_run(tmp_path / "run", evaluations={"sweep.json": sweep}))
    assert [skipped.name for skipped in record.skipped] == ["eval/sweep.json, evaluation 2"]
    assert [found.evaluation.principal.value for found in record.evaluations] == [3.0, 4.0]


def test_sparse_evaluations_are_shown(tmp_path: Path) -> None:
    """Without features, NFE, weights, times or a count of real images."""
    sparse = changed(features=None, real=None, generated=0, model={"images_trained": 70}, sampling={"solver": "x"}, seconds={}, warnings=[])
    page = page_of(make_run(tmp_path / "run", evaluations={"a.json": sparse, "b.json": sparse}))
    assert "real images of the embedded digits." in page.text
    assert "generated images" not in page.text
    assert page.texts["dd"] == ["1 ± 0.12best of 2: x; 70 of training"]
    assert page.texts["td"][:4] == ["70", "x", "–", "1 ± 0.12"]


def test_damaged_images_and_checkpoints_are_left_out_and_named(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    good = next((run / "samples").iterdir())
    (run / "samples" / "images-000000001.png").write_bytes(good.read_bytes()[:60])
    (run / "samples" / "images-000000002.png").write_text("<svg/>")
    (run / "samples" / "images-x.png").write_text("")
    (run / "samples" / "images-²³.png").write_text("")
    (run / "checkpoints" / "step-00000001").mkdir()
    (run / "checkpoints" / "step-00000002").mkdir()
    (run / "checkpoints" / "step-00000002" / "action.safetensors").write_text("damaged")
    shutil.copytree(run / "checkpoints" / "step-00000006", run / "checkpoints" / "best")
    record = collect(run)
    assert sorted(skipped.name for skipped in record.skipped) == [
        "checkpoints/step-00000001",
        "checkpoints/step-00000002",
        "samples/images-000000001.png",
        "samples/images-000000002.png",
        "samples/images-x.png",
        "samples/images-²³.png",
    ]
    page = Page(render(record, HERE))
    assert len(page.all("img")) == 1
    assert [saved.name for saved in record.checkpoints] == ["step-00000006", "best"]
    assert record.checkpoints[0].images == 96
    files = list((run / "checkpoints" / "step-00000006").iterdir())
    assert record.checkpoints[0].size == sum(file.stat().st_size for file in files)


def test_halves_of_characters_are_replaced(tmp_path: Path) -> None:
    """JSON may hold them, UTF-8 may not."""
    run = make_run(tmp_path / "run")
    (run / "eval" / "a.json").write_text(json.dumps(changed(reference="\ud800 digits")))
    outcome = run_cli("report", run)
    assert outcome.code == 0, outcome.err
    assert "of ? digits" in (run / "report.html").read_text(encoding="utf-8")


def test_long_lists_of_damage_are_cut(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "metrics.jsonl").write_text("{\n" * 1_234)
    page = page_of(run)
    assert "and 1,204 more" in page.text
    assert "metrics.jsonl, line 30 :" in page.text
    assert "line 31" not in page.text


def test_grids_are_chosen_evenly_with_the_first_and_the_last(tmp_path: Path) -> None:
    assert evenly_spaced(list(range(12)), 12) == list(range(12))
    assert evenly_spaced(list(range(23)), 12) == list(range(0, 23, 2))
    assert evenly_spaced(list(range(100)), 12)[::11] == [0, 99]
    record = collect(make_run(tmp_path / "run", grids=range(100, 4_000, 100)))
    assert len(record.grids) == GRIDS
    assert (record.grids[0].images, record.grids[-1].images, record.grid_count) == (100, 3_900, 39)
    assert "12 of 39 image grids" in Page(render(record, HERE)).text


def test_small_grids_are_enlarged_by_whole_numbers_and_large_ones_reduced(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", grids=[7])
    Image.new("RGB", (3 * LARGEST_SIDE, 2 * LARGEST_SIDE)).save(run / "samples" / "images-000000008.png")
    page = page_of(run)
    small, large = page.all("img")
    assert (small["width"], small["height"], small.get("class")) == ("320", "240", None)
    assert (large["width"], large["height"], large.get("class")) == (str(LARGEST_SIDE), str(round(2 * LARGEST_SIDE / 3)), "reduced")
    assert f"reduced from {3 * LARGEST_SIDE} × {2 * LARGEST_SIDE} pixels" in page.text


# --- scores ---------------------------------------------------------------------------------------------------------------------


def test_summary(tmp_path: Path) -> None:
    """50,000 images at 50 and 126,000 at 100 a second take 1,000 s and 1,260 s; 176,000 make 2,750 batches of 64."""
    metrics = [line(50_000), line(176_000, images_per_second=100.0, loss=0.123456)]
    sweep = {"evaluations": [evaluation(3.0), evaluation(2.0, nfe=40), evaluation(2.5, nfe=60)]}
    record = collect(make_run(tmp_path / "run", metrics, {"sweep.json": sweep}))
    facts = [(fact.name, fact.value, fact.note) for fact in facts_of(record, groups_of(record.evaluations))]
    assert facts == [
        ("images seen", "176,000", "of 176,000, 100 %"),
        ("loss", "0.1235", "mean over the last 126,000 images"),
        ("training time", "38 min", "estimated from the throughput"),
        ("FD (digits features)", "2 ± 0.12", "best of 3: midpoint, 20 steps; 500 images, 1,000 of training"),
    ]


def test_progress_is_counted_in_whole_batches(tmp_path: Path) -> None:
    """1,000 images are 16 batches of 64; lines of metrics are taken by images seen, whatever their order."""
    run = make_run(tmp_path / "run", [line(1_024, loss=2.0), line(64, loss=1.0)])
    (run / "config.yaml").write_text(config.load("digits", ["training.images=1000"]).to_yaml())
    facts = facts_of(collect(run), [])
    assert [(fact.value, fact.note) for fact in facts[:2]] == [("1,024", "of 1,024, 100 %"), ("2", "mean over the last 960 images")]


def test_training_time_is_not_guessed(tmp_path: Path) -> None:
    record = collect(make_run(tmp_path / "run", [line(10), line(20, images_per_second=0.0)]))
    assert [fact.name for fact in facts_of(record, [])] == ["images seen", "loss"]


def test_what_the_machine_did_joins_what_was_learned(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [line(10), line(20)])
    (run / "machine.jsonl").write_text(json.dumps({"step": 2, "images": 20, "images_per_second": 7.0}) + "\n{")
    record = collect(run)
    assert [values["images_per_second"] for values in record.metrics] == [50.0, 7.0]
    assert [skipped.name for skipped in record.skipped] == ["machine.jsonl, line 2"]


def test_the_best_is_the_highest_where_more_is_better(tmp_path: Path) -> None:
    scores = {f"{k}.json": changed(scores=[{"name": "IS", "value": k, "lower_is_better": False}]) for k in (2.0, 3.0, 1.0)}
    record = collect(make_run(tmp_path / "run", evaluations=scores))
    page = Page(render(record, HERE))
    assert page.texts["strong"] == ["3"]
    assert page.texts["dd"][0].startswith("3best of 3: ")


def test_evaluations_are_compared_only_where_they_may_be(tmp_path: Path) -> None:
    """Same features, reference and numbers of images make a table; its best principal score is bold, others are not."""
    other = evaluation(0.5)
    other["features"] = {**other["features"], "sha256": "0"}
    files = {"a.json": evaluation(3.0), "b.json": evaluation(2.0, nfe=40), "c.json": evaluation(0.1, generated=50), "d.json": other}
    record = collect(make_run(tmp_path / "run", evaluations=files))
    groups = groups_of(record.evaluations)
    assert [[row.found.file for row in group.rows] for group in groups] == [
        ["eval/a.json", "eval/b.json"],
        ["eval/c.json"],
        ["eval/d.json"],
    ]
    assert [[best and best.value for best in group.best] for group in groups] == [[2.0, None], [None, None], [None, None]]
    page = Page(render(record, HERE))
    assert page.texts["strong"] == ["2 ± 0.12"]
    assert page.texts["td"][:6] == ["1,000", "midpoint, 10 steps", "20", "3 ± 0.12", "0.75", "1,000"]
    assert page.texts["th"][:5] == ["images seen", "sampling", "NFE", "FD", "precision"]
    assert "500 generated images; 1,797 real images of the embedded digits; 64 dimensions; preparation: none" in page.text
    assert "SHA-256 of the features fb448c21; ema-0.998; seed 0." in page.text
    assert "precision (digits features): 3 neighbours" in page.text
    assert "time: generating 10.5 s, extracting 0.25 s" in page.text
    assert page.texts["li"].count("few images") == 3  # once for each table


def test_settings_that_differ_are_told_in_each_row(tmp_path: Path) -> None:
    raw, other = evaluation(2.0, seed=1), changed(scores=[{"name": "bits/dim", "value": 3.0}])
    raw["model"]["weights"] = "action"
    page = page_of(make_run(tmp_path / "run", evaluations={"a.json": evaluation(3.0), "b.json": raw, "c.json": other}))
    samplings = [text for text in page.texts["td"] if "midpoint" in text]
    assert samplings == [
        "ema-0.998, midpoint, 10 steps, seed 0",
        "action, midpoint, 10 steps, seed 1",
        "ema-0.998, midpoint, 10 steps, seed 0",
    ]
    assert "preparation: none; SHA-256 of the features fb448c21." in page.text
    assert page.texts["th"][3:6] == ["FD (digits features)", "precision (digits features)", "bits/dim"]


def charts_of(tmp_path: Path, *found: dict[str, Any]) -> dict[str, Any]:
    record = collect(make_run(tmp_path / "run", evaluations={"sweep.json": {"evaluations": list(found)}}))
    return {chart.title: chart for group in groups_of(record.evaluations) for chart in group.charts}


COST, TRAINING = "FD (digits features) against gradient evaluations", "FD (digits features) against images of training"


def test_distance_against_cost(tmp_path: Path) -> None:
    """Solvers are series; what all points share is said once; other seeds repeat a point and the line runs through their mean."""
    found = [evaluation(value, nfe=nfe, solver=solver) for solver, nfe, value in [("euler", 4, 9), ("euler", 100, 3), ("heun", 100, 2)]]
    charts = charts_of(tmp_path, *found, evaluation(5.0, nfe=100, solver="euler", seed=1))
    assert list(charts) == [COST]
    chart = charts[COST]
    assert [line.label for line in chart.lines] == ["euler", "heun"]
    assert chart.note == "1,000 images of training, ema-0.998, bars: one standard error each way"
    assert chart.x_label == "NFE (log scale)"
    euler, heun = chart.lines
    assert [mark.tooltip for mark in euler.marks] == [
        "euler: 9 ± 0.12 at 4 NFE",
        "euler: 3 ± 0.12 at 100 NFE",
        "euler: 5 ± 0.12 at 100 NFE",
    ]
    assert euler.marks[1].x == euler.marks[2].x == heun.marks[0].x
    assert heun.path == ""
    end = float(euler.path.split(",")[-1])
    assert end == pytest.approx((euler.marks[1].y + euler.marks[2].y) / 2, abs=0.2)


def test_distance_against_training(tmp_path: Path) -> None:
    """Only evaluations with the same sampling settings make a curve; adaptive solvers may have needed another NFE."""
    found = [evaluation(9.0 - images / 500, images, nfe) for images, nfe in [(1_000, 20), (2_000, 20)]]
    adaptive = [
        evaluation(8.0 - images / 500, images, nfe, solver="dopri5", steps=None, tolerance=0.01)
        for images, nfe in [(1_000, 62), (2_000, 68)]
    ]
    charts = charts_of(tmp_path, *found, *adaptive, evaluation(1.0, 2_000, 44, solver="rk4"))
    chart = charts[TRAINING]
    assert [line.label for line in chart.lines] == ["dopri5, tolerance 0.01", "midpoint, 10 steps"]
    assert [len(line.marks) for line in chart.lines] == [2, 2]
    assert chart.note == "ema-0.998, seed 0, bars: one standard error each way"
    assert "2,000 images of training, rk4" in [line.label for line in charts[COST].lines]


def test_settings_that_are_not_set_are_as_none(tmp_path: Path) -> None:
    """Reports of older versions leave out settings that newer ones write as None."""
    charts = charts_of(tmp_path, evaluation(2.0, 1_000), evaluation(1.0, 2_000, guidance=None, start=None))
    assert [len(line.marks) for line in charts[TRAINING].lines] == [2]


def test_single_evaluations_make_no_chart(tmp_path: Path) -> None:
    """Two checkpoints, two settings: neither training nor cost alone makes the difference."""
    assert charts_of(tmp_path, evaluation(2.0, 1_000, 20), evaluation(1.0, 2_000, 40)) == {}


def test_a_term_of_the_loss_is_drawn_where_there_are_several() -> None:
    one = curves_of([line(10), line(20)])
    assert [chart.identifier for chart in one] == ["loss", "gradient-norm", "learning-rate", "throughput"]
    several = curves_of([line(10, growth_error=-1.0), line(20, growth_error=2.0)])
    assert [chart.identifier for chart in several] == ["loss", "terms", "gradient-norm", "learning-rate", "throughput"]
    assert [line.label for line in several[1].lines] == ["velocity error", "growth error"]


def test_curves_choose_their_scales() -> None:
    """The loss over more than a factor of 5 is logarithmic, not so if it is ever 0 or below; learning rate and throughput begin at 0."""
    steep = {chart.identifier: chart for chart in curves_of([line(10, loss=6.0), line(20)])}
    assert steep["loss"].y_label == "loss (log scale)"
    assert steep["learning-rate"].y_label == "learning rate (× 10⁻³)"
    assert steep["throughput"].y_ticks[0].label == "0"
    assert steep["throughput"].y_label == "images per second"
    negative = {chart.identifier: chart for chart in curves_of([line(10, loss=600.0), line(20, loss=0.0)])}
    assert negative["loss"].y_label == "loss"


# --- charts and axes ------------------------------------------------------------------------------------------------------------


def test_ticks_are_round_numbers_around_the_values() -> None:
    for low, high, ticks in [
        (0, 1, (0, 0.2, 0.4, 0.6, 0.8, 1)),
        (0, 100, (0, 20, 40, 60, 80, 100)),
        (0.07, 0.93, (0, 0.2, 0.4, 0.6, 0.8, 1)),
        (101, 109, (100, 102, 104, 106, 108, 110)),
        (-3, 4, (-4, -2, 0, 2, 4)),
        (7.5, 22.2, (5, 10, 15, 20, 25)),
        (1e-7, 3e-7, (0, 1e-7, 2e-7, 3e-7)),
        (-30, -11, (-30, -25, -20, -15, -10)),
        (-30, -10, (-30, -20, -10, 0)),
        (10, 30, (0, 10, 20, 30)),
        (11, 30, (10, 15, 20, 25, 30)),
    ]:
        axis = linear_axis([high, low])
        assert axis.ticks == ticks
        assert (axis.low, axis.high) == (ticks[0], ticks[-1])
        assert not axis.logarithmic


def test_every_linear_axis_is_sound() -> None:
    """Over many sizes: 1, 2 or 5 times a power of ten between ticks, few of them, the values inside."""
    for size in range(-12, 13):
        for high in (1.0, 1.37, 2.0, 4.99, 5.01, 9.999):
            for low in (-high, 0.0, 0.1 * high, 0.6 * high, 0.999 * high):
                values = [low * 10.0**size, high * 10.0**size]
                axis = linear_axis(values)
                steps = [later - earlier for earlier, later in zip(axis.ticks, axis.ticks[1:], strict=False)]
                digit = float(f"{steps[0]:e}".split("e")[0])
                assert min(abs(digit - number) for number in (1, 2, 5, 10)) < 1e-4
                assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-6)
                assert 3 <= len(axis.ticks) <= 8
                slack = 1e-6 * steps[0]  # a value that is a tick but for rounding is one
                assert axis.low - slack <= values[0] < values[1] <= axis.high + slack
                assert all(len(label) <= 9 for label in axis.labels)
                assert len(set(axis.labels)) == len(axis.labels)


def test_a_tight_axis_ends_at_the_values_with_ticks_inside() -> None:
    axis = linear_axis([6_400, 176_000], zero=True, tight=True)
    assert (axis.low, axis.high, axis.ticks) == (0, 176_000, (0, 50_000, 100_000, 150_000))
    assert axis.labels == ["0", "50", "100", "150"]
    assert axis.unit == "thousands"
    assert linear_axis([0.3], zero=True, tight=True).ticks == (0, 0.1, 0.2, 0.3)


def test_axes_of_a_single_value() -> None:
    """It is put in the middle, or at its place above zero."""
    for value in (5.0, -5.0, 1e-9, 3e20):
        axis = linear_axis([value])
        assert axis.position(value) == pytest.approx(0.5, abs=0.17)
        assert len(axis.ticks) >= 3
    assert linear_axis([0.0, 0.0]).ticks == (0, 0.2, 0.4, 0.6, 0.8, 1)
    assert linear_axis([4.0, 4.0], zero=True).ticks == (0, 1, 2, 3, 4)
    assert logarithmic_axis([10.0, 10.0]).position(10.0) == pytest.approx(0.5)
    noise = linear_axis([1e15, 1e15 + 0.125])
    assert noise.low < 1e15 < noise.high
    assert len(set(noise.ticks)) == len(noise.ticks)


def test_axes_of_the_largest_and_smallest_numbers() -> None:
    for values in ([-1e300, 1e300], [0.0, 5e-324], [5e-324, 1e300], [1e-310, 1e-310], [5e-324], [-5e-324, 3e-320]):
        for axis in (linear_axis(values), linear_axis(values, zero=True, tight=True), fitting_axis(values)):
            assert axis.low <= min(values) <= max(values) <= axis.high
            assert 0 <= axis.position(values[0]) <= axis.position(values[-1]) <= 1
            assert len(axis.labels) >= 2
            assert all(len(label) < 10 for label in axis.labels)


def test_logarithmic_axes() -> None:
    for values, low, high, ticks in [
        ([4, 171], 4, 200, (5, 10, 20, 50, 100, 200)),
        ([3.1, 11], 3, 20, (5, 10, 20)),
        ([21, 84], 20, 90, (20, 30, 40, 50, 60, 70, 80, 90)),
        ([2e-4, 0.7], 2e-4, 0.7, (1e-3, 1e-2, 1e-1)),
        ([1e-12, 1e12], 1e-12, 1e12, tuple(float(f"1e{exponent}") for exponent in range(-12, 13, 4))),
    ]:
        axis = logarithmic_axis(values)
        assert axis.logarithmic
        assert (axis.low, axis.high, axis.ticks) == (low, high, ticks)
    axis = logarithmic_axis([1, 100])
    assert [axis.position(value) for value in (1, 10, 100)] == pytest.approx([0, 0.5, 1])
    assert logarithmic_axis([1e-5, 10.0]).labels == ["10⁻⁵", "10⁻⁴", "0.001", "0.01", "0.1", "1", "10"]
    assert logarithmic_axis([1.0, 2e6]).labels == ["1", "10", "100", "1,000", "10,000", "10⁵", "10⁶"]
    assert logarithmic_axis([2e-5, 3e-5]).labels == ["2×10⁻⁵", "3×10⁻⁵"]


def test_logarithmic_axes_have_no_place_for_zero_and_below() -> None:
    for value in (0.0, -2.0):
        with pytest.raises(ValueError, match="needs positive values"):
            logarithmic_axis([1.0, value])
        assert not fitting_axis([1e9, value]).logarithmic
    assert fitting_axis([1.0, 5.0]).logarithmic
    assert not fitting_axis([1.0, 4.9]).logarithmic
    assert logarithmic_axis([1.0, 100.0]).position(-3.0) == 0.0


def test_labels_are_short() -> None:
    assert linear_axis([0, 0.004]).labels == ["0", "1", "2", "3", "4"]
    assert linear_axis([0, 0.004]).unit == "× 10⁻³"
    assert linear_axis([0, 2e6]).labels == ["0", "0.5", "1", "1.5", "2"]
    assert linear_axis([0, 2e6]).unit == "millions"
    assert linear_axis([-4_000, 4_000]).labels == ["−4,000", "−2,000", "0", "2,000", "4,000"]
    assert linear_axis([0, 8_000]).unit == ""
    assert linear_axis([0, 12_000], tight=True).unit == "thousands"


def test_points_lie_where_the_axes_say() -> None:
    x_axis, y_axis = linear_axis([0, 10]), linear_axis([0, 100])
    points = [Point(0, 0), Point(5, 25, error=12.5), Point(10, 100)]
    chart = make_chart("key", "Title", [Series("", points)], x_axis, y_axis, "x", "y")
    width = WIDTH - RIGHT - chart.left
    expected = [(chart.left, TOP + PLOT_HEIGHT), (chart.left + width / 2, TOP + 0.75 * PLOT_HEIGHT), (WIDTH - RIGHT, TOP)]
    marks = chart.lines[0].marks
    assert [(mark.x, mark.y) for mark in marks] == [pytest.approx(place, abs=0.06) for place in expected]
    assert (marks[1].low, marks[1].high) == pytest.approx((TOP + 0.875 * PLOT_HEIGHT, TOP + 0.625 * PLOT_HEIGHT), abs=0.06)
    assert chart.lines[0].path == "M" + "L".join(f"{mark.x},{mark.y}" for mark in marks)
    assert [tick.at for tick in chart.y_ticks] == pytest.approx(
        [TOP + PLOT_HEIGHT * share for share in (1, 0.8, 0.6, 0.4, 0.2, 0)], abs=0.06
    )
    assert chart.description == "y against x. 3 points, from 0 at 0 to 100 at 10; lowest 0 at 0, highest 100 at 10."
    assert chart.height == chart.bottom + 44


def test_series_can_be_told_apart_and_named() -> None:
    series = [Series(f"solver {place}, of some length", [Point(1, place), Point(2, place)]) for place in range(12)]
    chart = make_chart("key", "Title", series, linear_axis([1, 2]), linear_axis([0, 11]), "x", "y")
    assert len({(line.style, line.hollow) for line in chart.lines}) == len({(line.style, line.dash) for line in chart.lines}) == 12
    places = [line.legend for line in chart.lines]
    assert len(set(places)) == 12
    assert max(x for x, _ in places) + 44 + 6.4 * len(series[-1].label) <= WIDTH
    assert max(y for _, y in places) <= chart.height


def test_long_lines_are_thinned_without_losing_a_spike() -> None:
    heights = [math.sin(place / 500) for place in range(20_000)]
    heights[14_321] = 50.0
    heights[-1] = heights[-4]  # the end is no extreme
    points = [Point(place, height) for place, height in enumerate(heights)]
    thinned = thin(points)
    assert 400 < len(thinned) <= 483
    assert thinned == sorted(thinned, key=lambda point: point.x)
    assert (thinned[0], thinned[-1]) == (points[0], points[-1])
    assert points[14_321] in thinned
    assert min(thinned, key=lambda point: point.y) == min(points, key=lambda point: point.y)
    assert thin(points[:480]) == points[:480]
    chart = make_chart("key", "Title", [Series("", points)], linear_axis([0, 2e4]), linear_axis([-1, 50]), "x", "y")
    assert chart.lines[0].marks == []
    assert chart.lines[0].path.count("L") == len(thinned) - 1


def test_numbers_and_times_for_people() -> None:
    assert [number(value) for value in (0, 176_000, 0.000123456, 2.0, 1e20)] == ["0", "176,000", "0.0001235", "2", "1e+20"]
    assert [duration(value) for value in (0.0212, 61, 150, 5_940, 6_000)] == ["0.0212 s", "61 s", "2 min", "99 min", "1 h 40 min"]


# --- a browser ------------------------------------------------------------------------------------------------------------------

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


def browse(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a file in a browser without a window or a network."""
    assert BROWSER is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        quiet = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
        )
        command = [BROWSER, *quiet.split(), "--disable-sync", f"--user-data-dir={profile}", "--enable-logging=stderr", "--v=0"]
        return subprocess.run([*command, *options, file.as_uri()], capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on the path")
def test_a_browser_shows_the_page_without_complaint(tmp_path: Path) -> None:
    run, screenshot = full_run(tmp_path / "run"), tmp_path / "page.png"
    assert run_cli("report", run).code == 0
    file = run / "report.html"
    shown = browse(file, "--dump-dom")
    assert "CONSOLE" not in shown.stderr
    page = Page(shown.stdout)
    assert page.texts["h2"] == SECTIONS
    assert len(page.all("svg")) == 7
    browse(file, f"--screenshot={screenshot}", "--window-size=1200,800")
    with Image.open(screenshot) as screen:
        assert screen.size == (1200, 800)
        assert len(screen.convert("RGB").getcolors(1 << 20) or []) > 20

    # Violations of the page's own policy appear on the console, so its silence above means something.
    file.write_text(file.read_text().replace("</main>", '<img src="https://example.invalid/x.png" alt=""><script>alert(1)</script></main>'))
    complaints = browse(file, "--dump-dom").stderr
    assert complaints.count("violates the following Content Security Policy directive") == 2
