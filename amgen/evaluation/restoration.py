"""How close restored images come to the truth, image by image: peak signal-to-noise ratio and structural similarity.

PSNR = 10 log10(255^2 / e), e being the squared error averaged over all pixels and channels, those that were known included, and over all
images. Papers often print the mean of the ratios of single images instead. That is infinite as soon as one image is restored exactly, which
happens (a gray photograph needs no colours), and whatever finite number stands for infinity then outweighs hundreds of other images. So it
is given beside the figure for the images that are not exact, with the number of those that are.

SSIM (Wang, Bovik, Sheikh and Simoncelli, IEEE Trans. Image Processing 13(4), 2004), by torchmetrics: Gaussian window of 11 pixels and
sigma 1.5, K1 = 0.01, K2 = 0.03, at every position where the window lies wholly within the image, of each channel; their mean. On images
smaller than that the window is the largest odd one that fits, and sigma shrinks with it.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from amgen.data import to_uint8
from amgen.evaluation.metrics import Figure
from amgen.sampling import Model, Request, start_batch

RANGE = 255
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


class Score(NamedTuple):
    """What one restored image is worth.

    Attributes:
        squared_error: mean over pixels and channels, in gray levels squared.
        similarity: SSIM, at most 1.
    """

    squared_error: float
    similarity: float


class Restoration:
    """Scores of restored images by image index, so that several processes can score some each and join their `values`."""

    def __init__(self) -> None:
        self._values: dict[int, dict[str, Score]] = {}

    def add(self, indices: Sequence[int], restored: Tensor, truths: Tensor, method: str = "") -> None:
        """Score a batch against the truth.

        Args:
            indices: index of each image.
            restored: uint8, (B, C, H, W).
            truths: the same images as they are, likewise.
            method: what restored them, in the names of the figures; empty for the model.

        Raises:
            ValueError: if the two are not uint8 or differ in shape.
        """
        if restored.dtype != torch.uint8 or truths.dtype != torch.uint8 or restored.shape != truths.shape:
            raise ValueError(
                f"expected uint8 images of one shape, not {tuple(restored.shape)} {restored.dtype} and {tuple(truths.shape)} {truths.dtype}"
            )
        errors = squared_errors(restored, truths).tolist()
        similarities = structural_similarities(restored, truths).tolist()
        for index, error, similarity in zip(indices, errors, similarities, strict=True):
            self._values.setdefault(index, {})[method] = Score(error, similarity)

    def values(self) -> dict[int, dict[str, Score]]:
        """Return the scores by image index and method."""
        return self._values


def baselines(model: Model, indices: Sequence[int], request: Request) -> dict[str, Tensor]:
    """Return what methods without training make of what the model is given of its images, uint8 (B, C, H, W) by name of the method."""
    data, conditioning = start_batch(model, indices, request)
    if data is None:
        return {}
    return {name: to_uint8(images).cpu() for name, images in model.path.baselines(data, conditioning).items()}


def figures(values: Mapping[int, Mapping[str, Score]], shape: Sequence[int]) -> list[Figure]:
    """Return PSNR and SSIM of each method, the model's first; the standard error of PSNR is that of the mean squared error, to first order.

    Args:
        values: scores by image index and method, of all processes.
        shape: of an image, (C, H, W).
    """
    methods = dict.fromkeys(["", *(method for index in sorted(values) for method in values[index])])
    found = []
    for method in methods:
        scores = [values[index][method] for index in sorted(values) if method in values[index]]
        if scores:
            suffix = f" ({method})" if method else ""
            found += [_psnr_figure(f"PSNR{suffix}", scores, shape), _ssim_figure(f"SSIM{suffix}", scores, shape)]
    return found


def squared_errors(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean squared difference of each pair of uint8 images (B, C, H, W), in gray levels squared, float64 (B,)."""
    return (first.double() - second.double()).square().flatten(1).mean(dim=1)


def psnr(squared_error: float) -> float:
    """Return the peak signal-to-noise ratio of 8-bit images with this mean squared error > 0, in dB."""
    return 10 * math.log10(RANGE**2 / squared_error)


def structural_similarities(first: Tensor, second: Tensor) -> Tensor:
    """Return the SSIM of each pair of uint8 images (B, C, H, W), float64 (B,)."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    height, width = first.shape[-2:]
    window, sigma = window_of(height, width)
    _, everywhere = structural_similarity_index_measure(
        first.double(), second.double(), sigma=sigma, data_range=float(RANGE), k1=K1, k2=K2, reduction="none", return_full_image=True
    )
    # torchmetrics pads by reflection, and whether its mean counts what reaches into the padding depends on its version.
    border = window // 2
    return everywhere[..., border : height - border, border : width - border].flatten(1).mean(dim=1)


def window_of(height: int, width: int) -> tuple[int, float]:
    """Return the side and the sigma of SSIM's window for images of this size; torchmetrics derives the side from sigma."""
    largest = min(height, width)
    window = min(WINDOW, largest - (largest + 1) % 2)
    return window, SIGMA * window / WINDOW


def _psnr_figure(name: str, scores: Sequence[Score], shape: Sequence[int]) -> Figure:
    errors = [score.squared_error for score in scores]
    least = 1 / (len(errors) * math.prod(shape))  # one value of all images off by one: what is exact throughout counts as that
    mean, deviation = max(fmean(errors), least), _standard_error(errors)
    ratios = [psnr(error) for error in errors if error > 0]
    by_image = fmean(ratios) if ratios else None
    exact = len(errors) - len(ratios)
    note = f"dB, of the mean squared error over {len(errors):,} images"
    note += "" if by_image is None else f"; mean over images {by_image:.4g}"
    note += f"; {exact:,} exact" if exact else ""
    details = {
        "unit": "dB",
        "images": len(errors),
        "data_range": RANGE,
        "over": "all pixels and channels, known ones included",
        "mean_over_images": by_image,
        "mean_over_images_standard_error": _standard_error(ratios),
        "exact": exact,
    }
    return Figure(
        name, psnr(mean), None if deviation is None else 10 / math.log(10) * deviation / mean, note, details, lower_is_better=False
    )


def _ssim_figure(name: str, scores: Sequence[Score], shape: Sequence[int]) -> Figure:
    window, sigma = window_of(*shape[1:])
    similarities = [score.similarity for score in scores]
    details = {
        "images": len(scores),
        "data_range": RANGE,
        "window": window,
        "sigma": sigma,
        "K1": K1,
        "K2": K2,
        "over": "positions of the window within the image, each channel",
    }
    note = f"mean over {len(scores):,} images, window of {window} pixels"
    return Figure(name, fmean(similarities), _standard_error(similarities), note, details, lower_is_better=False)


def _standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean; None of fewer than two values."""
    return float(torch.tensor(values, dtype=torch.float64).std()) / len(values) ** 0.5 if len(values) > 1 else None
