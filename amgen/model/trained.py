"""A trained action with its configuration, path, dynamics and the origin of its weights."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amgen.actions import Action
from amgen.config import Config, DataConfig, SamplingConfig, change
from amgen.data import Loadings, Units, recorded_units, to_uint8
from amgen.dynamics import DynamicsType
from amgen.model.classes import class_name
from amgen.model.weights_file import digest
from amgen.paths import Neighbourhood
from amgen.paths import Path as ProbabilityPath


@dataclass
class TrainedAction:
    """A trained action with its configuration, path, dynamics and the origin of its weights.

    Attributes:
        config: the configuration it was trained with.
        action: the network, frozen.
        path: the path it was trained on.
        dynamics: type of the dynamics.
        weights: name of the weights, `action` or `ema-RATE`.
        images: number of images that they were trained on.
        source: checkpoint or file that they come from.
        sha256: their checksum (`amgen.model.weights_file.digest`), or None until `weights_sha256` computes it.
        neighbourhood: where the action was trained, for a population; None for images and for runs of earlier versions.
        loadings: of the principal components that are the coordinates of the points, or None.
    """

    config: Config
    action: Action
    path: ProbabilityPath
    dynamics: DynamicsType
    weights: str
    images: int
    source: Path
    sha256: str | None = None
    neighbourhood: Neighbourhood | None = None
    loadings: Loadings | None = None

    @property
    def weights_sha256(self) -> str:
        """Checksum of the weights: the SHA-256 of their contents, hexadecimal."""
        if self.sha256 is None:
            self.sha256 = digest(self.action.state_dict())
        return self.sha256

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.action.parameters()).device

    @property
    def units(self) -> Units | None:
        """The transformation between the coordinates of the table and those of the model; None for images."""
        return None if isinstance(self.config.data, DataConfig) else recorded_units(self.config.data)

    def inverse_transform(self, x: Tensor) -> Tensor:
        """Return samples in the form of the data, on the CPU: uint8 images (B, C, H, W), or points (B, D) in the table's units."""
        units = self.units
        return to_uint8(x).cpu() if units is None else units.inverse_transform(x)

    @property
    def run(self) -> Path:
        """The run directory of the checkpoint, the checkpoint itself if it was copied out of its run, or the folder of an exported file."""
        if self.source.is_file():
            return self.source.parent
        run = self.source.parent.parent
        return run if (run / "config.yaml").exists() else self.source

    def options(self, changes: Mapping[str, Any]) -> SamplingConfig:
        """Return the sampling settings of the run with some changes, checked against the whole configuration.

        Args:
            changes: settings by name; None keeps the value of the run.

        Raises:
            UserError: for settings that do not exist or do not fit the model.
        """
        settings = change(self.config.sampling, changes)
        change(self.config, {"sampling": settings.model_dump(mode="json")})
        return settings

    def describe(self) -> dict[str, Any]:
        """Return name, checksum and origin of the weights, for reports."""
        return {
            "checkpoint": str(self.source),
            "weights": self.weights,
            "weights_sha256": self.weights_sha256,
            "images_trained": self.images,
        }

    def in_words(self, settings: Mapping[str, Any]) -> str:
        """Return settings in one line for people: with short checksums and the names of classes."""
        return ", ".join(f"{key} {self._in_words(key, value)}" for key, value in settings.items())

    def _in_words(self, key: str, value: Any) -> str:
        if key.endswith("sha256"):
            return str(value)[:12]
        if key == "label" and isinstance(value, int) and class_name(self.config, value) != str(value):
            return f"{value} ({class_name(self.config, value)})"
        return str(value)


def with_weights(action: Action, weights: Mapping[str, Tensor]) -> Action:
    """Return a frozen copy of an action with other weights, in single precision, in which all sampling is done."""
    copied = copy.deepcopy(action).float().requires_grad_(False).eval()
    copied.load_state_dict(weights)
    return copied
