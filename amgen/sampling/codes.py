"""Latent codes in a file, as `amgen encode` writes and `amgen sample --noise` reads them. A latent code is the noise of an image."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amgen.core.errors import UserError
from amgen.core.files import make_folder, replacing
from amgen.core.npz import read_npz
from amgen.model.trained import TrainedAction
from amgen.sampling.inversion import Encoded
from amgen.sampling.request import Request

SOLVER_SETTINGS = ("solver", "steps", "step_grid", "rho", "tolerance")
"""Sampling settings that describe the solver."""


@dataclass
class LatentCodes:
    """Latent codes of N images: points at t = 0 from which the ODE leads to the images.

    Attributes:
        noise: float32 (N, C, H, W).
        classes: class that each image was encoded with, int64 (N,); None without classes, or if the file does not say.
        settings: what the codes depend on, such as `weights_sha256`, `guidance` and the solver; empty if the file does not say.
    """

    noise: Tensor
    classes: Tensor | None
    settings: dict[str, Any]


def save_codes(file: Path, encoded: Sequence[Encoded], settings: Mapping[str, Any]) -> Tensor:
    """Write encoded images as an npz, whole or not at all, and return their errors, (N,).

    The arrays are `noise` (N, C, H, W), `error` (N,), `labels` (N,) for a model with classes, and `settings` as JSON.

    Raises:
        UserError: if the file cannot be written; an existing file stays as it is.
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


def read_codes(file: Path, shape: Sequence[int]) -> LatentCodes:
    """Read latent codes from an npz; a file with the array `noise` alone can be read as well.

    Args:
        file: the npz.
        shape: shape of one code, (C, H, W).

    Raises:
        UserError: if there is no such file, or it does not contain codes of this shape.
    """
    advice = "give an .npz that amgen encode wrote"
    found = read_npz(file, ("noise", "labels", "settings"), advice, {"noise": tuple(shape), "labels": (), "settings": None})
    if "noise" not in found:
        raise UserError(f"cannot read noise from {file}: it has no array named noise: {advice}")
    values = found["noise"]
    if values.shape[1:] != tuple(shape) or not len(values) or values.dtype.kind != "f":
        expected = ", ".join(["N", *map(str, shape)])
        raise UserError(f"{file} holds noise of shape {values.shape}, {values.dtype}: expected floats ({expected})")
    with np.errstate(over="ignore"):
        noise = torch.from_numpy(values.astype(np.float32))  # of any precision and byte order
    if not torch.isfinite(noise).all():
        raise UserError(f"{file} holds noise that is not finite: encode the images again")
    try:
        settings = json.loads(str(found["settings"])) if "settings" in found else {}
        if not isinstance(settings, dict):
            raise ValueError("its settings are not a table")
        labels = torch.from_numpy(found["labels"].astype(np.int64, casting="safe")) if "labels" in found else None
        if labels is not None and labels.shape != (len(noise),):
            raise ValueError(f"it holds {labels.numel()} labels for {len(noise)} images")
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"cannot read noise from {file}: {error}: {advice}") from None
    return LatentCodes(noise, labels, settings)


def chosen_codes(noise: Tensor, seeds: Sequence[int] | None, between: str | None) -> list[int]:
    """Return the indices of the codes (N, ...) to decode: `seeds`, by default all.

    Raises:
        UserError: if there is no such code, or `between` is given as well.
    """
    if between is not None:
        raise UserError("--noise and --between each say what to start from: give one of them")
    indices = list(range(len(noise)) if seeds is None else seeds)
    beyond = [index for index in indices if index >= len(noise)]
    if beyond:
        raise UserError(f"--seeds: there is no noise {beyond[0]}: the file holds 0 to {len(noise) - 1}")
    return indices


def decoding_settings(
    file: Path, codes: LatentCodes, model: TrainedAction, changes: Mapping[str, Any], request: Request
) -> tuple[dict[str, Any], list[str]]:
    """Return the sampling settings that decode the codes, and lines about what was taken from the file and what differs.

    Solver and guidance are those of the encoding, unless `changes` gives others.

    Args:
        file: file of the codes, for messages.
        codes: the codes.
        model: the model that decodes them.
        changes: settings by name that the user asks for; None for those of the file.
        request: class, seed and start images that the user asks for.

    Raises:
        UserError: if the codes were made with other weights or start images, or have classes that the model does not have.
    """
    made, asked = codes.settings, {key: value for key, value in changes.items() if value is not None}
    classes = model.config.action.classes
    if codes.classes is not None and (not classes or not 0 <= int(codes.classes.min()) <= int(codes.classes.max()) < classes):
        raise UserError(f"--noise {file} has classes that this model does not know: encode the images with this model")
    if "weights_sha256" not in made:
        return asked, [f"{file} does not say which weights, guidance and classes its noise was made with: it is used as it is"]
    _check_origin(file, made, model, request)
    solver = {key: made[key] for key in SOLVER_SETTINGS if key in made}
    if not asked.keys() & {*SOLVER_SETTINGS, "noise_level"}:
        asked |= {**solver, "noise_level": 0.0}
    notes = [f"{file}: made with {', '.join(f'{key} {value}' for key, value in solver.items())}, guidance {made.get('guidance')}"]
    if asked.setdefault("guidance", made.get("guidance")) != made.get("guidance"):
        notes.append(f"guidance {asked['guidance']:g} differs from that of the noise: the images will be different")
    if request.label is not None and codes.classes is not None and (codes.classes != request.label).any():
        notes.append(f"label {request.label} is not the class of all of the noise: the images will be different")
    return asked, notes


def _check_origin(file: Path, made: Mapping[str, Any], model: TrainedAction, request: Request) -> None:
    """Refuse codes of other weights, of another seed where it matters, or of other start images."""
    if made["weights_sha256"] != model.weights_sha256:
        raise UserError(
            f"--noise {file} was made with other weights (SHA-256 {str(made['weights_sha256'])[:12]}..., not "
            f"{model.weights_sha256[:12]}...): encode the images with this model"
        )
    if model.path.auxiliary and made.get("seed") != request.seed:
        raise UserError(f"--noise {file} was made with --seed {made.get('seed')}, not {request.seed}: give that one")
    if request.images is not None and made.get("data_fingerprint") != request.images.source.fingerprint():
        raise UserError(f"--noise {file} was made from other images than {request.images.source.description}: give them (--condition-data)")
