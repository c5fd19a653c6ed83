"""Averages of the weights: rates per step and half-lives in images, their names, and where they are chosen."""

import itertools
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from helpers import TINY, assert_same_tensors, newest_tensors, run_cli, sets

from amgen import config
from amgen.model import checkpoints, export
from amgen.model.build import build_times
from amgen.training.ema import ExponentialAverages, decay, image_decay
from amgen.training.main import train

HALF_LIVES = ["training.ema=[48, 1000]", "training.sample_every=0"]


def averaged(rate: float, batch_size: int, images: int) -> list[float]:
    """Average the weight w = (cos(u / 3000), u / 10000) after u images; return the average after every 640 images."""
    module = torch.nn.Linear(1, 2, bias=False, dtype=torch.float64)
    averages = ExponentialAverages(module, [rate], batch_size)
    found: list[float] = []
    for step in range(1, images // batch_size + 1):
        seen = step * batch_size
        with torch.no_grad():
            module.weight.copy_(torch.tensor([[math.cos(seen / 3000)], [seen / 10000]]))
        averages.update(step)
        if seen % 640 == 0:
            found += averages.averages[rate]["weight"].flatten().tolist()
    return found


def test_a_half_life_gives_the_same_average_at_any_batch_size() -> None:
    """In the warm-up, which ends at 9 x 2000 / ln 2 = 26,000 images, and beyond, to what the weights move in half a batch of 64.

    A rate per step does not: at four times the batch it remembers four times as many images.
    """
    small, large = averaged(2000, 16, 40_000), averaged(2000, 64, 40_000)
    assert small == pytest.approx(large, abs=32 / 3000)
    small, large = averaged(0.99, 16, 40_000), averaged(0.99, 64, 40_000)
    assert small != pytest.approx(large, abs=0.1)


def test_shares_of_steps_multiply() -> None:
    """d over 128 images is the product of d over its parts, whatever they are, before, across and after the end of the warm-up."""
    for start in (0, 128, 6400, 25_984, 90_000):
        edges = [start, start + 16, start + 64, start + 80, start + 128]
        parts = math.prod(image_decay(2000, before, after) for before, after in itertools.pairwise(edges))
        assert parts == pytest.approx(image_decay(2000, start, start + 128), rel=1e-12)


def test_a_half_life_is_one() -> None:
    """Past the warm-up half is left after so many images; in it, d -> (1 + n) / (10 + n), here to its next term 90 / n^2."""
    assert image_decay(2000, 50_000, 52_000) == pytest.approx(0.5, rel=1e-12)
    assert decay(1e9, 1, 64) == 0  # the initial weights are forgotten at once
    for step in (100, 1000):
        assert decay(1e9, step, 64) == pytest.approx((1 + step) / (10 + step), abs=90 / step**2)


def test_a_rate_below_one_keeps_its_meaning() -> None:
    """d = min(rate, (1 + n) / (10 + n)) at any batch size."""
    for batch_size in (16, 64):
        assert [decay(0.9, step, batch_size) for step in range(1, 100)] == [min(0.9, (1 + n) / (10 + n)) for n in range(1, 100)]
        assert decay(0.0, 5, batch_size) == 0


def test_names_and_bounds() -> None:
    names = {0.998: "ema-0.998", 44_352.0: "ema-44352", 1.0: "ema-1", 1.5: "ema-1.5", 1e12: "ema-1000000000000", 0.9999999: "ema-0.9999999"}
    assert {rate: checkpoints.ema_name(rate) for rate in names} == names
    for value in ("-0.1", "1e13", "-44352", ".inf"):
        outcome = run_cli("train", "digits", "--dry-run", "--set", f"training.ema=[{value}]")
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert "training.ema" in outcome.err
    outcome = run_cli("train", "digits", "--dry-run", "--set", "training.ema=[44352, 44352.0]")
    assert (outcome.code, "names a rate twice" in outcome.err) == (2, True)


def test_half_lives_in_a_run(tmp_path: Path) -> None:
    """Checkpoints, the record, resuming, `--ema` and exports know a half-life by its number; the average follows the formula."""
    folder = tmp_path / "run"
    train(config.load("digits", [*TINY, *HALF_LIVES, "training.images=48", "training.checkpoint_every=16", "training.keep_last=9"]), folder)
    average: dict[str, torch.Tensor] = {}
    for number, path in enumerate(checkpoints.all_checkpoints(folder)):
        weights = checkpoints.load(path).weights
        share = image_decay(48, 16 * number, 16 * number + 16)
        average = {
            name: share * average.get(name, torch.zeros(())) + (1 - share) * weight for name, weight in weights[checkpoints.ACTION].items()
        }
        for name, value in weights["ema-48"].items():
            torch.testing.assert_close(value, average[name], rtol=1e-5, atol=1e-6)
    train(config.load("digits", [*TINY, *HALF_LIVES]), folder)
    train(config.load("digits", [*TINY, *HALF_LIVES]), tmp_path / "whole")
    assert_same_tensors(newest_tensors(folder), newest_tensors(tmp_path / "whole"))
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"ema_distance/48", "ema_distance/1000"} <= set(line)
    for rate in ("48", "1000"):
        outcome = run_cli("sample", folder, "-n", "2", "--ema", rate, "--grid", tmp_path / "grid.png")
        assert (outcome.code, f"weights ema-{rate}," in outcome.out) == (0, True), outcome.err
        outcome = run_cli("export", folder, "--ema", rate, "--out", tmp_path / f"{rate}.safetensors")
        assert outcome.code == 0, outcome.err
        assert export.read_weights(tmp_path / f"{rate}.safetensors", float(rate)).name == f"ema-{rate}"
    outcome = run_cli("sample", folder, "-n", "2", "--ema", "44352")
    assert (outcome.code, "no averaged weights of rate 44352: choose one of 48, 1000" in outcome.err) == (2, True)
    outcome = run_cli("eval-fid", folder, "--features", "digits", "-n", "10", "--sweep", "steps=2,3", "--ema", "1000")
    assert outcome.code == 0, outcome.err
    reports = [file.read_text() for file in (folder / "eval").glob("*.json")]
    assert reports
    assert all("ema-1000" in report for report in reports)


def test_a_run_with_a_rate_per_step_goes_on(trained: Path, tmp_path: Path) -> None:
    """Its files keep their names, and the same options resume it."""
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    outcome = run_cli("train", "digits", "--run-dir", folder, *sets([*TINY, "training.images=112"]))
    assert outcome.code == 0, outcome.err
    assert {"ema-0.998.safetensors", "ema-0.99.safetensors"} < {file.name for file in checkpoints.find(folder).iterdir()}


def test_presets_remember_what_they_did() -> None:
    """Half-lives are those of the rates per step that the presets' scores were measured with, to 0.5 %."""
    before = {"digits": [0.998, 0.99], "cifar10-small": [0.999, 0.9999], "cifar10": [0.9999, 0.999], "cells": [0.998], "hydrogen": [0.999]}
    for name, rates in before.items():
        training = config.load(name).training
        expected = [training.batch_size * math.log(0.5) / math.log(rate) for rate in rates]
        assert training.ema == pytest.approx(expected, rel=0.005)
    assert all(rate >= 1 for name in config.preset_names() for rate in config.load(name).training.ema)
    assert config.Config().training.ema == pytest.approx([64 * math.log(0.5) / math.log(0.999)], rel=0.005)


def test_adaptive_times_remember_images() -> None:
    """A memory of 1 and above is a half-life: what is left after a step of B images is 0.5^(B / memory); below 1 it is what it was."""
    for text, batch_size, left in (("256", 64, 0.5**0.25), ("256", 16, 0.5**0.0625), ("0.9", 64, 0.9), ("0.9", 16, 0.9)):
        options = config.load(
            "digits", ["times.kind=adaptive", "times.bins=1", f"times.memory={text}", f"training.batch_size={batch_size}"]
        )
        times = build_times(options)
        for count in (4, 0):
            times.learn(times.statistics(torch.full((count,), 0.5), torch.ones(count)))
        assert times.state()[0] == pytest.approx([4 * left])
