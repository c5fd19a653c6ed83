"""How close do completed, coloured or sharpened images come to the truth? PSNR and SSIM over all pixels, and an image grid.

Beside one sample of the model for each image: the mean of several, and methods that need no training. A sample of the true posterior has
twice the squared error of its mean, 3 dB; the mean of 8 samples comes within 0.5 dB of it. Samples of an image differ in their noise alone:
their conditioning is the same. Takes some minutes on one core.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from common import new_parser, parse, print_conditions, print_table, progress, script, with_error
from torch import Tensor

from amgen import sampling
from amgen.core.errors import UserError
from amgen.core.files import check_output
from amgen.core.randomness import Purpose, gaussian
from amgen.evaluation.restoration import Restoration, baselines, restoration_scores
from amgen.sampling import Model, Request, Samples
from amgen.solvers import SDE_SOLVERS
from amgen.visualization.grids import image_grid


@script
def main(arguments: Sequence[str] | None = None) -> None:
    """Generate, print the table and write the image grid."""
    options = parse_options(arguments)
    model = sampling.load(options.run)
    images = sampling.start_images(model, options.condition_data)
    if images is None:
        raise UserError(f"{options.run} starts from noise alone: give the run of an image-to-image model")
    indices = range(options.num)
    request = Request(images=images)
    samples, inputs, truths = generate(model, indices, request, options.samples)
    mean = torch.stack(samples).float().mean(dim=0).round().to(torch.uint8)

    methods = {"one sample": samples[0], f"mean of {options.samples} samples": mean, **baselines(model, indices, request)}
    print_table(["method", "PSNR, dB", "SSIM"], [[name, *scores(restored, truths)] for name, restored in methods.items()])
    exact = (samples[0] == truths).float().mean()
    print_conditions(
        options,
        f"{options.num:,} images of {images.source.description}",
        f"{exact:.1%} of the values of a sample equal the truth exactly",
        model.in_words(model.describe()),
        device=model.device,
    )
    shown = slice(0, min(8, options.num))
    image_grid(inputs[shown], samples[0][shown], mean[shown], truths[shown], columns=8).save(options.grid)
    progress(f"wrote {options.grid}")


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = new_parser(__file__, __doc__)
    parser.add_argument("run", type=Path, help="run directory of an image-to-image model")
    parser.add_argument("--condition-data", type=str, help="images to start from; default: the training images")
    parser.add_argument("--num", type=int, default=64, help="images")
    parser.add_argument("--samples", type=int, default=8, help="samples for each image")
    parser.add_argument("--grid", type=Path, default=Path("completed.png"), help="rows of input, one sample, mean of the samples, truth")
    options = parse(parser, arguments)
    check_output("--grid", options.grid)
    return options


def generate(model: Model, indices: range, request: Request, count: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return `count` samples for all images, the inputs of the model, and the truth: uint8 (N, C, H, W) each."""
    found = []
    for number in range(count):
        request_of_sample = with_other_noise(model, indices, request, number)
        found.append(Samples.join(list(sampling.generate_all(model, model.config.sampling, indices, request_of_sample))))
    assert found[0].inputs is not None
    assert found[0].truths is not None
    return [samples.images for samples in found], found[0].inputs, found[0].truths


def with_other_noise(model: Model, indices: range, request: Request, number: int) -> Request:
    """Return a request for sample `number` of the images `indices`: with other noise, but the same conditioning.

    Raises:
        UserError: if the noise along the way could not differ without the conditioning, both being functions of the seed.
    """
    if not number or not model.path.auxiliary:
        return replace(request, seed=number)
    if model.config.sampling.solver in SDE_SOLVERS:
        raise UserError(
            f"the solver {model.config.sampling.solver} takes its noise and the painted regions from one seed, so that samples of an image "
            "would differ in their regions: use --samples 1"
        )
    data, conditioning = sampling.start_batch(model, indices, request)
    noise = gaussian(number, Purpose.SAMPLE_NOISE, indices, model.config.image_shape).to(model.device)
    return replace(request, starts=model.path.prior(noise, data, conditioning).cpu())


def scores(restored: Tensor, truths: Tensor) -> list[str]:
    """Return PSNR and SSIM with their standard errors."""
    restoration = Restoration()
    restoration.add(range(len(truths)), restored, truths)
    psnr, ssim = restoration_scores(restoration.values(), truths.shape[1:])
    return [with_error(psnr.value, psnr.standard_error, ".1f", ".1f"), with_error(ssim.value, ssim.standard_error, ".3f", ".3f")]


if __name__ == "__main__":
    main()
