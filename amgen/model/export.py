"""One set of weights for sampling: read from a run, a checkpoint or an exported file, and written as an exported file.

An exported file is one weights file (safetensors). Its metadata have the configuration, the name and the checksum of the weights.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor, nn

from amgen.config import Config
from amgen.core.checks import check_export
from amgen.core.errors import UserError
from amgen.core.files import make_folder, replacing
from amgen.data.loadings import FILE as LOADINGS_FILE
from amgen.data.loadings import Loadings
from amgen.model.checkpoints import ACTION, NEIGHBOURHOOD, ema_name, find, rate_text, read_neighbourhood, verify
from amgen.model.weights_file import FORMAT, digest, load_tensors, read_config, read_metadata, reading, save_tensors

LOADINGS = "loadings:"
"""Start of the names of those tensors of an exported file that are loadings of principal components. The checksum is that of the others."""


@dataclass
class Weights:
    """One set of weights.

    Attributes:
        config: configuration of the run that they come from.
        name: `action` for the weights themselves, or `ema-RATE` for averaged weights.
        tensors: the state dict of the network, on the CPU.
        step: number of optimisation steps before them.
        images: number of images that they were trained on.
        source: the checkpoint or the exported file.
        sha256: their checksum, see `amgen.model.weights_file.digest`.
        neighbourhood: tensors of `amgen.paths.Neighbourhood`; empty for images and for runs of earlier versions.
        loadings: of the principal components that are the coordinates of the points, or None.
    """

    config: Config
    name: str
    tensors: Mapping[str, Tensor]
    step: int
    images: int
    source: Path
    sha256: str
    neighbourhood: Mapping[str, Tensor] = field(default_factory=dict)
    loadings: Loadings | None = None


def read_weights(source: Path, ema: float | None = None, raw: bool = False) -> Weights:
    """Read and verify one set of weights of a run (its newest checkpoint), a checkpoint or an exported file.

    Args:
        source: the folder or file.
        ema: rate of the averaged weights; by default the first rate of the run, or the weights of the file.
        raw: read the weights themselves instead of an average.

    Raises:
        UserError: if there is no such checkpoint or average, or it is damaged.
    """
    with reading(source, "give the folder of a run or of a checkpoint, or an exported file"):
        exported = source.is_file()
    if exported:
        return _read_exported(source, ema, raw)
    folder = find(source)
    verify(folder, [f"{ACTION}.safetensors"])
    config = read_config(folder / f"{ACTION}.safetensors")
    rates = config.training.ema
    if ema is not None and ema not in rates:
        raise UserError(f"{folder} has no averaged weights of rate {rate_text(ema)}: choose one of {', '.join(map(rate_text, rates))}")
    name = ACTION if raw else ema_name(rates[0] if ema is None else ema)
    file = folder / f"{name}.safetensors"
    verify(folder, [file.name])
    metadata, tensors = read_metadata(file), load_tensors(file)
    neighbourhood, loadings = read_neighbourhood(folder), _loadings(config, folder)
    return Weights(config, name, tensors, metadata["step"], metadata["images"], folder, digest(tensors), neighbourhood, loadings)


def export(weights: Weights, file: Path) -> None:
    """Write one set of weights as a single file, whole or not at all. Sampling needs no other file.

    Raises:
        UserError: if it cannot be written.
    """
    check_export(file)
    contents = {
        **{"format": FORMAT, "config": weights.config.model_dump(mode="json"), "step": weights.step, "images": weights.images},
        **{"weights": weights.name, "sha256": weights.sha256},
    }
    neighbourhood = {f"{NEIGHBOURHOOD}.{name}": tensor for name, tensor in weights.neighbourhood.items()}
    make_folder(file.parent)
    with replacing(file) as temporary:
        try:
            extra = {} if weights.loadings is None else weights.loadings.tensors()
            extra = {LOADINGS + name: tensor for name, tensor in extra.items()}
            save_tensors(temporary, {**weights.tensors, **neighbourhood, **extra}, {"amgen": json.dumps(contents)})
        except SafetensorError as error:  # raised for a full disk
            raise UserError(f"cannot write {file}: {error}") from None


def _read_exported(file: Path, ema: float | None, raw: bool) -> Weights:
    metadata = read_metadata(file)
    if "weights" not in metadata or "sha256" not in metadata:
        raise UserError(f"{file} is part of a checkpoint: give its folder {file.parent}, or a file of amgen export")
    name, wanted = metadata["weights"], None if ema is None else ema_name(ema)
    if (raw and name != ACTION) or wanted not in (None, name):
        raise UserError(f"{file} holds the weights {name} alone, not {ACTION if raw else wanted}: export those from their run")
    tensors = load_tensors(file)
    neighbourhood, extra = _take(tensors, f"{NEIGHBOURHOOD}."), _take(tensors, LOADINGS)
    checksum = digest(tensors)
    if checksum != metadata["sha256"]:
        raise UserError(f"the weights in {file} are damaged (their SHA-256 differs from the one in its metadata): export them again")
    with reading(file, "export it again"):
        loadings = Loadings.from_tensors(extra) if extra else None
    return Weights(read_config(file), name, tensors, metadata["step"], metadata["images"], file, checksum, neighbourhood, loadings)


def _take(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove the tensors whose names begin with a prefix, and return them by the rest of their names."""
    return {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}


def _loadings(config: Config, checkpoint: Path) -> Loadings | None:
    """Return the loadings of the run that a checkpoint lies in, or that lie in the checkpoint itself; None if the run has none."""
    if getattr(config.data, "embedding", None) != "pca":
        return None
    places = [checkpoint.parent.parent / LOADINGS_FILE, checkpoint / LOADINGS_FILE]
    return Loadings.load(next((place for place in places if place.exists()), places[0]))


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict into a module.

    Raises:
        UserError: naming the first tensor that does not fit, if the weights are of another architecture.
    """
    own = module.state_dict()
    for name in [*own, *weights]:
        if name not in weights or name not in own:
            place = "the checkpoint lacks" if name not in weights else "the network lacks"
            raise UserError(f"{source} is of another architecture than its configuration describes: {place} {name}")
        if own[name].shape != weights[name].shape:
            raise UserError(
                f"{source} is of another architecture than its configuration describes: {name} has shape "
                f"{tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
            )
    module.load_state_dict(weights)
