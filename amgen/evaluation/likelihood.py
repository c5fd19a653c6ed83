"""The likelihood of images under a model, in bits per dimension (bits/dim).

Symbols: k the value of a pixel, 0 to 255; D the number of values of an image; q_0, q_1 the densities of the model at t = 0 and t = 1. The
ODE dx/dt = v(t, x) of the model transports q_0 to q_1.

Along the ODE d/dt log q_t(x_t) = -div v(t, x_t). An image x is integrated backwards from x_1 = x to x_0. Then

    log q_1(x) = log q_0(x_0) - integral over [0, 1] of div v(t, x_t) dt.

The divergence is the mean of e . J e over random signs e, where J is the Jacobian of v (Hutchinson). Each e, kept fixed along the ODE,
gives one unbiased estimate of the integral (FFJORD, Grathwohl et al. 2019, arXiv 1810.01367, section 3.1). All e are integrated together
with the point.

A density of 8-bit images is that of dequantised, continuous values. The model sees k as k/127.5 - 1. Level k stands for the cell of width
1/127.5 around it; its values are also those that are rounded to k when images are written:

    x = (k + u - 1/2) / 127.5 - 1,  u uniform on [0, 1),    bits/dim = -log q_1(x) / (D ln 2) + log2(127.5).

The last term is the width of a cell. The literature often uses x = (k + u)/128 - 1 with the offset 7 = log2(128). Our x is 256/255 times
that: densities scale by 255/256 for each dimension and the offset falls by log2(256/255). So bits/dim mean the same. Their
mean is an upper bound of -log2 P(k) / D, where P(k) is the mass of the cell (Jensen; Theis et al. 2016, arXiv 1511.01844, section 3.1). A
density that is uniform over the cells has 8 bits/dim. Low is good.
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
from amgen.evaluation.reference import fingerprint
from amgen.evaluation.report import Evaluation
from amgen.evaluation.scores import Score
from amgen.paths import Path
from amgen.sampling import Model, Request, describe_solver, labels_of, solver_of
from amgen.solvers import ADAPTIVE, ODESolver

DEFAULT_NUM = 1_000
DEFAULT_PROBES = 4
CELL = 2 / 255
"""Width of the cell of a gray level, for images in [-1, 1]."""
OFFSET = -math.log2(CELL)
"""Bits/dim of a density of 1 in each dimension."""


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
    """Measure the bits/dim of images. A model with classes is given the class of each image.

    The result is an upper bound of the negative log-likelihood of 8-bit images, in bits for each pixel and channel; low is good. See the
    module for the formula. The estimates of an image are a function of (model, solver, seed, its index in the data). The exception: an
    adaptive solver chooses one step for all images of a batch, which changes them within its tolerance.

    Args:
        model: a model of images with balanced dynamics that starts from noise.
        options: solver and batch size, as `ode_options` returns them.
        num: number of images, chosen by the seed; by default all, at most 1,000.
        seed: seed of the choice, of the dequantisation and of the probes.
        probes: number of random signs for each image that estimate the divergence. 0 computes the divergence exactly, with one product for
            each dimension.
        data: a folder, zip or data set of images, by default the training images; or options of the section `data` to change.
        processes: the processes that share the work. Each calls this function, and each gets the whole report.
        say: called with lines of progress, on the main process.

    Raises:
        UserError: if the model has no density that can be computed, the images do not fit the model, or there are too few images.
        Diverged: if an image reaches values that are not finite.

    Example:
        >>> import amgen
        >>> from amgen.evaluation.likelihood import evaluate, ode_options
        >>> model = amgen.load("runs/digits")
        >>> options = ode_options(model, {"solver": "heun", "steps": 2})
        >>> evaluation = evaluate(model, options, num=4, say=lambda line: None)
        >>> evaluation.principal.name, evaluation.sampling["NFE"]
        ('bits/dim', 4)
        >>> evaluation.principal.value > 0
        True
    """
    check_density(model, options.solver)
    solver = solver_of(options)
    assert isinstance(solver, ODESolver)  # as checked
    changes = data if isinstance(data, Mapping) else {"path": data}
    dataset = open_dataset(change(model.config.images, changes), say if processes.main else None)
    labelled = labels_of(model.config, [0], Request(images=dataset)) is not None  # refuses classes that do not fit, before the slow work
    indices = select_images(dataset, min(len(dataset), DEFAULT_NUM) if num is None else num, seed)
    start = time.perf_counter()
    found: list[tuple[int, list[float]]] = []
    evaluations = 0

    def prepared(batch: Sequence[int]) -> tuple[Dynamics, Tensor, Tensor | None]:
        labels = labels_of(model.config, batch, Request(images=dataset))
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

    progress = Progress(len(indices), "images", say, processes, "integrating images to noise")
    for batch, (values, needed) in in_batches(work, indices, options.batch_size, probe, model.device, processes, say):
        found += zip(batch, values.tolist(), strict=True)
        evaluations = max(evaluations, needed)
        progress.advance(len(batch))
    bits = dict(processes.gather(found))
    evaluations = max(processes.gather([evaluations]))
    guidance = model.config.sampling.guidance
    return Evaluation(
        scores=[bits_score(torch.tensor([bits[index] for index in indices], dtype=torch.float64), exact=not probes)],
        generated=0,
        real=len(indices),
        # A condition of the score and a part of the report's file name, so the text stays as in version 0.1.0.
        reference=f"{dataset.source.description}, drawn by the seed from {len(dataset):,}{', each given its class' * labelled}",
        features=None,
        model=model.describe(),
        sampling={**describe_solver(options), "NFE": evaluations, "seed": seed, "probes": probes or "exact"},
        seconds={"integrating": time.perf_counter() - start},
        metric_options={"images": fingerprint(dataset)},
        warnings=[] if guidance == 1 else [f"the run generates images with guidance {guidance:g}; the likelihood is that without guidance"],
    )


def bits_score(bits: Tensor, exact: bool) -> Score:
    """Return the mean of bits/dim over images, and the standard errors.

    The standard error comes from the spread over images, which includes the dequantisation and the probes of each image. The estimates of
    one image by several probes are independent, so their spread gives the part of the probes in it.

    Args:
        bits: bits/dim of N images with P estimates each, float64, (N, P).
        exact: whether the divergences were exact.
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
        note += ", one probe each, whose contribution is not known"
    else:
        one = float((bits.var(dim=1).mean() / estimates).sqrt())
        details |= {"probe_standard_error_of_one_image": one, "probe_standard_error": one / math.sqrt(count)}
        note += f"; the probes contribute {one / math.sqrt(count):.2g} to it, and {one:.2g} for a single image"
    return Score("bits/dim", float(bits.mean()), deviation / math.sqrt(count), note, details)


def ode_options(model: Model, changes: Mapping[str, Any]) -> SamplingConfig:
    """Return the sampling settings of the run with changes, for the ODE of the model.

    Args:
        model: the model.
        changes: sampling settings by name, such as solver, steps and batch_size; None keeps the run's setting.

    Raises:
        UserError: for settings that do not exist or do not fit the model, and for a model without a density.
    """
    solver = changes.get("solver") or model.config.sampling.solver
    check_density(model, solver)
    for name in ("steps", "step_grid", "rho"):
        if solver in ADAPTIVE and changes.get(name) is not None:
            raise UserError(f"{name}={changes[name]}: {solver} chooses its own steps: leave it out, or choose a solver such as rk4")
    return model.options({**changes, "noise_level": 0.0})


def check_density(model: Model, solver: str) -> None:
    """Refuse a model whose density cannot be computed, and a solver that does not solve ODEs.

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
            "unbalanced dynamics create and destroy mass, so the ODE gives only a part of the density: "
            "compare class shares with scripts/experiments/class_histogram.py, or train with dynamics.kind=balanced"
        )
    if model.path.conditional:
        raise UserError(
            f"path.kind={model.config.path.kind} starts from other images, so its results have no density among all images: "
            "compare them with the truth by scripts/experiments/complete_images.py, or train with path.kind=linear"
        )
    if solver in SDE_SOLVERS:
        raise UserError(f"solver={solver} is for SDEs, and a density is computed along the ODE: choose one of {', '.join(ODE_SOLVERS)}")
    if model.device.type == "mps":
        raise UserError("device=mps has no double precision, which log densities need: use --device cpu")


def select_images(dataset: ImageDataset, num: int, seed: int) -> list[int]:
    """Return the indices of `num` images, sorted, chosen without replacement by the seed.

    (The first images of a sorted folder would all be of one class.)

    Raises:
        UserError: if the data set has fewer images, or `num` is below 2.
    """
    if num > len(dataset):
        raise UserError(f"num={num}: {dataset.source.description} has {len(dataset)} images: use at most {len(dataset)}")
    if num < 2:
        raise UserError(f"num={num}: expected at least 2 images, which the standard error needs")
    return permutation(seed, Purpose.LIKELIHOOD_IMAGES, 0, len(dataset))[:num].sort().values.tolist()


def dequantise(images: Tensor, seed: int, indices: Sequence[int]) -> Tensor:
    """Return uint8 images (B, C, H, W) as float32 points, uniform in the cells of their levels; a function of (seed, index)."""
    places = uniforms(seed, Purpose.DEQUANTISATION, indices, images[0].numel()).reshape(images.shape)
    return to_float(images) + CELL * (places - 0.5)


def draw_probes(seed: int, indices: Sequence[int], count: int, shape: Sequence[int]) -> Tensor:
    """Return random signs, float32, (B, count, *shape). Each probe is a function of (seed, index, number of the probe)."""
    seeds = [derive_seed(seed, Purpose.TRACE_PROBE, probe) for probe in range(count)]
    return torch.stack([rademacher(seed, Purpose.TRACE_PROBE, indices, shape) for seed in seeds], dim=1)


def bits_per_dimension(log_density: Tensor, dimension: int) -> Tensor:
    """Return log densities of dequantised images, in nats, as bits/dim, of the same shape."""
    return -log_density / (dimension * math.log(2)) + OFFSET


def log_density(
    solver: ODESolver, dynamics: Dynamics, path: Path, x: Tensor, probes: Tensor | None = None, names: Sequence[str] | None = None
) -> Tensor:
    """Return log q_1 of points, in nats.

    Velocities are computed in the precision of the points, and summed in float64.

    Args:
        solver: the ODE solver, used from t = 1 back to 0.
        dynamics: the velocity and its divergence.
        path: defines q_0.
        x: points at t = 1, (B, ...).
        probes: random signs, (B, P, ...); None computes the divergence exactly.
        names: name of each point for errors; by default its row.

    Returns:
        float64, (B, P): one estimate for each probe; (B, 1) without probes.

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
    # Integrated from 1 to 0, so the sum of div v is minus its integral over [0, 1].
    return _finite(path.log_prior(end[:, :size])[:, None] + end[:, size:], names)


def _finite(values: Tensor, names: Sequence[str]) -> Tensor:
    """Return `values`, (B, D), if all are finite."""
    finite = torch.isfinite(values).all(dim=1)
    if not finite.all():
        first = names[int((~finite).nonzero()[0])]
        raise Diverged(f"{first} reaches values that are not finite on the way to noise: use more steps or another checkpoint")
    return values
