"""The real images that generated ones are compared with: their features and the moments of these, kept in a cache.

What `amgen reference-stats` writes is an .npz file with `mu` (D,) and `sigma` (D, D), float64, as statistics for FID are commonly
published, together with `features` (N, D), float32, which everything but the Fréchet distance needs, and `about`, JSON that says what they
are of. The cache holds such files without `mu` and `sigma`, which follow from the features.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amgen.config import DataConfig, change
from amgen.core.errors import UserError
from amgen.core.files import make_folder, replacing, sha256
from amgen.core.processes import Processes
from amgen.core.progress import Progress
from amgen.core.randomness import Purpose, permutation
from amgen.data import ImageDataset, open_dataset
from amgen.data.images import PREPARATION
from amgen.evaluation.features import FeatureExtractor
from amgen.evaluation.moments import Moments
from amgen.model.classes import numbers_by_name


@dataclass
class Reference:
    """Real images, as features.

    Attributes:
        about: what they are: `description`, `n` (None if the file does not say), and of which `features`.
        given: their moments, where nothing else is known of them.
        features: float32 (N, D), or None where only the moments are known.
        indices: which images of the data set they are; None for all of a file.
        dataset: the images, where they are at hand.
    """

    about: dict[str, Any]
    given: Moments | None = None
    features: Tensor | None = None
    indices: Sequence[int] | None = None
    dataset: ImageDataset | None = None

    @cached_property
    def moments(self) -> Moments:
        """Return mean and covariance."""
        if self.given is not None:
            return self.given
        assert self.features is not None
        return Moments.of(self.features)

    @property
    def description(self) -> str:
        """Say what the images are."""
        return str(self.about["description"])

    @property
    def count(self) -> int | None:
        """Return how many images there are, None if that is not known."""
        return self.about["n"]

    @property
    def identity(self) -> dict[str, Any]:
        """Return what tells these images from others: a hash of them and of their preparation, or of the file that tells of them."""
        keys = ("images", "sha256", "n", "label")
        return {key: self.about[key] for key in keys if self.about.get(key) is not None}

    def chosen(self, positions: Sequence[int]) -> "Reference":
        """Return the images at some positions, which may repeat."""
        assert self.features is not None
        assert self.indices is not None
        indices = [self.indices[position] for position in positions]
        return Reference(self.about, None, self.features[list(positions)], indices, self.dataset)

    def write(self, file: Path, moments: bool = True) -> None:
        """Write all that is known as an .npz, whole or not at all; the moments can be left out, since they follow from the features.

        Raises:
            UserError: if the disk is full or the folder cannot be written to.
        """
        make_folder(file.parent)
        arrays = {"mu": self.moments.mean.numpy(), "sigma": self.moments.covariance.numpy()} if moments else {}
        if self.features is not None:
            arrays["features"] = self.features.numpy()
        with replacing(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, about=np.array(json.dumps(self.about)), **arrays)  # type: ignore[arg-type]


def open_reference(
    data: str | None,
    options: DataConfig,
    extractor: FeatureExtractor,
    processes: Processes,
    num: int | None = None,
    batch_size: int = 100,
    cache: bool = True,
    label: int | None = None,
    classes: int = 0,
    advice: str = "",
    names: Sequence[str] | None = None,
    say: Callable[[str], None] | None = None,
) -> Reference:
    """Open the reference that `data` names: an .npz of statistics, or a folder, zip or data set of images, by default those of `options`.

    Args:
        data: its name.
        options: what the images are and how they are prepared.
        extractor: the features.
        processes: those that share the work.
        num: how many of the images to take; by default all.
        batch_size: images looked at together.
        cache: whether to look for features in the cache, and to keep them there.
        label: class whose images to take, of the `classes` that a model knows; by default images of all.
        classes: how many classes there are.
        advice: what takes fewer images, in words, to be told beforehand.
        names: what the model calls its classes, where it knows; images whose classes have the same names in another order are told by them.
        say: takes lines that say what of the images is not taken as it is; None for no such lines.

    Raises:
        UserError: if it cannot be read or does not fit.
    """
    if data is not None and data.endswith(".npz"):
        for option, value in (("--real", num), ("--label", label)):
            if value is not None:
                raise UserError(f"{option} {value}: {data} holds statistics, of which nothing can be left out: give the images instead")
        return read(Path(data), extractor)
    dataset = open_dataset(change(options, {"path": data}), say if processes.main else None)
    if label is not None and len(dataset.source.classes) != classes:
        raise UserError(
            f"--label {label}: images of one class are compared with real ones of that class, and {dataset.source.description} has "
            f"{len(dataset.source.classes)} classes where the model knows {classes}: give images of the same classes, in a folder each"
        )
    own = None if label is None else int((numbers_by_name(names, dataset.source.classes) == label).nonzero()[0])
    reference = of_images(dataset, extractor, processes, num, batch_size, cache, own, advice)
    return reference if label is None else replace(reference, about={**reference.about, "label": label})


def of_images(
    dataset: ImageDataset,
    extractor: FeatureExtractor,
    processes: Processes,
    num: int | None = None,
    batch_size: int = 100,
    cache: bool = True,
    label: int | None = None,
    advice: str = "",
    say: Callable[[str], None] = print,
) -> Reference:
    """Return `num` real images (by default all; a random choice that is always the same) as features, from the cache where they are there.

    Every process extracts its part. The cache is `$AMGEN_CACHE`, or `amgen` in the user's cache folder; its key is made of the images'
    contents, all options that prepare them, and the features' name, preparation and weights.

    Args:
        dataset: the images.
        extractor: the features.
        processes: those that share the work.
        num: how many of them.
        batch_size: images looked at together.
        cache: whether to look for features in the cache, and to keep them there.
        label: class that the images are of; by default all.
        advice: what takes fewer images, in words, to be told beforehand.
        say: takes lines of progress, on the main process.

    Raises:
        UserError: if there are not as many, or they cannot be scored.
    """
    description = dataset.source.description
    indices: Sequence[int] = range(len(dataset))
    if label is not None:
        indices = (dataset.labels == label).nonzero()[:, 0].tolist()
        description += f", class {dataset.source.classes[label]}"
    if num is not None and num > len(indices):
        raise UserError(f"{num:,} real images are asked for, and {description} has {len(indices):,}: ask for fewer")
    if num is not None and num < len(indices):
        chosen = permutation(0, Purpose.EVALUATION_SPLIT, -1, len(indices))[:num].sort().values
        indices = [indices[place] for place in chosen.tolist()]
    about = {
        "description": description,
        "n": len(indices),
        "images": fingerprint(dataset),
        "features": extractor.describe(),
        **({} if label is None else {"label": label}),
    }
    file = cached(about) if cache and extractor.reproducible else None
    table = _cached_features(file, about) if processes.main else None
    there = processes.agree(table is not None)
    if table is None:
        table = torch.zeros(len(indices), extractor.dimension)
    if not there:
        if processes.main:
            notes = ["kept in the cache for the next time"] * (file is not None) + [advice] * bool(advice)
            say(f"extracting features of {len(indices):,} real images of {description}" + (f" ({'; '.join(notes)})" if notes else ""))
        progress = Progress(len(indices), "images", say, processes, "extracting features of real images")
        for start in processes.share(range(0, len(indices), batch_size)):
            rows = indices[start : start + batch_size]
            table[start : start + len(rows)] = extractor(dataset.images(rows))
            progress.advance(len(rows))
    processes.merge(table)
    wrong = (~torch.isfinite(table).all(dim=1)).nonzero()
    if len(wrong):
        name = dataset.source.name(int(indices[int(wrong[0])]))
        raise UserError(f"features={extractor.name} of {name} are not finite: choose others")
    reference = Reference(about, None, table, indices, dataset)
    if file is not None and processes.main and not there:
        try:
            reference.write(file, moments=False)
        except UserError as error:  # that the cache cannot be written must not cost the evaluation
            say(f"not cached: {error}")
    return reference


def read(file: Path, extractor: FeatureExtractor) -> Reference:
    """Read an .npz of statistics: ours, or any with `mu` and `sigma`.

    Raises:
        UserError: if the file is missing, damaged, or was made with other features.
    """
    try:
        with file.open("rb") as stream, np.load(stream) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read the statistics {file}: {error}: give an .npz with mu and sigma, or images") from None
    for name in ("mu", "sigma"):
        if name not in arrays:
            raise UserError(f"{file} holds no {name!r} but {', '.join(sorted(arrays)) or 'nothing'}: expected statistics with mu and sigma")
    mean, covariance = (torch.from_numpy(np.asarray(arrays[name], dtype=np.float64)) for name in ("mu", "sigma"))
    size = extractor.dimension
    if mean.shape != (size,) or covariance.shape != (size, size):
        raise UserError(
            f"{file} holds mu {tuple(mean.shape)} and sigma {tuple(covariance.shape)}: features={extractor.name} have {size} dimensions"
        )
    if not (torch.isfinite(mean).all() and torch.isfinite(covariance).all()):
        raise UserError(f"{file} holds numbers that are not finite: make it again")
    _check_covariance(covariance, file)
    about: dict[str, Any] = {"description": str(file), "n": None, "sha256": sha256(file), "features": extractor.describe()}
    features = None
    if "about" in arrays:  # ours; what others may call `features` is not looked at
        try:
            about |= json.loads(str(arrays["about"]))
            features = torch.from_numpy(arrays["features"])
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{file} is not as amgen reference-stats writes it ({error}): make it again") from None
        if about["features"] != extractor.describe():
            raise UserError(f"{file} was made with features {_difference(about['features'], extractor.describe())}: make it again")
        if features.shape != (about["n"], size) or features.dtype != torch.float32:
            raise UserError(f"{file} holds features {tuple(features.shape)}, expected {(about['n'], size)}: make it again")
        about["description"] = f"{about['description']} ({file})"
    return Reference(about, Moments(mean, covariance), features, None if features is None else range(len(features)))


def _check_covariance(covariance: Tensor, file: Path) -> None:
    """Refuse what is no covariance: it must be symmetric and positive semidefinite, up to the rounding of single precision."""
    tolerance = 1e-6 * float(covariance.diagonal().abs().sum())
    asymmetry = float((covariance - covariance.T).abs().max())
    if asymmetry > tolerance:
        raise UserError(f"{file} holds a sigma that is not symmetric (by {asymmetry:.3g}), so no covariance: make it again")
    lowest = float(torch.linalg.eigvalsh((covariance + covariance.T) / 2)[0])
    if lowest < -tolerance:
        raise UserError(f"{file} holds a sigma with the negative eigenvalue {lowest:.3g}, so no covariance: make it again")


def cached(about: dict[str, Any]) -> Path:
    """Return where the cache keeps the reference that `about` describes."""
    key = {name: value for name, value in about.items() if name != "description"}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder() / f"reference-{digest}.npz"


def cache_folder() -> Path:
    """Return the folder of the cache."""
    if named := os.environ.get("AMGEN_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "amgen"


def fingerprint(dataset: ImageDataset) -> str:
    """Identify the images and what is done to them before they are scored."""
    prepared = [dataset.source.contents(), dataset.options.preparation(), PREPARATION]
    return hashlib.sha256(json.dumps(prepared, sort_keys=True).encode()).hexdigest()


def _cached_features(file: Path | None, about: dict[str, Any]) -> Tensor | None:
    """Return what the cache holds, or None if it holds nothing usable."""
    if file is None or not file.is_file():
        return None
    try:
        with file.open("rb") as stream, np.load(stream) as archive:
            features = torch.from_numpy(archive["features"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # damaged: it is made again
    return features if features.shape == (about["n"], about["features"]["dimension"]) else None


def _difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    """Name the first thing in which two descriptions of features differ."""
    key = next(key for key in here if there.get(key) != here[key])
    return f"{key} {there.get(key)!r}, not {here[key]!r}"
