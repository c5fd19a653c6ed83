"""A user's own function as feature extractor."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amgen.core.batching import out_of_memory
from amgen.core.errors import AmgenError, UserError
from amgen.core.files import sha256
from amgen.evaluation.features.base import FeatureExtractor
from amgen.evaluation.features.weights import check_no_weights, first_line


class CustomFeatures(FeatureExtractor):
    """A user's function, named as module:callable, from uint8 images (B, C, H, W) on the device to features (B, D).

    Two attributes of the function are optional: `preparation` (a text for reports) and `logits` (a function from features to class logits).
    The checksum is that of the file that defines the function. It does not cover the weights, so these features are never cached.
    """

    reproducible = False

    def __init__(self, name: str, weights: Path | None, device: torch.device):
        check_no_weights(name, weights)
        self.name, self.distance_name, self.device = name, f"FD ({name})", device
        self.function, self.checksum = _import(name)
        self.preparation = getattr(self.function, "preparation", "the function's own")

    def check(self, channels: int, size: int) -> None:
        """Call the function on two black images. This sets the dimension."""
        self.dimension = self._call(torch.zeros(2, channels, size, size, dtype=torch.uint8)).shape[1]

    def __call__(self, images: Tensor) -> Tensor:
        """Return the function's result, as float32 on the CPU."""
        found = self._call(images).float().cpu()
        if found.shape[1] != self.dimension:
            raise UserError(
                f"features={self.name} returned {found.shape[1]} numbers for an image, and {self.dimension} before: "
                "expected the same number each time"
            )
        return found

    def logits(self, features: Tensor) -> Tensor | None:
        """Return the function's own logits; None if it has no attribute `logits`."""
        logits: Callable[[Tensor], Tensor] | None = getattr(self.function, "logits", None)
        if logits is None:
            return None
        with torch.no_grad(), self._user_errors("logits raises"):
            return logits(features.to(self.device)).cpu()

    def _call(self, images: Tensor) -> Tensor:
        with torch.no_grad(), self._user_errors("raises"):
            found = self.function(images.to(self.device))
        if isinstance(found, Tensor) and found.is_complex():
            raise UserError(f"features={self.name} returned {found.dtype}: expected real numbers")
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images) or not found.shape[1]:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(f"features={self.name} returned {shape} for {len(images)} images: expected a tensor ({len(images)}, D)")
        return found

    @contextmanager
    def _user_errors(self, what: str) -> Iterator[None]:
        """Turn an error of the user's function into one line. Out-of-memory errors pass, since the caller tries smaller batches."""
        try:
            yield
        except Exception as error:
            if out_of_memory(error) or isinstance(error, AmgenError):
                raise
            raise UserError(f"features={self.name} {what} {first_line(error)}: fix the function first (--debug shows where)") from error


def _import(name: str) -> tuple[Callable[[Tensor], Any], str]:
    """Return the function that module:callable names and the SHA-256 of its file. The current folder is searched as well."""
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
        function = getattr(module, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"features={name}: {first_line(error)}: expected module:callable, importable from here") from None
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise UserError(f"features={name}: importing {module_name} raises {first_line(error)}: fix it first") from None
    finally:
        sys.path.remove("")
    if not callable(function):
        raise UserError(f"features={name}: {attribute} is not callable: expected a function from uint8 images to features")
    file = getattr(module, "__file__", None)
    return function, sha256(Path(file)) if file else ""
