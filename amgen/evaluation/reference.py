"""The real images that generated images are compared with: their features, with mean and covariance, kept in a cache.

`amgen reference-stats` writes an .npz file with `mu` (D,) and `sigma` (D, D), float64, the usual form of published FID statistics. It also
holds `features` (N, D), float32, which all metrics but the Fréchet distance need, and `about`, a JSON text that describes the images. Files
in the cache have no `mu` and `sigma`, since these follow from the features.
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
    """Real images as features.

    Attributes:
        about: description of the images: `description`, `n` (their number, None if unknown), `features`, and hashes.
        stored_moments: mean and covariance, if they come from a file.
        features: float32, (N, D); None if only mean and covariance are known.
        indices: index of each image in the data set; for a file 0, 1, ...
        dataset: the images; None for a file.
    """

    about: dict[str, Any]
    stored_moments: Moments | None = None
    features: Tensor | None = None
    indices: Sequence[int] | None = None
    dataset: ImageDataset | None = None

    @cached_property
    def moments(self) -> Moments:
        """Mean and covariance of the features."""
        if self.stored_moments is not None:
            return self.stored_moments
        assert self.features is not None
        return Moments.of(self.features)

    @property
    def description(self) -> str:
        """What the images are, as text."""
        return str(self.about["description"])

    @property
    def count(self) -> int | None:
        """Number of images; None if it is unknown."""
        return self.about["n"]

    @property
    def identity(self) -> dict[str, Any]:
        """What identifies the images: hashes of their contents and preparation, or of the file of statistics."""
        keys = ("images", "sha256", "n", "label")
        return {key: self.about[key] for key in keys if self.about.get(key) is not None}

    def subset(self, positions: Sequence[int]) -> "Reference":
        """Return the images at these positions (rows of `features`). Positions may repeat."""
        assert self.features is not None
        assert self.indices is not None
        indices = [self.indices[position] for position in positions]
        return Reference(self.about, None, self.features[list(positions)], indices, self.dataset)

    def write(self, file: Path, moments: bool = True) -> None:
        """Write the reference as an .npz file. An interrupted write leaves no partial file.

        Args:
            file: the file.
            moments: whether to write `mu` and `sigma`, which follow from the features.

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
    class_names: Sequence[str] | None = None,
    say: Callable[[str], None] | None = None,
) -> Reference:
    """Open the reference called `data` and extract its features.

    Args:
        data: an .npz file of statistics, or a folder, zip or data set of images; None for the images of `options`.
        options: the images and how to prepare them.
        extractor: the features.
        processes: the processes that share the work.
        num: number of images, a random choice that is always the same; by default all.
        batch_size: number of images whose features are extracted at once.
        cache: whether to read features from the cache and write them there.
        label: use the images of this class only; one of the `classes` of the model.
        classes: number of classes of the model.
        advice: how to use fewer images, as text for the line of progress.
        class_names: the names of the model's classes, if it knows them. The data may have the same classes in another order.
        say: called with lines about images that are prepared in a special way; None for no such lines.

    Raises:
        UserError: if the reference cannot be read, or does not fit the features or the model.

    Example:
        >>> from amgen import config
        >>> from amgen.core.processes import Processes
        >>> from amgen.evaluation.features import make_extractor
        >>> from amgen.evaluation.reference import open_reference
        >>> extractor = make_extractor("digits", channels=1, size=8)
        >>> reference = open_reference(None, config.load("digits").images, extractor, Processes(), num=100, cache=False)
        extracting features of 100 real images of the embedded digits
        >>> reference.count, reference.features.shape, reference.moments.mean.shape
        (100, torch.Size([100, 64]), torch.Size([64]))
    """
    if data is not None and data.endswith(".npz"):
        for option, value in (("--real", num), ("--label", label)):
            if value is not None:
                raise UserError(
                    f"{option} {value}: {data} holds statistics, which have no single images to choose from: give the images instead"
                )
        return read_statistics(Path(data), extractor)
    dataset = open_dataset(change(options, {"path": data}), say if processes.main else None)
    if label is not None and len(dataset.source.classes) != classes:
        raise UserError(
            f"--label {label}: images of one class are compared with real ones of that class, and {dataset.source.description} has "
            f"{len(dataset.source.classes)} classes where the model knows {classes}: give images of the same classes, in a folder each"
        )
    own = None if label is None else int((numbers_by_name(class_names, dataset.source.classes) == label).nonzero()[0])
    reference = reference_from_images(dataset, extractor, processes, num, batch_size, cache, own, advice)
    return reference if label is None else replace(reference, about={**reference.about, "label": label})


def reference_from_images(
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
    """Return real images as features, from the cache if they are there.

    Every process extracts a part. The cache is the folder `$AMGEN_CACHE`, or `amgen` in the user's cache folder. The cache key depends on
    the contents of the images, on all options that prepare them, and on name, preparation and weights of the features.

    Args:
        dataset: the images.
        extractor: the features.
        processes: the processes that share the work.
        num: number of images, a random choice that is always the same; by default all.
        batch_size: number of images whose features are extracted at once.
        cache: whether to read features from the cache and write them there.
        label: use the images of this class only.
        advice: how to use fewer images, as text for the line of progress.
        say: called with lines of progress, on the main process.

    Raises:
        UserError: if there are fewer than `num` images, or features are not finite.
    """
    indices, description = _select(dataset, num, label)
    about = {
        "description": description,
        "n": len(indices),
        "images": fingerprint(dataset),
        "features": extractor.describe(),
        **({} if label is None else {"label": label}),
    }
    file = cache_file(about) if cache and extractor.reproducible else None
    features = _cached_features(file, about) if processes.main else None
    cached = processes.agree(features is not None)
    if features is None:
        features = torch.zeros(len(indices), extractor.dimension)
    if not cached:
        if processes.main:
            notes = ["saved in the cache for the next time"] * (file is not None) + [advice] * bool(advice)
            say(f"extracting features of {len(indices):,} real images of {description}" + (f" ({'; '.join(notes)})" if notes else ""))
        progress = Progress(len(indices), "images", say, processes, "extracting features of real images")
        for start in processes.share(range(0, len(indices), batch_size)):
            rows = indices[start : start + batch_size]
            features[start : start + len(rows)] = extractor(dataset.images(rows))
            progress.advance(len(rows))
    processes.merge(features)
    wrong = (~torch.isfinite(features).all(dim=1)).nonzero()
    if len(wrong):
        name = dataset.source.name(int(indices[int(wrong[0])]))
        raise UserError(f"features={extractor.name} of {name} are not finite: choose other features")
    reference = Reference(about, None, features, indices, dataset)
    if file is not None and processes.main and not cached:
        try:
            reference.write(file, moments=False)
        except UserError as error:  # the evaluation goes on without a cache
            say(f"not cached: {error}")
    return reference


def _select(dataset: ImageDataset, num: int | None, label: int | None) -> tuple[Sequence[int], str]:
    """Return the indices of the images to use, and what the images are, as text.

    Raises:
        UserError: if there are fewer than `num` images.
    """
    description = dataset.source.description
    indices: Sequence[int] = range(len(dataset))
    if label is not None:
        indices = (dataset.labels == label).nonzero()[:, 0].tolist()
        description += f", class {dataset.source.classes[label]}"
    if num is not None and num > len(indices):
        raise UserError(f"{num:,} real images are requested, and {description} has {len(indices):,}: request fewer")
    if num is not None and num < len(indices):
        selection = permutation(0, Purpose.EVALUATION_SPLIT, -1, len(indices))[:num].sort().values
        indices = [indices[position] for position in selection.tolist()]
    return indices, description


def read_statistics(file: Path, extractor: FeatureExtractor) -> Reference:
    """Read an .npz file of statistics, written by `amgen reference-stats` or any other program.

    Args:
        file: a file with `mu` (D,) and `sigma` (D, D).
        extractor: the features; D must be their dimension.

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
        raise UserError(f"{file} holds numbers that are not finite: make the file again")
    _check_covariance(covariance, file)
    about: dict[str, Any] = {"description": str(file), "n": None, "sha256": sha256(file), "features": extractor.describe()}
    features = None
    if "about" in arrays:  # a file by amgen; an array `features` of another program may be anything
        try:
            about |= json.loads(str(arrays["about"]))
            features = torch.from_numpy(arrays["features"])
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{file} is not as amgen reference-stats writes it ({error}): make the file again") from None
        if about["features"] != extractor.describe():
            raise UserError(f"{file} was made with features {_difference(about['features'], extractor.describe())}: make the file again")
        if features.shape != (about["n"], size) or features.dtype != torch.float32:
            raise UserError(f"{file} holds features {tuple(features.shape)}, expected {(about['n'], size)}: make the file again")
        about["description"] = f"{about['description']} ({file})"
    return Reference(about, Moments(mean, covariance), features, None if features is None else range(len(features)))


def _check_covariance(covariance: Tensor, file: Path) -> None:
    """Refuse a matrix that is not symmetric and positive semidefinite, up to the rounding of single precision."""
    tolerance = 1e-6 * float(covariance.diagonal().abs().sum())
    asymmetry = float((covariance - covariance.T).abs().max())
    if asymmetry > tolerance:
        raise UserError(f"{file} holds a sigma that is not symmetric (by {asymmetry:.3g}), so it is not a covariance: make the file again")
    lowest = float(torch.linalg.eigvalsh((covariance + covariance.T) / 2)[0])
    if lowest < -tolerance:
        raise UserError(f"{file} holds a sigma with the negative eigenvalue {lowest:.3g}, so it is not a covariance: make the file again")


def cache_file(about: dict[str, Any]) -> Path:
    """Return the path in the cache of the reference that `about` describes."""
    key = {name: value for name, value in about.items() if name != "description"}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder() / f"reference-{digest}.npz"


def cache_folder() -> Path:
    """Return the folder of the cache."""
    if named := os.environ.get("AMGEN_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "amgen"


def fingerprint(dataset: ImageDataset) -> str:
    """Return a hash of the images and of their preparation."""
    prepared = [dataset.source.contents(), dataset.options.preparation(), PREPARATION]
    return hashlib.sha256(json.dumps(prepared, sort_keys=True).encode()).hexdigest()


def _cached_features(file: Path | None, about: dict[str, Any]) -> Tensor | None:
    """Return the features in the cache; None if there are none, or the file is damaged."""
    if file is None or not file.is_file():
        return None
    try:
        with file.open("rb") as stream, np.load(stream) as archive:
            features = torch.from_numpy(archive["features"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # damaged: the features are extracted again
    return features if features.shape == (about["n"], about["features"]["dimension"]) else None


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """Return the first difference of two descriptions of features, as text."""
    key = next(key for key in expected if found.get(key) != expected[key])
    return f"{key} {found.get(key)!r}, not {expected[key]!r}"
