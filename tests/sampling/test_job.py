"""Sampling jobs: the same images for any number of processes and interruptions; image grids, trajectories and latent codes."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TINY, amgen_process, run_cli
from PIL import Image, ImageSequence
from safetensors.torch import load_file

import amgen
from amgen import config, sampling
from amgen.core import progress
from amgen.core.checks import parse_indices
from amgen.core.errors import UserError
from amgen.core.processes import Processes
from amgen.core.randomness import Purpose, gaussian
from amgen.data import open_dataset, to_float, to_uint8
from amgen.dynamics import Dynamics
from amgen.model import checkpoints
from amgen.model.weights_file import digest
from amgen.sampling.inversion import encode
from amgen.sampling.job import run_job
from amgen.sampling.trajectory import record
from amgen.sampling.writer import ImageFolder
from amgen.solvers import BrownianMotion
from amgen.training.main import train
from amgen.visualization.grids import image_grid, save_animation


def images(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for file in sorted(folder.glob("*.png")):
        with Image.open(file) as image:
            found[file.name] = np.asarray(image).astype(int)
    return found


def assert_alike(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    """The same images to within one gray level: kernels round differently for other batch shapes."""
    assert first.keys() == second.keys()
    assert max(np.abs(first[name] - second[name]).max() for name in first) <= 1


@pytest.fixture(scope="module")
def generated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated") / "a"
    assert run_cli("sample", trained, "--num", "23", "--batch-size", "64", "--out", folder).code == 0
    return folder


def test_folders_that_name_their_batch_size_are_completed(trained: Path, tmp_path: Path) -> None:
    """As those of npz shards once did."""
    command = ("sample", trained, "--num", "4", "--format", "npz", "--out", tmp_path / "a")
    assert run_cli(*command, "--batch-size", "2").code == 0
    settings = tmp_path / "a" / "sampling.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "batch_size": 2}))
    sorted((tmp_path / "a").glob("*.npz"))[-1].unlink()
    outcome = run_cli(*command, "--batch-size", "3")
    assert (outcome.code, outcome.err) == (0, "")


@pytest.mark.parametrize("batch_size", ["1", "7"])
def test_batch_size_does_not_matter(batch_size: str, trained: Path, generated: Path, tmp_path: Path) -> None:
    assert run_cli("sample", trained, "--num", "23", "--batch-size", batch_size, "--out", tmp_path / "b").code == 0
    assert_alike(images(tmp_path / "b"), images(generated))


def test_a_subset_is_generated_alone(trained: Path, generated: Path, tmp_path: Path) -> None:
    assert run_cli("sample", trained, "--seeds", "5,17-20", "--out", tmp_path / "b").code == 0
    whole = images(generated)
    assert_alike(images(tmp_path / "b"), {name: whole[name] for name in [f"{index:06d}.png" for index in (5, 17, 18, 19, 20)]})


@pytest.mark.parametrize("form", ["png", "npz"])
def test_two_processes_share_the_work(form: str, trained: Path, generated: Path, tmp_path: Path) -> None:
    """Over gloo: every image once, the same as from one process; one report and a whole grid."""
    options = ["-n", "23", "--batch-size", "4", "--format", form, "--out", tmp_path / "b", "--grid", tmp_path / "g.png"]
    process = amgen_process("sample", trained, *options, processes=2)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.count("23 images in") == 1
    if form == "png":
        found = images(tmp_path / "b")
    else:
        assert len(list((tmp_path / "b").glob("*.npz"))) == 6
        found = {}
        for file in (tmp_path / "b").glob("*.npz"):
            with np.load(file) as shard:
                found |= {f"{i:06d}.png": image[..., 0].astype(int) for i, image in zip(shard["indices"], shard["images"], strict=True)}
    assert_alike({name: found[name] for name in sorted(found)}, images(generated))
    assert run_cli("sample", trained, "--num", "23", "--grid", tmp_path / "one.png").code == 0
    with Image.open(tmp_path / "g.png") as two, Image.open(tmp_path / "one.png") as one:
        assert np.abs(np.asarray(one).astype(int) - np.asarray(two)).max() <= 1


@pytest.mark.parametrize("form", ["png", "npz"])
def test_an_interrupted_command_goes_on(form: str, trained: Path, tmp_path: Path) -> None:
    """Images that are there are not generated again, and missing ones are."""
    options = ["sample", trained, "--num", "12", "--batch-size", "4", "--format", form, "--out", tmp_path / "b"]
    assert run_cli(*options).code == 0
    files = sorted((tmp_path / "b").glob(f"*.{form}"))
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}
    files[1].unlink()
    outcome = run_cli(*options)
    assert outcome.code == 0
    there = {"png": 11, "npz": 8}[form]
    assert f"{there} of 12 images are there already" in outcome.out
    assert sorted((tmp_path / "b").glob(f"*.{form}")) == files
    kept = [file for file in files if file.stat().st_mtime_ns == before[file][0]]
    assert len(kept) == {"png": 11, "npz": 2}[form]
    assert files[1].exists()
    assert "12 of 12 images are there already" in run_cli(*options).out


def test_images_made_otherwise_are_not_mixed(trained: Path, generated: Path, tmp_path: Path) -> None:
    outcome = run_cli("sample", trained, "--num", "23", "--steps", "3", "--out", generated)
    assert (outcome.code, "holds images made with steps=2, not 3" in outcome.err) == (2, True)
    (tmp_path / "thesis.txt").write_text("")
    outcome = run_cli("sample", trained, "--num", "2", "--out", tmp_path)
    assert (outcome.code, "was not written by amgen sample" in outcome.err) == (2, True)
    assert json.loads((generated / "sampling.json").read_text())["solver"] == "ab2"


def grid_of(images: torch.Tensor, columns: int | None = None) -> np.ndarray:
    """A grid of gray images, int (H, W)."""
    return np.asarray(image_grid(images, columns=columns).convert("L")).astype(int)


def test_images_of_other_weights_are_not_taken_for_these(trained: Path, tmp_path: Path) -> None:
    """Another training at the same place, of the same name and length; the same weights elsewhere; and a folder that does not say."""
    run, out = Path(shutil.copytree(trained, tmp_path / "run")), tmp_path / "out"
    command = ("sample", run, "-n", "4", "--out", out)
    assert run_cli(*command).code == 0
    settings = json.loads((out / "sampling.json").read_text())
    assert settings["weights_sha256"] == digest(load_file(checkpoints.find(trained) / "ema-0.998.safetensors"))
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    assert run_cli("sample", trained, "-n", "4", "--out", out).code == 0  # moved, and the same
    assert run_cli(*command).code == 0
    train(config.load("digits", [*TINY, "seed=1"]), run, restart=True)
    outcome = run_cli(*command)
    wanted = settings["weights_sha256"][:12]
    assert (outcome.code, f"holds images made with other weights (SHA-256 {wanted}..., not" in outcome.err) == (2, True), outcome.err
    assert outcome.err.count("\n") == 1
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    del settings["weights_sha256"]
    (out / "sampling.json").write_text(json.dumps(settings))
    outcome = run_cli("sample", trained, "-n", "4", "--out", out)
    assert (outcome.code, "does not say which weights made the images beside it" in outcome.err) == (2, True), outcome.err
    assert outcome.err.count("\n") == 1


def test_animation_strip_and_plot(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the grid of the noise to that of the generated images; the lines of the plot are energies and speeds."""
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **options: (figures.append(figure), save(figure, *args, **options)))
    monkeypatch.chdir(tmp_path)
    model = sampling.load(trained)
    trajectory = record(model, model.options({"steps": 5}), range(4), sampling.Request())
    options = ["--gif", tmp_path / "t.gif", "--strip", tmp_path / "s.png", "--plot", tmp_path / "p.png"]
    outcome = run_cli("sample", trained, "--num", "4", "--steps", "5", *options)
    assert outcome.code == 0, outcome.err
    with Image.open(tmp_path / "t.gif") as animation:
        frames = [np.asarray(frame.convert("L")).astype(int) for frame in ImageSequence.Iterator(animation)]
        assert animation.info["loop"] == 0
    assert len(frames) == 6
    assert np.array_equal(frames[0], grid_of(to_uint8(gaussian(0, Purpose.SAMPLE_NOISE, range(4), (1, 8, 8)))))
    assert np.array_equal(frames[-1], grid_of(model.sample(4, steps=5)))
    for frame, expected in zip(frames, trajectory.frames, strict=True):
        assert np.array_equal(frame, grid_of(expected))
    with Image.open(tmp_path / "s.png") as strip:
        found = np.asarray(strip.convert("L")).astype(int)
    assert np.array_equal(found, grid_of(trajectory.frames.transpose(0, 1).flatten(0, 1), columns=6))  # a row for each image
    (figure,) = figures
    left, right = figure.axes
    energies, medians = left.lines[0], right.lines[0]
    assert energies.get_xdata() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert energies.get_ydata() == pytest.approx((0.5 * trajectory.speeds**2).mean(dim=1).numpy(), rel=1e-5)
    assert medians.get_ydata() == pytest.approx(np.median(trajectory.speeds.numpy(), axis=1), rel=1e-5)
    with Image.open(tmp_path / "p.png") as plot:
        plot.verify()
    assert not Path("samples.png").exists()


@pytest.mark.parametrize("ending", ["gif", "png", "webp"])
def test_animations_keep_every_frame(ending: str, tmp_path: Path) -> None:
    """As its grid, exactly, in its turn; WebP keeps no more than looks alike. They last 2 seconds and one more at the end."""
    frames = torch.randint(256, (4, 3, 1, 8, 8), dtype=torch.uint8)
    save_animation(tmp_path / f"a.{ending}", frames)
    with Image.open(tmp_path / f"a.{ending}") as animation:
        for number, expected in enumerate(frames):
            animation.seek(number)
            animation.load()
            found = np.asarray(animation.convert("L")).astype(int)
            assert np.abs(found - grid_of(expected)).mean() <= (25 if ending == "webp" else 0)
            assert animation.info["duration"] == pytest.approx(1000 if number == 3 else 500)
        with pytest.raises(EOFError):
            animation.seek(4)


def test_trajectories_begin_with_noise_and_end_with_the_image(trained: Path) -> None:
    """Speeds are those of the action; the end is what is generated without an observer."""
    model = sampling.load(trained)
    options, request = model.options({"steps": 3}), sampling.Request()
    trajectory = record(model, options, range(5), request)
    assert trajectory.times == pytest.approx([0, 1 / 3, 2 / 3, 1])
    noise = gaussian(0, Purpose.SAMPLE_NOISE, range(5), (1, 8, 8))
    assert torch.equal(trajectory.frames[0], to_uint8(noise))
    (batch,) = sampling.generate_all(model, options, range(5), request)
    assert torch.equal(trajectory.frames[-1], batch.images)
    x = noise.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model.action(torch.zeros(5), x).sum(), x)
    torch.testing.assert_close(trajectory.speeds[0], slope.flatten(1).norm(dim=1))
    torch.testing.assert_close(trajectory.energy, 0.5 * trajectory.speeds**2)
    assert trajectory.strip(2).shape == (10, 1, 8, 8)
    assert torch.equal(trajectory.strip(2)[1], batch.images[0])


def test_images_between_two(trained: Path) -> None:
    """The ends are the images themselves; in between the noise keeps its length, which a straight line would not."""
    model = sampling.load(trained)
    request = sampling.Request(between=(3, 8), count=5)
    noise = sampling.initial_state(model, model.config.sampling, range(5), request).x
    ends = gaussian(0, Purpose.SAMPLE_NOISE, [3, 8], (1, 8, 8))
    torch.testing.assert_close(noise[[0, 4]], ends)
    lengths = noise.flatten(1).norm(dim=1)
    assert lengths.min() > 0.98 * ends.flatten(1).norm(dim=1).min()
    flat = torch.nn.functional.normalize(noise.flatten(1), dim=1)
    angles = (flat[:-1] * flat[1:]).sum(dim=1).arccos()
    assert float(angles.sum()) == pytest.approx(float((flat[0] * flat[-1]).sum().arccos()), rel=1e-4)
    assert angles.min() > 0.7 * angles.max()  # equal if the ends had equal lengths
    outcome = run_cli("sample", trained, "--between", "3")
    assert (outcome.code, "two different indices such as 3,8" in outcome.err) == (2, True)


def test_codes_are_decoded_to_their_images(tmp_path: Path) -> None:
    """decode(encode(x)) = x within 100 times the tolerance, on the digits and where most of the image is known."""
    for overrides in ([], ["path.kind=super-resolution"], ["path.kind=torus"]):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        train(config.load("digits", [*TINY, *overrides]), folder)
        model, dataset = sampling.load(folder), open_dataset(config.load("digits").data)
        options = model.options({"solver": "dopri5", "tolerance": 1e-5})
        request = sampling.Request(images=dataset if model.path.conditional else None)
        found = encode(model, options, to_float(dataset.images(range(4))), range(4), request)
        assert found.error.max() < 1e-3
        assert found.noise.shape == (4, 1, 8, 8)
        again = sampling.generate(model, options, [3, 1], dataclasses.replace(request, starts=found.noise))
        assert torch.equal(again.images, dataset.images([3, 1]))  # an error of 1e-3 is an eighth of a gray level
    outcome = run_cli("encode", tmp_path / "0", "--num", "3", "--out", tmp_path / "noise.npz", "--tolerance", "1e-5")
    assert outcome.code == 0, outcome.err
    assert "3 images of the embedded digits: after encoding and decoding at most" in outcome.out
    with np.load(tmp_path / "noise.npz") as arrays:
        assert arrays["noise"].shape == (3, 1, 8, 8)
        assert arrays["error"].max() < 1e-3
    decode = ("sample", tmp_path / "0", "--noise", tmp_path / "noise.npz", "--solver", "dopri5", "--tolerance", "1e-5")
    outcome = run_cli(*decode, "--out", tmp_path / "decoded")
    assert outcome.code == 0, outcome.err
    decoded = open_dataset(config.DataConfig(path=str(tmp_path / "decoded"), size=8, channels=1)).images(range(3))
    assert torch.equal(decoded, open_dataset(config.load("digits").data).images(range(3)))
    for extra, message in (
        (("--seeds", "3"), "there is no noise 3: the file holds 0 to 2"),
        (("--between", "0,1"), "give one of them"),
        (("--noise", tmp_path / "decoded" / "000000.png"), "give an .npz that amgen encode wrote"),
    ):
        outcome = run_cli(*decode, *extra)
        assert (outcome.code, message in outcome.err) == (2, True), outcome.err


def test_tolerances_below_single_precision_are_refused() -> None:
    """A solver that can never meet its tolerance would run for ever."""
    with pytest.raises(UserError, match="tolerance=1e-15: expected a number of at least 1e-07"):
        config.change(config.SamplingConfig(), {"solver": "dopri5", "tolerance": 1e-15})


def test_entropic_dynamics_have_no_code(tmp_path: Path) -> None:
    train(config.load("digits", [*TINY, "dynamics.kind=entropic", "sampling.solver=euler-maruyama"]), tmp_path / "run")
    outcome = run_cli("encode", tmp_path / "run")
    assert (outcome.code, "sampling.solver=dopri5 solves ODEs, and entropic dynamics are an SDE" in outcome.err) == (2, True)
    outcome = run_cli("encode", tmp_path / "run", "--solver", "sra1")
    assert (outcome.code, "no latent code of an image" in outcome.err) == (2, True)


@pytest.mark.parametrize("form", ["png", "npz"])
def test_a_folder_is_completed_with_other_batches(form: str, trained: Path, generated: Path, tmp_path: Path) -> None:
    """Each image is there once and as if nothing had happened, also some that were asked for first and one that the grid shows again."""
    options = ["sample", trained, "--format", form, "--out", tmp_path / "b"]
    assert run_cli(*options, "--seeds", "5,17-20").code == 0
    assert run_cli(*options, "-n", "12", "--batch-size", "4").code == 0
    sorted((tmp_path / "b").glob(f"*.{form}"))[0].unlink()
    outcome = run_cli(*options, "-n", "23", "--batch-size", "9", "--grid", tmp_path / "g.png")
    assert outcome.code == 0, outcome.err
    if form == "png":
        found = images(tmp_path / "b")
    else:
        shards = [np.load(file) for file in sorted((tmp_path / "b").glob("*.npz"))]
        pairs = [(int(index), image) for shard in shards for index, image in zip(shard["indices"], shard["images"], strict=True)]
        assert sorted(index for index, _ in pairs) == list(range(23))
        found = {f"{index:06d}.png": image[..., 0].astype(int) for index, image in sorted(pairs, key=lambda pair: pair[0])}
    assert_alike(found, images(generated))
    assert run_cli("sample", trained, "-n", "23", "--grid", tmp_path / "whole.png").code == 0
    with Image.open(tmp_path / "g.png") as grid, Image.open(tmp_path / "whole.png") as whole:
        assert np.abs(np.asarray(grid).astype(int) - np.asarray(whole)).max() <= 1


def test_weights_of_a_folder_completed_with_other_batches(tmp_path: Path) -> None:
    """Those of images that were there are read, and joined with the new ones in the order of the indices."""
    train(config.load("digits", [*TINY, "dynamics.kind=unbalanced", "dynamics.rate=0.1"]), tmp_path / "run")
    for form in ("png", "npz"):
        options = ["sample", tmp_path / "run", "--format", form, "--out", tmp_path / form]
        assert run_cli(*options, "--seeds", "7,2").code == 0
        outcome = run_cli(*options, "-n", "9", "--batch-size", "4", "--resample")
        assert outcome.code == 0, outcome.err
        assert "2 of 9 images are there already" in outcome.out
        assert "of 9 weighted images" in outcome.out
    lines = (tmp_path / "png" / "weights.csv").read_text().splitlines()[1:]
    model = sampling.load(tmp_path / "run")
    (whole,) = sampling.generate_all(model, model.config.sampling, range(9), sampling.Request())
    assert whole.log_weights is not None
    assert [int(line.split(",")[0]) for line in lines] == list(range(9))
    assert [float(line.split(",")[1]) for line in lines] == pytest.approx(whole.log_weights.tolist(), rel=1e-4, abs=1e-6)
    (tmp_path / "png" / "000002.png").write_bytes(b"nothing")
    outcome = run_cli("sample", tmp_path / "run", "-n", "9", "--out", tmp_path / "png")
    assert (outcome.code, "png/000002.png': delete it, and the same command generates it again" in outcome.err) == (2, True), outcome.err
    samples = model.generate(9)
    assert torch.equal(samples.images, whole.images)
    assert samples.log_weights is not None
    assert torch.equal(samples.log_weights, whole.log_weights)
    assert samples.indices == list(range(9))
    with pytest.raises(UserError, match="carry weights, which sample would leave out: call generate"):
        model.sample(9)
    assert (tmp_path / "png" / "resampled.csv").read_text() == (tmp_path / "npz" / "resampled.csv").read_text()


def test_a_damaged_shard_is_named(trained: Path, tmp_path: Path) -> None:
    options = ["sample", trained, "-n", "4", "--format", "npz", "--out", tmp_path / "b"]
    assert run_cli(*options).code == 0
    (shard,) = (tmp_path / "b").glob("*.npz")
    shard.write_bytes(shard.read_bytes()[:100])
    outcome = run_cli(*options)
    assert (outcome.code, "images-000000-000003.npz" in outcome.err, "delete it" in outcome.err) == (2, True, True), outcome.err
    shard.unlink()
    assert run_cli(*options).code == 0


def test_images_of_another_division_are_not_taken_for_these(trained: Path, tmp_path: Path) -> None:
    """What lies between two images depends on how many there are."""
    assert run_cli("sample", trained, "--between", "0,5", "-n", "8", "--out", tmp_path / "line").code == 0
    outcome = run_cli("sample", trained, "--between", "0,5", "-n", "4", "--out", tmp_path / "line")
    assert (outcome.code, "between='0,5 in 8'" in outcome.err) == (2, True)


def test_a_run_that_samples_by_an_sde_has_codes(tmp_path: Path) -> None:
    """Its marginals are those of an ODE, which is what encoding follows."""
    noisy = ["sampling.solver=sra1", "sampling.noise_level=1.0"]
    train(config.load("digits", [*TINY, *noisy]), tmp_path / "run")
    outcome = run_cli("encode", tmp_path / "run", "-n", "2", "--solver", "heun", "--steps", "3", "--out", tmp_path / "noise.npz")
    assert outcome.code == 0, outcome.err
    model, dataset = sampling.load(tmp_path / "run"), open_dataset(config.load("digits").data)
    options = model.options({"solver": "heun", "steps": 3, "noise_level": 0.0})
    x = to_float(dataset.images(range(2)))
    expected = sampling.solver_of(options).solve(Dynamics(model.action).velocity, x, backward=True)  # type: ignore[call-arg, arg-type]
    with np.load(tmp_path / "noise.npz") as arrays:
        assert torch.from_numpy(arrays["noise"]) == pytest.approx(expected, abs=1e-5)
        assert json.loads(str(arrays["settings"]))["solver"] == "heun"


def test_python_interface(trained: Path) -> None:
    model = amgen.load(trained)
    found = model.sample(5, solver="heun", steps=3, seed=2)
    assert (found.dtype, found.shape) == (torch.uint8, (5, 1, 8, 8))
    (batch,) = sampling.generate_all(model, model.options({"solver": "heun", "steps": 3}), range(5), sampling.Request(seed=2))
    assert torch.equal(found, batch.images)
    (batch,) = sampling.generate_all(model, model.options({"steps": 3, "step_grid": "cosine"}), range(5), sampling.Request(seed=2))
    assert torch.equal(model.sample(5, steps=3, seed=2, step_grid="cosine"), batch.images)
    for arguments, message in (
        ({"num": 0}, "num=0: expected at least 1"),
        ({"num": 10**12}, "at most 10,000,000"),
        ({"num": 1, "seed": -1}, "seed=-1"),
        ({"num": 1, "seed": 2**63}, "seed="),
    ):
        with pytest.raises(UserError, match=message):
            model.sample(**arguments)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown option 'stepgrid' .did you mean 'step_grid'"):
        model.sample(1, stepgrid="cosine")


def test_noise_level_reaches_the_samples(trained: Path) -> None:
    """Euler-Maruyama in two steps of dx = (v + g^2/2 score) dt + g dW, g = G sqrt(a_t), by hand, with the sampler's own increments."""
    model, indices, half = sampling.load(trained), range(4), 0.5
    for level in (0.5, 2.0):
        found = model.generate(4, solver="euler-maruyama", steps=2, noise_level=level, seed=3).images
        dynamics = Dynamics(model.action, path=model.path)
        increments = BrownianMotion(3, indices, (1, 8, 8)).steps([0.0, half, 1.0])
        x = gaussian(3, Purpose.SAMPLE_NOISE, indices, (1, 8, 8))
        for t, (increment, _) in zip((0.0, half), increments, strict=True):
            scale = model.path.noise_scale(torch.tensor([t]))
            assert scale is not None
            g = level * scale.sqrt()
            drift = dynamics.velocity(t, x) + 0.5 * g**2 * dynamics.score(t, x)
            x = x + half * drift + g * increment
        assert (found.int() - to_uint8(x).int()).abs().max() <= 1


def test_progress_is_reported_with_rate_and_time_left(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line whenever one is due, here after each batch."""
    monkeypatch.setattr(progress, "REPORT_EVERY", -1.0)
    for doing, command in (("sampling", ["sample"]), ("encoding", ["encode", "--solver", "euler"])):
        out = ("--grid", tmp_path / "g.png") if doing == "sampling" else ("--out", tmp_path / "n.npz")
        outcome = run_cli(command[0], trained, *command[1:], "-n", "6", "--batch-size", "2", *out)
        lines = [line for line in outcome.out.splitlines() if line.startswith(f"{doing}: ")]
        assert [line.split()[1] for line in lines] == ["2/6", "4/6", "6/6"], outcome.err
        assert all(re.fullmatch(rf"{doing}: ./6 images  [0-9.,]+ images/s  [0-9]+ s left", line) for line in lines)


def test_indices_are_read() -> None:
    assert parse_indices("5,17-20, 3") == [5, 17, 18, 19, 20, 3]
    for text in ("", "a", "3-", "7-5", "-3", "3-4-5", "9" * 5000, f"0-{10**19}"):
        with pytest.raises(UserError, match="expected indices and ranges such as 5,17-20") as caught:
            parse_indices(text)
        assert len(str(caught.value)) < 200
    for text in ("1,0-3", "2,2", "5-9,7-8"):
        with pytest.raises(UserError, match="names an index twice"):
            parse_indices(text)
    with pytest.raises(UserError, match="names 99,999,999,995 indices: expected at most 10,000,000"):
        parse_indices("5-99999999999")


def test_resampling_is_in_proportion() -> None:
    """Each position is taken floor(n w) or ceil(n w) times, and the expectation over offsets is n w within 5 standard errors."""
    logs = [0.0, 1.0, -2.0, 0.5]
    weights = torch.tensor(logs, dtype=torch.float64).softmax(dim=0)
    counts = torch.stack([torch.bincount(torch.tensor(sampling.resample(logs, seed)), minlength=4) for seed in range(2000)]).double()
    assert (counts >= (4 * weights).floor()).all()
    assert (counts <= (4 * weights).ceil()).all()
    assert ((counts.mean(dim=0) - 4 * weights).abs() < 5 * 0.5 / 2000**0.5).all()


def test_grid_settings_are_checked(trained: Path) -> None:
    for options, message in (
        (["--rho", "0"], "rho=0"),
        (["--step-grid", "cosin"], "step_grid='cosin'"),
        (["--noise-level", "-1"], "noise_level=-1"),
    ):
        outcome = run_cli("sample", trained, *options)
        assert (outcome.code, message in outcome.err) == (2, True), outcome.err


def test_what_the_main_process_finds_missing_holds_for_all(trained: Path, tmp_path: Path) -> None:
    """What this one would find by itself may have changed since, and it would take other batches than the others."""

    class Second(Processes):
        main = False

        def agree(self, found: Any) -> Any:
            return [0, 1, 2]

    model, request = sampling.load(trained), sampling.Request()
    result = run_job(model, model.options({}), range(4), request, Second(), ImageFolder(tmp_path, "png", {}, True))
    assert result.images == 3
