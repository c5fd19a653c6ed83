import errno
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run_cli
from safetensors.torch import load_file, save_file

from amgen.config import Config
from amgen.core import files
from amgen.core.errors import UserError
from amgen.model import checkpoints, export, weights_file
from amgen.model.checkpoints import Checkpoint, Progress


def make(step: int, value: float = 1.0) -> Checkpoint:
    progress = Progress(step=step, images=step * 4, window={"loss": 0.1, "steps": 2.0}, data="abc")
    weights = {"action": {"w": torch.full((3,), value)}, "ema-0.9": {"w": torch.zeros(3)}}
    return Checkpoint(Config(), progress, weights, {"w:step": torch.tensor(5.0)})


def test_round_trip(tmp_path: Path) -> None:
    written = make(7)
    found = checkpoints.load(checkpoints.save(tmp_path, written))
    assert found.config == written.config
    assert found.progress == written.progress
    assert found.weights.keys() == written.weights.keys()
    assert torch.equal(found.weights["action"]["w"], torch.ones(3))
    assert torch.equal(found.optimizer["w:step"], torch.tensor(5.0))
    assert [entry.name for entry in checkpoints.folder_of(tmp_path).iterdir()] == ["step-00000007"]


def test_saving_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, make(7))
    folder = checkpoints.save(tmp_path, make(7, value=2.0))
    assert checkpoints.load(folder).weights["action"]["w"][0] == 2


@pytest.mark.parametrize("name", ["action.safetensors", "ema-0.9.safetensors", "optimizer.safetensors", "state.json"])
def test_damage_is_found_and_named(name: str, tmp_path: Path) -> None:
    folder = checkpoints.save(tmp_path, make(7))
    file = folder / name
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(UserError, match=f"{name} is damaged"):
        checkpoints.load(folder)
    file.unlink()
    with pytest.raises(UserError, match=f"lacks {name}"):
        checkpoints.load(folder)


def test_a_folder_without_manifest_is_not_a_checkpoint(tmp_path: Path) -> None:
    folder = checkpoints.save(tmp_path, make(7))
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"not a whole checkpoint: cannot read its manifest.json"):
        checkpoints.load(folder)


@pytest.mark.parametrize("failing", ["fsync", "save_file"])
def test_full_disk_leaves_the_last_good_one(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = checkpoints.save(tmp_path, make(7))

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files if failing == "fsync" else weights_file, failing, full)
    with pytest.raises(UserError, match=f"No space left on device.*the last good one is {good}"):
        checkpoints.save(tmp_path, make(8))
    assert [entry.name for entry in checkpoints.folder_of(tmp_path).iterdir()] == [good.name]
    assert checkpoints.load(good).progress.step == 7


def test_rotation_keeps_the_newest_and_the_milestones(tmp_path: Path) -> None:
    for step in range(1, 11):
        checkpoints.save(tmp_path, make(step))
        checkpoints.rotate(tmp_path, keep_last=2, keep_every_steps=4)
    assert [checkpoints.step_of(path) for path in checkpoints.all_checkpoints(tmp_path)] == [4, 8, 9, 10]
    checkpoints.rotate(tmp_path, keep_last=1, keep_every_steps=0)
    assert [checkpoints.step_of(path) for path in checkpoints.all_checkpoints(tmp_path)] == [10]


def test_weights_of_another_architecture_are_refused() -> None:
    module = torch.nn.Linear(2, 3)
    with pytest.raises(UserError, match="another architecture.*lacks bias"):
        export.load_weights(module, {"weight": torch.zeros(3, 2)}, "file")
    with pytest.raises(UserError, match=r"weight has shape \(3, 5\), expected \(3, 2\)"):
        export.load_weights(module, {"weight": torch.zeros(3, 5), "bias": torch.zeros(3)}, "file")
    with pytest.raises(UserError, match="the network lacks extra"):
        export.load_weights(module, {**module.state_dict(), "extra": torch.zeros(1)}, "file")


def test_rates_near_one_have_names_of_their_own() -> None:
    assert checkpoints.ema_name(0.9999999) == "ema-0.9999999"


def test_an_exported_file_is_the_model(trained: Path, tmp_path: Path) -> None:
    """The same images as the run's, of the rate asked for, in a folder that knows nothing of the run."""
    import amgen

    for ema, rate in ((None, 0.998), (0.99, 0.99)):
        file = tmp_path / f"{rate}.safetensors"
        arguments = () if ema is None else ("--ema", str(ema))
        outcome = run_cli("export", trained, *arguments, "--out", file)
        assert outcome.code == 0, outcome.err
        assert f"ema-{rate}" in outcome.out
        model = amgen.load(file)
        assert torch.equal(model.sample(4), amgen.load(trained, ema=rate).sample(4))
        assert (model.images, model.weights) == (96, f"ema-{rate}")
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []
    outcome = run_cli("sample", tmp_path / "0.99.safetensors", "--num", "4", "--grid", tmp_path / "g.png")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "g.png").exists()
    outcome = run_cli("sample", tmp_path / "0.99.safetensors", "--ema", "0.998")
    assert (outcome.code, "holds the weights ema-0.99 alone, not ema-0.998" in outcome.err) == (2, True)


def test_what_is_no_export_is_refused(trained: Path, tmp_path: Path) -> None:
    assert "expected a name that ends in .safetensors" in run_cli("export", trained, "--out", tmp_path / "model.pt").err
    assert "no averaged weights of rate 0.5: choose one of 0.998, 0.99" in run_cli("export", trained, "--ema", "0.5").err
    part = checkpoints.find(trained) / "action.safetensors"
    assert f"is part of a checkpoint: give its folder {part.parent}" in run_cli("sample", part).err
    file = tmp_path / "model.safetensors"
    export.export(export.read_weights(trained, raw=True), file)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="are damaged"):
        export.read_weights(file)
    file.write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot read"):
        export.read_weights(file)


def test_a_disk_that_is_full_leaves_the_file_that_was_there(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.safetensors"
    export.export(export.read_weights(trained), file)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights_file, "save_file", full)
    with pytest.raises(UserError, match="No space left on device"):
        export.export(export.read_weights(trained, raw=True), file)
    assert export.read_weights(file).name == "ema-0.998"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_what_killed_processes_were_writing_is_cleared_away(tmp_path: Path) -> None:
    """A folder that is deleted in part is no checkpoint, and the next write removes it."""
    checkpoints.save(tmp_path, make(1))
    folder = checkpoints.folder_of(tmp_path)
    (folder / ".step-00000002.tmp").mkdir()
    (folder / ".step-00000001.removed.tmp").mkdir()
    (folder / ".state.json.123.tmp").write_text("half")
    assert checkpoints.latest(tmp_path) == folder / "step-00000001"
    checkpoints.save(tmp_path, make(3))
    assert [entry.name for entry in sorted(folder.iterdir())] == ["step-00000001", "step-00000003"]


def test_weights_are_known_by_their_contents() -> None:
    """The digest is that of names, types, shapes and bytes, written out by hand; one bit, another name, shape or type make another."""
    tensors = {"b": torch.tensor([[1.0, -2.5]]), "a": torch.tensor(3, dtype=torch.int64)}
    expected = hashlib.sha256()
    expected.update(b"a torch.int64 ()" + struct.pack("<q", 3))
    expected.update(b"b torch.float32 (1, 2)" + struct.pack("<2f", 1.0, -2.5))
    assert weights_file.digest(tensors) == expected.hexdigest()
    others = [
        {**tensors, "b": tensors["b"].nextafter(torch.tensor(9.0))},
        {"c": tensors["b"], "a": tensors["a"]},
        {**tensors, "b": tensors["b"].T},
        {**tensors, "b": tensors["b"].view(torch.int32)},
        {**tensors, "b": tensors["b"].bfloat16()},
    ]
    assert len({weights_file.digest(tensors), *(weights_file.digest(other) for other in others)}) == 6


def test_the_digest_goes_with_the_weights(trained: Path, tmp_path: Path) -> None:
    """Of a run, a copy of it and an export the same; of other weights of the run another."""
    averaged = export.read_weights(trained)
    assert averaged.sha256 == weights_file.digest(load_file(checkpoints.find(trained) / "ema-0.998.safetensors"))
    copied = shutil.copytree(checkpoints.find(trained), tmp_path / "moved")
    assert export.read_weights(Path(copied)).sha256 == averaged.sha256
    assert export.read_weights(trained, raw=True).sha256 != averaged.sha256
    outcome = run_cli("export", trained, "--out", tmp_path / "m.safetensors")
    assert averaged.sha256[:12] in outcome.out
    assert export.read_weights(tmp_path / "m.safetensors").sha256 == averaged.sha256


@pytest.mark.parametrize("umask", [0o022, 0o007])
def test_files_have_the_permissions_of_the_umask(umask: int, trained: Path, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        folder = checkpoints.save(tmp_path, make(7))
        export.export(export.read_weights(trained), tmp_path / "m.safetensors")
    finally:
        os.umask(before)
    found = {file.name: file.stat().st_mode & 0o777 for file in [*folder.iterdir(), tmp_path / "m.safetensors"]}
    assert found == dict.fromkeys(found, 0o666 & ~umask)
    assert len(found) == 6


def sealed(folder: Path) -> None:
    """Write a manifest that fits whatever lies in a checkpoint."""
    manifest = {file.name: files.sha256(file) for file in folder.iterdir() if file.is_file() and file.name != "manifest.json"}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def metadata(contents: Any) -> Callable[[Path], None]:
    """Give a weights file other metadata."""
    return lambda file: save_file(load_file(file), file, {"amgen": contents if isinstance(contents, str) else json.dumps(contents)})


def lying_header(file: Path) -> None:
    """A header that places a tensor beyond the end of the file."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)


def in_place_of(file: Path) -> None:
    """A folder where a file should be."""
    file.unlink()
    file.mkdir()


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("action.safetensors", lambda file: file.write_bytes(b""), "cannot read"),
    ("action.safetensors", lambda file: file.write_bytes(struct.pack("<Q", 2**62) + b"{}"), "cannot read"),
    ("action.safetensors", lying_header, "cannot read"),
    ("action.safetensors", in_place_of, "lacks action.safetensors"),
    ("action.safetensors", metadata("{"), "cannot read"),
    ("action.safetensors", metadata("[]"), "does not say its format"),
    ("action.safetensors", metadata({}), "does not say its format"),
    ("action.safetensors", metadata({"format": 2}), "has format 2, this version of amgen reads format 1"),
    ("action.safetensors", metadata({"format": 1}), "does not say its config"),
    ("action.safetensors", metadata({"format": 1, "config": {}}), "does not say its step"),
    ("action.safetensors", metadata({"format": 1, "config": {}, "step": 1, "images": "many"}), "does not say its images"),
    ("action.safetensors", metadata({"format": 1, "config": {"seeed": 1}, "step": 1, "images": 1}), "unknown option 'seeed'"),
    ("optimizer.safetensors", lambda file: file.write_bytes(b"nothing"), "cannot read"),
    ("optimizer.safetensors", in_place_of, "lacks optimizer.safetensors"),
    ("state.json", lambda file: file.write_text("{"), "does not say how far training has come"),
    ("state.json", lambda file: file.write_text("[" * 100_000), "does not say how far training has come"),
    ("state.json", lambda file: file.write_bytes(b"\xff\xfe"), "cannot read"),
    ("state.json", lambda file: file.write_text('{"step": "six"}'), "does not say how far training has come (step)"),
    ("state.json", lambda file: file.write_text('{"steps": 6}'), "does not say how far training has come (steps)"),
]
"""A file of a checkpoint, its damage before the manifest is written, and the message."""


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGES)
def test_damage_that_the_manifest_agrees_with_costs_one_line(
    name: str, damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    folder = checkpoints.save(tmp_path, make(7))
    damage(folder / name)
    sealed(folder)
    with pytest.raises(UserError) as caught:
        checkpoints.load(folder)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    if name == "action.safetensors":
        for read in (lambda: export.read_weights(tmp_path, raw=True), lambda: weights_file.read_config(folder / name)):
            with pytest.raises(UserError) as caught:
                read()
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("manifest", ["[]", "null", "[" * 100_000, '{"state.json": 3}', "{}"])
def test_a_manifest_that_is_none_costs_one_line(manifest: str, tmp_path: Path) -> None:
    folder = checkpoints.save(tmp_path, make(7))
    (folder / "manifest.json").write_text(manifest)
    with pytest.raises(UserError, match=r"cannot read its manifest.json|does not name|is damaged"):
        checkpoints.load(folder)


def test_what_may_not_be_read_costs_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root may read everything, the operating system's answer is put in."""
    folder = checkpoints.save(tmp_path, make(7))

    def denied(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    for owner, name in ((checkpoints, "sha256"), (Path, "iterdir"), (Path, "exists"), (Path, "is_file"), (weights_file, "load_file")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, denied)
            outcome = run_cli("sample", tmp_path, "--raw")
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
        assert "Permission denied: make it readable" in outcome.err, name
        assert "remove" not in outcome.err  # there is nothing wrong with it
    for name in ("x" * 300, "a\0b"):
        outcome = run_cli("sample", tmp_path / name)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
    (folder.parent / f"step-{'9' * 5000}"[:200]).mkdir()
    assert checkpoints.latest(tmp_path) == folder
