"""PSNR and SSIM against closed forms and an independent computation; baselines use the known pixels only."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import complete_images
import numpy as np
import pytest
import torch
from helpers import TINY
from torch import Tensor

from amgen import config, sampling
from amgen.core.errors import UserError
from amgen.data import ImageDataset, open_dataset, to_uint8
from amgen.evaluation.restoration import ImageScore, Restoration, baselines, restoration_scores, structural_similarities, window_of
from amgen.model.build import build_action
from amgen.paths import ColourisationPath, Conditioning, InPaintingPath, LinearPath, SuperResolutionPath
from amgen.paths import Path as ProbabilityPath
from amgen.sampling import Model, Request

C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
PATHS: dict[str, ProbabilityPath] = {
    "super-resolution": SuperResolutionPath(),
    "super-resolution by 3": SuperResolutionPath(3),
    "in-painting half": InPaintingPath("half"),
    "in-painting box": InPaintingPath("box"),
    "in-painting mask": InPaintingPath("mask", torch.arange(64).reshape(8, 8) % 11 > 0),
    "in-painting all": InPaintingPath("mask", torch.ones(8, 8, dtype=torch.bool)),
    "colourisation": ColourisationPath(),
}


def random_images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def digits(*overrides: str) -> tuple[Model, ImageDataset]:
    """An untrained model of digits and the digits."""
    options = config.load("digits", [*TINY, *overrides])
    action = build_action(options).requires_grad_(False).eval()
    return sampling.assemble(options, action, "action", 0, Path()), open_dataset(options.data)


def numpy_similarity(first: np.ndarray, second: np.ndarray, side: int, sigma: float) -> np.ndarray:
    """SSIM at every position of the window in two gray images (H, W), float64, from weighted means and central moments."""
    offset = np.arange(side) - side // 2
    weights = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * sigma**2))
    weights /= weights.sum()
    found = np.empty((first.shape[0] - side + 1, first.shape[1] - side + 1))
    for row, column in np.ndindex(found.shape):
        a, b = (image[row : row + side, column : column + side].astype(float) for image in (first, second))
        mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
        variances = (weights * (a - mean_a) ** 2).sum() + (weights * (b - mean_b) ** 2).sum()
        covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
        found[row, column] = (2 * mean_a * mean_b + C1) * (2 * covariance + C2) / ((mean_a**2 + mean_b**2 + C1) * (variances + C2))
    return found


@pytest.mark.parametrize(("height", "width", "side", "sigma"), [(14, 12, 11, 1.5), (8, 8, 7, 1.5 * 7 / 11), (4, 9, 3, 1.5 * 3 / 11)])
def test_similarity_is_that_of_an_independent_computation(height: int, width: int, side: int, sigma: float) -> None:
    """Two channels, three pairs, to 1e-10: E[x^2] - E[x]^2 in place of central moments loses about 65025 * 1e-16 beside C2 = 58.5."""
    truths = random_images(3, 2, height, width)
    restored = (truths + 20 * torch.randn(truths.shape)).clamp(0, 255).to(torch.uint8)
    assert window_of(height, width) == (side, pytest.approx(sigma))
    found = structural_similarities(restored, truths)
    for pair in range(3):
        channels = [numpy_similarity(restored[pair, c].numpy(), truths[pair, c].numpy(), side, sigma) for c in range(2)]
        assert float(found[pair]) == pytest.approx(np.mean(channels), abs=1e-10)


def test_similarity_at_one_position_of_the_window() -> None:
    """An image as large as the window has one; by sums in closed form for a bright pixel at its centre, w its weight there.

    Means 10 + 90 w and 10, variance 90^2 w (1 - w), no covariance.
    """
    truths = torch.full((1, 1, 11, 11), 10, dtype=torch.uint8)
    restored = truths.clone()
    restored[0, 0, 5, 5] = 100
    w = 1 / sum(math.exp(-(x * x) / (2 * 1.5**2)) for x in range(-5, 6)) ** 2
    mean = 10 + 90 * w
    expected = (20 * mean + C1) * C2 / ((mean**2 + 100 + C1) * (90**2 * w * (1 - w) + C2))
    assert float(structural_similarities(restored, truths)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [1, 2, 8, 10, 32])
def test_similarity_of_identical_and_of_constant_images(size: int) -> None:
    """1, and (2ab + C1)/(a^2 + b^2 + C1)."""
    images = random_images(2, 3, size, size)
    assert structural_similarities(images, images).tolist() == pytest.approx([1, 1], abs=1e-12)
    a, b = 200, 90
    first, second = (torch.full((1, 3, size, size), level, dtype=torch.uint8) for level in (a, b))
    expected = (2 * a * b + C1) / (a * a + b * b + C1)
    assert float(structural_similarities(first, second)) == pytest.approx(expected, rel=1e-9)


def test_scores_are_means_with_their_errors() -> None:
    """Differences of 2, 4 and 8 levels everywhere: e = 4, 16, 64. The error of 10 log10 e is 10/ln 10 times the relative one of e."""
    truths = random_images(3, 3, 12, 12).clamp(max=240)
    restoration = Restoration()
    restoration.add([0, 1, 2], truths + torch.tensor([2, 4, 8], dtype=torch.uint8).reshape(3, 1, 1, 1), truths)
    values = restoration.values()
    assert [values[index][""].squared_error for index in range(3)] == [4, 16, 64]
    ratio, similarity = restoration_scores(values, (3, 12, 12))
    assert (ratio.name, ratio.details["unit"], ratio.details["images"], ratio.details["exact"]) == ("PSNR", "dB", 3, 0)
    assert ratio.value == pytest.approx(20 * math.log10(255) - 10 * math.log10(28))
    assert ratio.standard_error == pytest.approx(10 / math.log(10) * np.std([4, 16, 64], ddof=1) / 3**0.5 / 28)
    assert ratio.details["mean_over_images"] == pytest.approx(20 * math.log10(255 / 4))
    assert ratio.details["mean_over_images_standard_error"] == pytest.approx(20 * math.log10(2) / 3**0.5)
    similarities = [values[index][""].similarity for index in range(3)]
    assert (similarity.name, similarity.details["window"], similarity.details["sigma"]) == ("SSIM", 11, 1.5)
    assert similarity.value == pytest.approx(np.mean(similarities))
    assert similarity.standard_error == pytest.approx(np.std(similarities, ddof=1) / 3**0.5)
    assert 1 > similarities[0] > similarities[1] > similarities[2]


def test_images_restored_exactly_leave_every_score_finite() -> None:
    """They count in the mean squared error alone; where all are, as if one value of all had been off by one."""
    values = {0: {"": ImageScore(0.0, 1.0)}, 1: {"": ImageScore(100.0, 0.5)}}
    ratio, similarity = restoration_scores(values, (1, 8, 8))
    assert ratio.value == pytest.approx(10 * math.log10(255**2 / 50))
    assert ratio.details["mean_over_images"] == pytest.approx(10 * math.log10(255**2 / 100))
    assert (ratio.details["exact"], ratio.details["mean_over_images_standard_error"]) == (1, None)
    assert "1 exact" in ratio.line()
    assert similarity.value == 0.75
    assert similarity.details["window"] == 7
    for count in (1, 3):
        found = restoration_scores({index: {"": ImageScore(0.0, 1.0)} for index in range(count)}, (1, 8, 8))
        assert found[0].value == pytest.approx(10 * math.log10(255**2 * count * 64))
        assert found[0].details["mean_over_images"] is None
        assert found[0].standard_error == (None if count == 1 else 0)
        json.dumps([asdict(score) for score in found], allow_nan=False)
    assert restoration_scores({}, (1, 8, 8)) == []


def test_scores_do_not_depend_on_who_computes_them() -> None:
    """Whole, and in two processes in another order: the same squared errors, SSIM to rounding, scores in the same order."""
    truths, restored, other = random_images(3, 7, 3, 12, 12)
    whole, parts = Restoration(), [Restoration(), Restoration()]
    for method, images in (("bicubic", other), ("", restored)):
        whole.add(range(7), images, truths, method)
        for part, rows in zip(parts, ([6, 0, 3], [5, 1, 2, 4]), strict=True):
            part.add(rows, images[rows], truths[rows], method)
    joined = dict([*parts[0].values().items(), *parts[1].values().items()])
    expected, found = (restoration_scores(values, (3, 12, 12)) for values in (whole.values(), joined))
    assert [score.name for score in found] == ["PSNR", "SSIM", "PSNR (bicubic)", "SSIM (bicubic)"]
    for first, second in zip(expected, found, strict=True):
        assert second.value == pytest.approx(first.value, rel=1e-12)
        assert second.standard_error == pytest.approx(first.standard_error, rel=1e-9)
        assert second.details["images"] == 7
    assert found[0].value != found[2].value


def test_only_bytes_of_one_shape_are_scored() -> None:
    with pytest.raises(ValueError, match="expected uint8 images of one shape"):
        Restoration().add([0], random_images(1, 1, 8, 8), random_images(1, 3, 8, 8))
    with pytest.raises(ValueError, match="not .* torch.float32 and"):
        Restoration().add([0], torch.zeros(1, 1, 8, 8), random_images(1, 1, 8, 8))


def conditioning_of(path: ProbabilityPath, count: int = 5, channels: int = 3) -> tuple[Tensor, Conditioning, Tensor | None]:
    data = 2 * torch.rand(count, channels, 8, 8, dtype=torch.float64) - 1
    auxiliary = torch.rand(count, path.auxiliary, dtype=torch.float64) if path.auxiliary else None
    return data, path.conditioning(data, auxiliary), auxiliary


@pytest.mark.parametrize("name", PATHS)
def test_baselines_use_the_conditioning_only(name: str) -> None:
    """Other unknown pixels, or colours of the same gray, change nothing; other known ones do; known pixels stay as they are."""
    path = PATHS[name]
    data, conditioning, auxiliary = conditioning_of(path)
    if conditioning.free is None:
        hidden = torch.tensor([0.587, -0.299, 0.0], dtype=torch.float64).reshape(3, 1, 1)  # no gray: orthogonal to the weights of luma
        other = data + hidden * torch.randn(5, 1, 8, 8, dtype=torch.float64)
    else:
        other = torch.where(conditioning.free.bool(), math.nan, data)
    for known in (conditioning, path.conditioning(other.nan_to_num(7.0), auxiliary)):
        found, again = path.baselines(data, known), path.baselines(other, known)
        assert found
        for method, images in found.items():
            torch.testing.assert_close(again[method], images, msg=method)
            assert images.shape == data.shape
            if conditioning.free is not None:
                assert torch.equal(images.where(conditioning.free == 0, 0), data.where(conditioning.free == 0, 0))
    if name != "in-painting all":
        changed = path.baselines(-data, path.conditioning(-data, auxiliary))
        assert all(not torch.allclose(changed[method], images) for method, images in path.baselines(data, conditioning).items())


def test_there_are_no_baselines_without_conditioning() -> None:
    assert LinearPath().baselines(torch.zeros(2, 3, 8, 8), Conditioning()) == {}
    model, _ = digits()
    assert baselines(model, range(2), Request()) == {}


@pytest.mark.parametrize("factor", [2, 3])
def test_interpolations(factor: int) -> None:
    """Away from the border cubic convolution reproduces quadratics, linear interpolation planes; both are constant where the image is."""
    rows, columns = torch.meshgrid(torch.arange(17, dtype=torch.float64), torch.arange(19, dtype=torch.float64), indexing="ij")
    plane, constant = 0.1 * rows - 0.2 * columns, torch.full_like(rows, 0.3)
    quadratic = 0.02 * rows**2 - 0.01 * rows * columns + 0.03 * columns**2 + plane
    data = torch.stack([constant, plane, quadratic])[None]
    path = SuperResolutionPath(factor)
    found = path.baselines(data, path.conditioning(data))
    inside = (slice(factor, 17 - 2 * factor), slice(factor, 19 - 2 * factor))
    linear, cubic = ([channel[inside] for channel in found[method][0]] for method in ("bilinear", "bicubic"))
    torch.testing.assert_close(cubic, [constant[inside], plane[inside], quadratic[inside]])
    torch.testing.assert_close(linear[:2], [constant[inside], plane[inside]])
    assert not torch.allclose(linear[2], quadratic[inside])
    for images in found.values():
        torch.testing.assert_close(images[0, 0], constant)


@pytest.mark.parametrize("name", [name for name in PATHS if "painting" in name])
def test_fillings_of_painted_regions(name: str) -> None:
    """Against the mean of each channel and brute-force distances, pixel by pixel; the middle gray where nothing is known."""
    data, conditioning, _ = conditioning_of(PATHS[name], count=3)
    assert conditioning.free is not None
    found = PATHS[name].baselines(data, conditioning)
    places = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    for image, mean, nearest, free in zip(data, *found.values(), conditioning.free[:, 0].bool(), strict=True):
        if free.all():
            assert not mean.any()
            assert not nearest.any()
            continue
        known = places[~free.flatten()]
        for row, column in places[free.flatten()]:
            torch.testing.assert_close(mean[:, row, column], image[:, ~free].mean(dim=1))
            distances = (known - torch.tensor([row, column])).square().sum(dim=1)
            candidates = image[:, known[distances == distances.min()].T[0], known[distances == distances.min()].T[1]]
            assert (candidates == nearest[:, row, column, None]).all(dim=0).any()


def test_colourisation_is_compared_with_the_gray_image() -> None:
    data, conditioning, _ = conditioning_of(ColourisationPath())
    luma = 0.299 * data[:, 0] + 0.587 * data[:, 1] + 0.114 * data[:, 2]
    found = ColourisationPath().baselines(data, conditioning)
    torch.testing.assert_close(found["gray"], luma[:, None].expand(5, 3, 8, 8))


def test_baselines_of_a_model_are_those_of_its_samples() -> None:
    """Made of the same images and the same painted regions, which are functions of the seed."""
    model, dataset = digits("path.kind=in-painting", "path.region=box")
    request, indices = Request(seed=3, images=dataset), [2, 1798, 5]
    samples = next(sampling.generate_all(model, model.config.sampling, indices, request))
    assert samples.truths is not None
    assert samples.inputs is not None
    found = baselines(model, indices, request)
    assert list(found) == ["mean of known pixels", "nearest known pixel"]
    shown = samples.inputs > 0
    for images in found.values():
        assert images.dtype == torch.uint8
        assert torch.equal(images[shown], samples.truths[shown])
    batch = sampling.initial_state(model, model.config.sampling, indices, request)
    assert batch.data is not None
    expected = model.path.baselines(batch.data, batch.dynamics.conditioning)
    assert all(torch.equal(found[method], to_uint8(images)) for method, images in expected.items())


def test_samples_of_the_script_differ_in_noise_alone() -> None:
    """On painted regions, chosen by the seed, and without a random region; sample 0 is that of the seed."""
    for kind, region in (("in-painting", ["path.region=half"]), ("super-resolution", [])):
        model, dataset = digits(f"path.kind={kind}", *region)
        request, indices = Request(images=dataset), range(6)
        starts, frees = [], []
        for number in range(3):
            batch = sampling.initial_state(
                model, model.config.sampling, indices, complete_images.with_other_noise(model, indices, request, number)
            )
            starts.append(batch.x)
            frees.append(batch.dynamics.conditioning.free)
        free = frees[0].bool()
        assert all(torch.equal(other, frees[0]) for other in frees)
        assert torch.equal(starts[0], sampling.initial_state(model, model.config.sampling, indices, request).x)
        for first, second in ((0, 1), (0, 2), (1, 2)):
            assert torch.equal(starts[first][~free], starts[second][~free])
            assert (starts[first][free] != starts[second][free]).all()
        assert abs(torch.cat([start[free] for start in starts]).std() - 1) < 0.15  # over 400 normals: their deviation is 0.035
    stochastic = replace(model, config=config.change(model.config, {"sampling": {"solver": "sra1", "noise_level": 0.5}}))
    assert complete_images.with_other_noise(stochastic, indices, request, 2).seed == 2


def test_the_script_refuses_samples_that_would_share_their_noise() -> None:
    overrides = ("path.kind=in-painting", "sampling.solver=sra1", "sampling.noise_level=0.5")
    model, dataset = digits(*overrides)
    assert complete_images.with_other_noise(model, range(2), Request(images=dataset), 0).seed == 0
    with pytest.raises(UserError, match="use --samples 1"):
        complete_images.with_other_noise(model, range(2), Request(images=dataset), 1)
