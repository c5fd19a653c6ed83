"""How close do completed or coloured images come to the truth? Peak signal-to-noise ratios over all pixels, and a figure.

Beside the model's draws: what is given, seen as a picture (for super-resolution: interpolated linearly), and the mean of several draws. A
draw from the true posterior has twice the squared error of its mean, 3 dB; the mean of 8 draws comes within 0.5 dB of it.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

from amgen import sampling
from amgen.data import make_grid


def main() -> None:
    """Print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory of an image-to-image model")
    parser.add_argument("--condition-data", help="images to start from; default: the training images")
    parser.add_argument("--num", type=int, default=64, help="images")
    parser.add_argument("--draws", type=int, default=8, help="draws for each image")
    parser.add_argument("--figure", type=Path, default=Path("completed.png"), help="rows of input, one draw, mean of the draws, truth")
    options = parser.parse_args()
    model = sampling.load(options.run)
    images = sampling.start_images(model, options.condition_data)
    if images is None:
        raise SystemExit(f"{options.run} starts from noise alone: there is nothing to complete")
    draws = []
    for seed in range(options.draws):
        request = sampling.Request(seed, images=images)
        parts = list(sampling.generate_all(model, model.config.sampling, range(options.num), request))
        draws.append(torch.cat([part.images for part in parts]))
    pictures = zip(*(part.pictures() for part in parts), strict=True)
    inputs, _, truths = (torch.cat(picture) for picture in pictures)
    mean = torch.stack(draws).float().mean(dim=0)
    print(f"{options.num} images of {images.source.description}, {options.draws} draws each; dB over all pixels, mean over images")
    for name, picture in {"input": inputs, "one draw": draws[0], "mean of draws": mean}.items():
        print(f"{name:14} {psnr(picture, truths):6.2f} dB")
    exact = (draws[0] == truths).float().mean()
    print(f"{exact:.1%} of the values of a draw equal the truth exactly")
    shown = slice(0, min(8, options.num))
    make_grid(inputs[shown], draws[0][shown], mean.round().to(torch.uint8)[shown], truths[shown], columns=8).save(options.figure)
    print(f"wrote {options.figure}")


def psnr(first: Tensor, second: Tensor) -> float:
    """Return the mean over images of 10 log10(255^2 / mean squared error), dB."""
    errors = (first.double() - second.double()).square().flatten(1).mean(dim=1)
    return float((10 * (math.log10(255**2) - errors.log10())).mean())


if __name__ == "__main__":
    main()
