"""The likelihood that a model gives to images, in bits per dimension.

Symbols: k the value of a pixel, 0 to 255; D the values of an image; q_0, q_1 the densities of the model at t = 0 and t = 1, q_1 being what
its ODE dx/dt = v(t, x) makes of q_0.

Along the ODE d/dt log q_t(x_t) = -div v(t, x_t), so that an image followed backwards from x_1 = x to x_0 has

    log q_1(x) = log q_0(x_0) - integral over [0, 1] of div v(t, x_t) dt.

The divergence is the mean of e . J e over random signs e, J the Jacobian of v (Hutchinson); signs held fixed along the way give one
unbiased estimate of the integral for each e (FFJORD, arXiv 1810.01367, section 3.1). They are all integrated beside the one point.

A density of 8-bit images is that of values made continuous: the model knows k as k/127.5 - 1, and level k stands for the cell of width
1/127.5 about it, which is also what rounds to k when images are written:

    x = (k + u - 1/2) / 127.5 - 1,  u uniform on [0, 1),    bits/dim = -log q_1(x) / (D ln 2) + log2(127.5).

The last term is the width of a cell. x is 256/255 times the (k + u)/128 - 1 of the literature, whose offset is 7 = log2(128): densities
scale by 255/256 for each dimension and the offset falls by log2(256/255), so that bits/dim mean the same. Both average to an upper bound
of -log2 P(k) / D, where P(k) is the mass of the cell (Jensen). A density that is uniform over the cells has 8 bits/dim.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from amgen.config import ODE_SOLVERS, SDE_SOLVERS, SamplingConfig, change
from amgen.core.batching import in_batches
from amgen.core.errors import Diverged, UserError
from amgen.core.processes import Processes
from amgen.core.progress import Progress
from amgen.core.randomness import Purpose, derive_seed, permutation, rademacher, uniforms
from amgen.data import ImageDataset, open_dataset, to_float
from amgen.dynamics import Dynamics, Entropic, Unbalanced
from amgen.evaluation.metrics import Figure
from amgen.evaluation.reference import fingerprint
from amgen.evaluation.report import Evaluation
from amgen.paths import Path
from amgen.sampling import Model, describe_solver, solver_of
from amgen.sampling.conditioning import labels_of
from amgen.solvers import ADAPTIVE, ODESolver

DEFAULT_NUM = 1_000
DEFAULT_PROBES = 4
CELL = 2 / 255
"""Width of the cell of a gray level, where images lie in [-1, 1]."""
OFFSET = -math.log2(CELL)
"""Bits/dim of a density of 1 for each dimension."""


def evaluate(
    model: Model,
    options: SamplingConfig,
    num: int | None = None,
    seed: int = 0,
    probes: int = DEFAULT_PROBES,
    data: str | Mapping[str, Any] | None = None,
    processes: Processes = Processes(),  # noqa: B008 (immutable)
    say: Callable[[str], None] = print,
) -> Evaluation:
    """Measure the bits/dim of images, each given its own class where the model has classes.

    An image's estimates are a function of (model, solver, seed, its index in the data), but that an adaptive solver chooses one step for
    all images of a batch, which moves them within its tolerance.

    Args:
        model: the model.
        options: solver and batch size, as `ode_options` returns them.
        num: how many images, drawn from the data by the seed; by default all, at most 1,000.
        seed: seed of that draw, of the dequantisation and of the probes.
        probes: probes for each image; 0 computes the divergence exactly, at the price of one product for each dimension.
        data: a folder, zip or data set of images, by default the training images; or options of their section `data` to change.
        processes: those that share the work; each calls this function, and each gets the whole report.
        say: takes lines of progress, on the main process.

    Raises:
        UserError: if the model has no density that can be followed, or the images do not fit it or are too few.
        Diverged: if an image meets values that are not finite.
    """
    check(model, options.solver)
    solver = solver_of(options)
    assert isinstance(solver, ODESolver)  # as checked
    changes = data if isinstance(data, Mapping) else {"path": data}
    dataset = open_dataset(change(model.config.images, changes), say if processes.main else None)
    labelled = labels_of(model.config, [0], images=dataset) is not None  # classes that do not fit are found before anything slow
    indices = choose(dataset, min(len(dataset), DEFAULT_NUM) if num is None else num, seed)
    start = time.perf_counter()
    found: list[tuple[int, list[float]]] = []
    evaluations = 0

    def prepared(batch: Sequence[int]) -> tuple[Dynamics, Tensor, Tensor | None]:
        labels = labels_of(model.config, batch, images=dataset)
        dynamics = Dynamics(model.action, model.dynamics, model.path, None if labels is None else labels.to(model.device))
        x = dequantise(dataset.images(batch), seed, batch).to(model.device)
        return dynamics, x, draw_probes(seed, batch, probes, x.shape[1:]).to(x) if probes else None

    def work(batch: Sequence[int]) -> tuple[Tensor, int]:
        dynamics, x, signs = prepared(batch)
        density = log_density(solver, dynamics, model.path, x, signs, [dataset.source.name(index) for index in batch])
        return bits_per_dimension(density, x[0].numel()), dynamics.evaluations

    def probe(batch: Sequence[int]) -> tuple[Tensor, Tensor]:
        dynamics, x, signs = prepared(batch)
        return dynamics.velocity_and_divergence(1.0, x, signs)

    progress = Progress(len(indices), "images", say, processes, "following images to noise")
    for batch, (values, needed) in in_batches(work, indices, options.batch_size, probe, model.device, processes, say):
        found += zip(batch, values.tolist(), strict=True)
        evaluations = max(evaluations, needed)
        progress.advance(len(batch))
    bits = dict(processes.gather(found))
    evaluations = max(processes.gather([evaluations]))
    guidance = model.config.sampling.guidance
    return Evaluation(
        figures=[bits_figure(torch.tensor([bits[index] for index in indices], dtype=torch.float64), exact=not probes)],
        generated=0,
        real=len(indices),
        reference=f"{dataset.source.description}, drawn by the seed from {len(dataset):,}{', each conditioning its class' * labelled}",
        features=None,
        model=model.describe(),
        sampling={**describe_solver(options), "NFE": evaluations, "seed": seed, "probes": probes or "exact"},
        seconds={"integrating": time.perf_counter() - start},
        choices={"images": fingerprint(dataset)},
        warnings=[] if guidance == 1 else [f"the run draws with guidance {guidance:g}, which the likelihood leaves out"],
    )


def bits_figure(bits: Tensor, exact: bool) -> Figure:
    """Return the mean of bits/dim, float64 (N, P), over N images with P estimates each, and the errors that are known of it.

    The standard error comes of the spread over images, in which their dequantisation and their probes are drawn too. An image's estimates
    are independent given the image, so that their spread tells the probes' part in it, if there are at least two.
    """
    count, estimates = bits.shape
    deviation = float(bits.mean(dim=1).std())
    details: dict[str, Any] = {
        "standard_deviation": deviation,
        "offset": OFFSET,
        "dequantisation": "x = (k + u - 1/2)/127.5 - 1, u uniform on [0, 1)",
    }
    note = f"standard error over {count:,} images"
    if exact:
        note += ", exact divergence"
    elif estimates == 1:
        note += ", one probe each, whose part in it is not known"
    else:
        one = float((bits.var(dim=1).mean() / estimates).sqrt())
        details |= {"probe_standard_error_of_one_image": one, "probe_standard_error": one / math.sqrt(count)}
        note += f"; of it the probes make {one / math.sqrt(count):.2g}, and {one:.2g} for one image alone"
    return Figure("bits/dim", float(bits.mean()), deviation / math.sqrt(count), note, details)


def ode_options(model: Model, changes: Mapping[str, Any]) -> SamplingConfig:
    """Return the sampling settings of the run with some changed, for the ODE whose density is followed.

    Raises:
        UserError: for settings that do not exist or do not fit the model, or a model without such a density.
    """
    solver = changes.get("solver") or model.config.sampling.solver
    check(model, solver)
    for name in ("steps", "step_grid", "rho"):
        if solver in ADAPTIVE and changes.get(name) is not None:
            raise UserError(f"{name}={changes[name]}: {solver} chooses its own steps: leave it out, or choose a solver such as rk4")
    return model.options({**changes, "noise_level": 0.0})


def check(model: Model, solver: str) -> None:
    """Refuse a model whose density cannot be followed, and a solver that cannot follow it.

    Raises:
        UserError: with the reason and an alternative.
    """
    model.config.image_shape  # noqa: B018 (refuses models of points)
    if isinstance(model.dynamics, Entropic):
        raise UserError(
            "entropic dynamics are an SDE, whose density does not follow from the action alone: "
            "score the model with amgen eval-fid, or train with dynamics.kind=balanced"
        )
    if isinstance(model.dynamics, Unbalanced):
        raise UserError(
            "unbalanced dynamics create and destroy mass, so that carrying noise along leaves out a part of the density: "
            "compare class shares with scripts/experiments/class_histogram.py, or train with dynamics.kind=balanced"
        )
    if model.path.conditional:
        raise UserError(
            f"path.kind={model.config.path.kind} starts from given images, so that what it generates has no density among all images: "
            "compare with the truth by scripts/experiments/complete_images.py, or train with path.kind=linear"
        )
    if solver in SDE_SOLVERS:
        raise UserError(f"solver={solver} is for SDEs, and a density is followed along the ODE: choose one of {', '.join(ODE_SOLVERS)}")
    if model.device.type == "mps":
        raise UserError("device=mps has no double precision, in which log densities add up: use --device cpu")


def choose(dataset: ImageDataset, num: int, seed: int) -> list[int]:
    """Return which `num` images to measure, in order, drawn without replacement: the first ones of a sorted folder are of one class.

    Raises:
        UserError: if there are not as many, or fewer than two are asked for.
    """
    if num > len(dataset):
        raise UserError(f"num={num}: {dataset.source.description} has {len(dataset)} images: ask for at most as many")
    if num < 2:
        raise UserError(f"num={num}: expected at least 2 images, of which a standard error can be had")
    return permutation(seed, Purpose.LIKELIHOOD_IMAGES, 0, len(dataset))[:num].sort().values.tolist()


def dequantise(images: Tensor, seed: int, indices: Sequence[int]) -> Tensor:
    """Put uint8 images (B, C, H, W) anywhere in the cells of their levels, float32; a function of (seed, index)."""
    places = uniforms(seed, Purpose.DEQUANTISATION, indices, images[0].numel()).reshape(images.shape)
    return to_float(images) + CELL * (places - 0.5)


def draw_probes(seed: int, indices: Sequence[int], count: int, shape: Sequence[int]) -> Tensor:
    """Draw signs, float32 (B, count, *shape); each probe is a function of (seed, index, its number)."""
    seeds = [derive_seed(seed, Purpose.TRACE_PROBE, probe) for probe in range(count)]
    return torch.stack([rademacher(seed, Purpose.TRACE_PROBE, indices, shape) for seed in seeds], dim=1)


def bits_per_dimension(log_density: Tensor, dimension: int) -> Tensor:
    """Turn log densities of dequantised images, in nats, into bits/dim, same shape."""
    return -log_density / (dimension * math.log(2)) + OFFSET


def log_density(
    solver: ODESolver, dynamics: Dynamics, path: Path, x: Tensor, probes: Tensor | None = None, names: Sequence[str] | None = None
) -> Tensor:
    """Return log q_1 of points, estimated by each probe, float64 (B, P); exact, (B, 1), without probes.

    Velocities are computed in the points' precision, and add up in double precision.

    Args:
        solver: for the way back from t = 1 to 0.
        dynamics: the motion.
        path: where q_0 is known from.
        x: points at t = 1, (B, ...).
        probes: random signs, (B, P, ...).
        names: what to call each point in an error; by default by its row.

    Raises:
        Diverged: if a velocity, divergence or density is not finite.
    """
    size, estimates = x[0].numel(), 1 if probes is None else probes.shape[1]
    probes = None if probes is None else probes.to(x)
    names = [f"point {row}" for row in range(len(x))] if names is None else names

    def motion(t: float, state: Tensor) -> Tensor:
        point = state[:, :size].reshape(x.shape).to(x.dtype)
        velocity, divergence = dynamics.velocity_and_divergence(t, point, probes)
        return _finite(torch.cat([velocity.flatten(1), divergence], dim=1).double(), names)

    start = torch.cat([x.flatten(1).double(), x.new_zeros(len(x), estimates, dtype=torch.float64)], dim=1)
    end = solver.solve(motion, start, backward=True)
    # Going back from 1 to 0, the rate div v has added up to minus its integral.
    return _finite(path.log_prior(end[:, :size])[:, None] + end[:, size:], names)


def _finite(values: Tensor, names: Sequence[str]) -> Tensor:
    """Return `values` (B, ...) if all are finite."""
    finite = torch.isfinite(values).all(dim=1)
    if not finite.all():
        first = names[int((~finite).nonzero()[0])]
        raise Diverged(f"{first} meets values that are not finite on its way to noise: use more steps or another checkpoint")
    return values
