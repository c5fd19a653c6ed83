"""Latent codes: images encoded as noise and decoded again, with the classes, the guidance and the weights that they belong to."""

import json
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY, run_cli
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from amgen import config, sampling
from amgen.core.errors import UserError
from amgen.core.files import sha256
from amgen.data import open_dataset
from amgen.model import checkpoints
from amgen.model.build import build_action
from amgen.sampling import Request
from amgen.sampling.codes import LatentCodes, decoding_settings, read_codes
from amgen.training.main import train

LEVEL = 2 / 255
"""A gray level, where images lie in [-1, 1]."""


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits with classes and guidance 3; the embedding of the classes is enlarged, because six steps teach it little."""
    run = tmp_path_factory.mktemp("guided") / "run"
    train(config.load("digits", [*TINY, "action.classes=10", "action.label_dropout=0.2", "sampling.guidance=3"]), run)
    folder = checkpoints.find(run)
    file = folder / "ema-0.998.safetensors"
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    save_file({name: tensor * (20 if "classes" in name else 1) for name, tensor in tensors.items()}, file, metadata)
    manifest = {entry.name: sha256(entry) for entry in folder.iterdir() if entry.name != "manifest.json"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return run


@pytest.fixture(scope="module")
def code(conditional: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 6 digits, encoded."""
    file = tmp_path_factory.mktemp("codes") / "noise.npz"
    outcome = run_cli("encode", conditional, "-n", "6", "--tolerance", "1e-5", "--out", file)
    assert outcome.code == 0, outcome.err
    assert "guidance 3.0" in outcome.out
    assert "classes of each image" in outcome.out
    return file


def decoded(folder: Path) -> torch.Tensor:
    """Drawn images, in gray levels."""
    return open_dataset(config.DataConfig(path=str(folder))).images(range(6)).int()


def test_codes_made_with_guidance_are_decoded_to_their_images(conditional: Path, code: Path, tmp_path: Path) -> None:
    """By themselves, within the reported error and half a gray level of rounding; with other guidance elsewhere, which is said."""
    digits = open_dataset(config.load("digits").data)
    with np.load(code) as arrays:
        error = float(arrays["error"].max())
        assert arrays["labels"].tolist() == digits.labels[:6].tolist()
    assert error < LEVEL / 10
    outcome = run_cli("sample", conditional, "--noise", code, "--out", tmp_path / "same")
    assert outcome.code == 0, outcome.err
    assert f"{code}: made with solver dopri5, tolerance 1e-05, guidance 3.0" in outcome.out
    differences = (decoded(tmp_path / "same") - digits.images(range(6)).int()).abs().max()
    assert int(differences) <= error / LEVEL + 0.5
    for option, value, said in (
        ("--guidance", "1", "guidance 1 differs from that of the noise: the images will be different"),
        ("--label", "3", "label 3 is not the class of all of the noise: the images will be different"),
    ):
        outcome = run_cli("sample", conditional, "--noise", code, option, value, "--out", tmp_path / value)
        assert outcome.code == 0, outcome.err
        assert said in outcome.out
        assert (decoded(tmp_path / value) - digits.images(range(6)).int()).abs().max() > 3


def test_codes_record_what_they_were_made_with(conditional: Path, code: Path) -> None:
    model = sampling.load(conditional)
    settings = read_codes(code, (1, 8, 8)).settings
    expected = {
        "weights_sha256": model.weights_sha256,
        "guidance": 3.0,
        "classes": "of each image",
        "solver": "dopri5",
        "tolerance": 1e-5,
        "data": "the embedded digits",
    }
    assert {key: settings[key] for key in expected} == expected


def test_codes_of_other_weights_are_refused(conditional: Path, trained: Path, code: Path, tmp_path: Path) -> None:
    outcome = run_cli("sample", conditional, "--raw", "--noise", code, "--out", tmp_path / "a")
    assert (outcome.code, "was made with other weights (SHA-256" in outcome.err, outcome.err.count("\n")) == (2, True, 1), outcome.err
    outcome = run_cli("sample", trained, "--noise", code, "--out", tmp_path / "b")
    assert (outcome.code, "has classes that this model does not know" in outcome.err) == (2, True), outcome.err


def test_noise_without_settings_is_used_as_it_is(conditional: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", noise=np.zeros((2, 1, 8, 8), np.float32))
    outcome = run_cli("sample", conditional, "--noise", tmp_path / "own.npz", "--steps", "1", "--grid", tmp_path / "g.png")
    assert outcome.code == 0, outcome.err
    assert "does not say which weights, guidance and classes its noise was made with" in outcome.out


def test_options_of_the_user_replace_those_of_the_codes() -> None:
    """A solver of one's own with its own settings, the recorded guidance; other images or choices to start from are refused."""
    options = config.load("digits", [*TINY, "path.kind=in-painting"])
    model = sampling.assemble(options, build_action(options), "action", 0, Path())
    digits = open_dataset(options.data)
    made = {"weights_sha256": model.weights_sha256, "data_fingerprint": digits.source.fingerprint(), "seed": 4}
    made |= {"guidance": 2.0, "solver": "rk4", "steps": 7}
    codes, request = LatentCodes(torch.zeros(1, 1, 8, 8), None, made), Request(4, images=digits)
    file = Path("n.npz")
    assert decoding_settings(file, codes, model, {"steps": None}, request)[0] == {
        **{"solver": "rk4", "steps": 7, "noise_level": 0.0},
        "guidance": 2.0,
    }
    assert decoding_settings(file, codes, model, {"steps": 3}, request)[0] == {"steps": 3, "guidance": 2.0}
    with pytest.raises(UserError, match="was made with --seed 4, not 5: give that one"):
        decoding_settings(file, codes, model, {}, Request(5, images=digits))
    made["data_fingerprint"] = "another"
    with pytest.raises(UserError, match=r"was made from other images than the embedded digits: give them \(--condition-data\)"):
        decoding_settings(file, codes, model, {}, request)


def promised(file: Path) -> None:
    """An array of 10^12 entries of which 8 bytes are there."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**12}, 1, 8, 8), }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("noise.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 8)


def cut(file: Path) -> None:
    np.savez(file, noise=np.zeros((2, 1, 8, 8), np.float32))
    data = file.read_bytes()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("noise.npy", data[:200])


def with_arrays(**arrays: np.ndarray) -> Callable[[Path], None]:
    noise = {"noise": np.zeros((2, 1, 8, 8), np.float32)}
    return lambda file: np.savez(file, **{**noise, **arrays})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda file: file.write_bytes(b""), "is not a zip file"),
        (promised, "which the file does not hold"),
        (cut, "cannot read"),
        (lambda file: np.savez(file, points=np.zeros(3)), "it has no array named noise"),
        (with_arrays(noise=np.array([None], dtype=object)), "expected floats (N, 1, 8, 8)"),
        (with_arrays(noise=np.zeros((2, 3, 8, 8), np.float32)), "expected floats (N, 1, 8, 8)"),
        (with_arrays(noise=np.zeros((0, 1, 8, 8), np.float32)), "expected floats (N, 1, 8, 8)"),
        (with_arrays(noise=np.zeros((2, 1, 8, 8), np.uint8)), "expected floats"),
        (with_arrays(noise=np.zeros((2, 1, 8, 8), "M8[s]")), "expected floats"),
        (with_arrays(noise=np.full((2, 1, 8, 8), np.nan, np.float32)), "not finite"),
        (with_arrays(labels=np.zeros(3, np.int64)), "3 labels for 2 images"),
        (with_arrays(labels=np.array(["a", "b"])), "cannot read"),
        (with_arrays(settings=np.array("{")), "cannot read"),
        (with_arrays(settings=np.array("[1]")), "its settings are not a table"),
    ],
)
def test_noise_of_another_kind_is_refused(write: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    """In one line that names the file, whatever it promises."""
    file = tmp_path / "noise.npz"
    write(file)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_codes(file, (1, 8, 8))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_noise_ends_the_command(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.npz").touch()
    for name, message in (("empty.npz", "is not a zip file"), ("none.npz", "there is no such file"), (".", "there is no such file")):
        outcome = run_cli("sample", trained, "--noise", tmp_path / name, "--grid", tmp_path / "g.png")
        assert (outcome.code, message in outcome.err, outcome.err.count("\n")) == (2, True, 1), outcome.err
