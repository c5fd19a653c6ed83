"""From images back to the noise that leads to them, and the file that keeps it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amgen.config import SamplingConfig
from amgen.core.batching import in_batches
from amgen.core.errors import UserError
from amgen.core.files import make_folder, replacing
from amgen.core.npz import read_npz
from amgen.core.progress import Progress
from amgen.data import ImageDataset, to_float
from amgen.dynamics import Entropic
from amgen.model.trained import TrainedAction
from amgen.sampling.generate import evaluate_once, prepare
from amgen.sampling.request import Request
from amgen.sampling.solver import solver_of
from amgen.solvers import ODESolver


@dataclass
class Codes:
    """Points at t = 0 that lead to images, as `amgen encode` writes them.

    Attributes:
        noise: float32 (N, C, H, W).
        classes: the class that each was encoded with, int64 (N,); None without classes, or where the file does not say.
        settings: what the noise depends on, such as `weights_sha256`, `guidance` and the solver; empty where the file does not say.
    """

    noise: Tensor
    classes: Tensor | None
    settings: dict[str, Any]


@dataclass
class Encoded:
    """Images carried back to noise, and forth again.

    Attributes:
        noise: points at t = 0, float32 (B, C, H, W).
        error: largest difference between an image and what its noise leads to, for each image, in [-1, 1] units, (B,).
        evaluations: gradients of the action, both ways (NFE).
        labels: classes that the images were taken to be of, int64 (B,); None for a model without classes.
    """

    noise: Tensor
    error: Tensor
    evaluations: int
    labels: Tensor | None = None


def save_noise(file: Path, encoded: Sequence[Encoded], settings: Mapping[str, Any]) -> Tensor:
    """Write encoded images as an npz, whole or not at all, and return the errors.

    `noise` (N, C, H, W), `error` (N,), `labels` (N,) where there are classes, and `settings`, what the noise depends on, as JSON.

    Raises:
        UserError: if the file cannot be written; what was there stays.
    """
    make_folder(file.parent)
    noise, error = (torch.cat([getattr(batch, name) for batch in encoded]) for name in ("noise", "error"))
    found = {"noise": noise.numpy(), "error": error.numpy(), "settings": np.array(json.dumps(settings))}
    labels = [batch.labels for batch in encoded if batch.labels is not None]
    if labels:
        found["labels"] = torch.cat(labels).numpy()
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **found)  # type: ignore[arg-type]
    return error


def read_noise(file: Path, shape: Sequence[int]) -> Codes:
    """Read points at t = 0 of an npz, as amgen encode writes it.

    Args:
        file: the npz; one that holds `noise` alone is read as well.
        shape: shape of what the model moves.

    Raises:
        UserError: if there is no such file, or it holds something else.
    """
    advice = "give an .npz that amgen encode wrote"
    found = read_npz(file, ("noise", "labels", "settings"), advice, {"noise": tuple(shape), "labels": (), "settings": None})
    if "noise" not in found:
        raise UserError(f"cannot read noise from {file}: it holds none: {advice}")
    values = found["noise"]
    if values.shape[1:] != tuple(shape) or not len(values) or values.dtype.kind != "f":
        raise UserError(_other_noise(file, values.shape, values.dtype, shape))
    with np.errstate(over="ignore"):
        noise = torch.from_numpy(values.astype(np.float32))  # of any precision and byte order
    if not torch.isfinite(noise).all():
        raise UserError(f"{file} holds noise that is not finite: encode the images again")
    try:
        settings = json.loads(str(found["settings"])) if "settings" in found else {}
        if not isinstance(settings, dict):
            raise ValueError("its settings are no table")
        labels = torch.from_numpy(found["labels"].astype(np.int64, casting="safe")) if "labels" in found else None
        if labels is not None and labels.shape != (len(noise),):
            raise ValueError(f"it holds {labels.numel()} labels for {len(noise)} images")
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"cannot read noise from {file}: {error}: {advice}") from None
    return Codes(noise, labels, settings)


def _other_noise(file: Path, found: tuple[int, ...], dtype: object, shape: Sequence[int]) -> str:
    return f"{file} holds noise of shape {found}, {dtype}: expected floats ({', '.join(['N', *map(str, shape)])})"


def encode(model: TrainedAction, options: SamplingConfig, images: Tensor, indices: Sequence[int], request: Request) -> Encoded:
    """Carry images, float (B, C, H, W) in [-1, 1], to noise by the ODE backwards, and forth again to see what is lost.

    Classes, guidance and what is given of the images are those of the request.

    Raises:
        UserError: for entropic dynamics, whose noise is not a function of the image.
    """
    solver = solver_of(options)
    if isinstance(model.dynamics, Entropic) or not isinstance(solver, ODESolver):
        raise UserError("only an ODE can be followed backwards: entropic dynamics and SDE solvers have no code for an image")
    batch = prepare(model, indices, request)
    dynamics = batch.dynamics
    noise = solver.solve(dynamics.velocity, images.to(model.device), backward=True)
    again = model.path.finish(solver.solve(dynamics.velocity, noise))
    error = (again - images.to(model.device)).abs().flatten(1).amax(dim=1)
    return Encoded(noise.cpu(), error.cpu(), dynamics.evaluations, batch.labels)


def encode_all(
    model: TrainedAction,
    options: SamplingConfig,
    dataset: ImageDataset,
    indices: Sequence[int],
    request: Request,
    say: Callable[[str], None] = print,
) -> Iterator[Encoded]:
    """Encode the images `indices` of a data set, `options.batch_size` at a time; otherwise as `encode`.

    Each image is taken to be of its own class, unless the request says otherwise. `say` takes lines of progress.
    """
    request = replace(request, images=dataset)
    progress = Progress(len(indices), "images", say, doing="encoding")

    def work(batch: Sequence[int]) -> Encoded:
        return encode(model, options, to_float(dataset.images(batch)), batch, request)

    probe = partial(evaluate_once, model, request=request)
    for batch, encoded in in_batches(work, indices, options.batch_size, probe, model.device, say=say):
        progress.advance(len(batch))
        yield encoded


SOLVER_SETTINGS = ("solver", "steps", "step_grid", "rho", "tolerance")


def starts_of(noise: Tensor, seeds: Sequence[int] | None, between: str | None) -> list[int]:
    """Return which entries of given noise (N, ...) to start from: those that `seeds` name, by default all.

    Raises:
        UserError: if an entry does not exist, or images between two of a seed are asked for as well.
    """
    if between is not None:
        raise UserError("--noise and --between each say what to start from: leave one out")
    indices = list(range(len(noise)) if seeds is None else seeds)
    beyond = [index for index in indices if index >= len(noise)]
    if beyond:
        raise UserError(f"--seeds: there is no noise {beyond[0]}: the file holds 0 to {len(noise) - 1}")
    return indices


def settings_of_codes(
    file: Path, codes: Codes, model: TrainedAction, changes: Mapping[str, Any], request: Request
) -> tuple[dict[str, Any], list[str]]:
    """Return the settings that lead codes back to their images, and lines that say what was taken over and what was not.

    Solver and guidance are those that the images were encoded with, but for what `changes` ask for.

    Args:
        file: where the codes are from.
        codes: the codes.
        model: the model that is to draw from them.
        changes: settings asked for by name; None where the ones of the codes are to be used.
        request: what else is asked for: a class in place of those of the codes, the seed, and images that the model starts from.

    Raises:
        UserError: if the codes belong to other weights or images, or to classes that the model has not.
    """
    made, given = codes.settings, {key: value for key, value in changes.items() if value is not None}
    classes = model.config.action.classes
    if codes.classes is not None and (not classes or not 0 <= int(codes.classes.min()) <= int(codes.classes.max()) < classes):
        raise UserError(f"--noise {file} holds classes that this model has not: encode the images with it")
    if "weights_sha256" not in made:
        return given, [f"{file} does not say which weights, guidance and classes its noise was made with: it is taken as it is"]
    if made["weights_sha256"] != model.weights_sha256:
        raise UserError(
            f"--noise {file} was made with other weights (SHA-256 {str(made['weights_sha256'])[:12]}..., not "
            f"{model.weights_sha256[:12]}...): encode the images with this model"
        )
    images, label = request.images, request.label
    if model.path.auxiliary and made.get("seed") != request.seed:
        raise UserError(f"--noise {file} was made with --seed {made.get('seed')}, not {request.seed}: give that one")
    if images is not None and made.get("data_fingerprint") != images.source.fingerprint():
        raise UserError(f"--noise {file} was made from other images than {images.source.description}: give them (--condition-data)")
    solver = {key: made[key] for key in SOLVER_SETTINGS if key in made}
    if not given.keys() & {*SOLVER_SETTINGS, "noise_level"}:
        given |= {**solver, "noise_level": 0.0}
    notes = [f"{file}: made with {', '.join(f'{key} {value}' for key, value in solver.items())}, guidance {made.get('guidance')}"]
    if given.setdefault("guidance", made.get("guidance")) != made.get("guidance"):
        notes.append(f"guidance {given['guidance']:g} is not the noise's: the images will be others")
    if label is not None and codes.classes is not None and (codes.classes != label).any():
        notes.append(f"label {label} is not the class that all of the noise was made with: the images will be others")
    return given, notes
