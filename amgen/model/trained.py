"""A trained action with what belongs to it: configuration, path, dynamics, and which weights it has."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amgen.actions import Action
from amgen.config import Config, DataConfig, SamplingConfig, change
from amgen.data import Units, recorded_units, to_uint8
from amgen.dynamics import DynamicsType
from amgen.model import checkpoints
from amgen.model.classes import class_name
from amgen.paths import Path as ProbabilityPath


@dataclass
class TrainedAction:
    """A trained action with what belongs to it.

    Attributes:
        config: the configuration it was trained with.
        action: the network, frozen.
        path: the path it was trained on.
        kind: what the action's gradient does to samples.
        weights: which weights these are, `action` or `ema-RATE`.
        images: how many images they were trained on.
        source: where they came from.
        sha256: what identifies the weights (`amgen.checkpoints.digest`); computed when it is asked for, if not given.
    """

    config: Config
    action: Action
    path: ProbabilityPath
    dynamics: DynamicsType
    weights: str
    images: int
    source: Path
    sha256: str | None = None

    @property
    def weights_sha256(self) -> str:
        """What identifies the weights wherever they lie: a SHA-256 of their contents, hexadecimal."""
        if self.sha256 is None:
            self.sha256 = checkpoints.digest(self.action.state_dict())
        return self.sha256

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.action.parameters()).device

    @property
    def units(self) -> Units | None:
        """From the coordinates that points are moved in to their own; None for images."""
        return None if isinstance(self.config.data, DataConfig) else recorded_units(self.config.data)

    def inverse_transform(self, x: Tensor) -> Tensor:
        """Return what is moved as users know it, on the CPU: uint8 images, or points (B, D) in their own coordinates, float32."""
        units = self.units
        return to_uint8(x).cpu() if units is None else units.inverse_transform(x)

    @property
    def run(self) -> Path:
        """The run directory that the checkpoint lies in, its own folder if it was copied out of one, or that of an exported file."""
        if self.source.is_file():
            return self.source.parent
        run = self.source.parent.parent
        return run if (run / "config.yaml").exists() else self.source

    def options(self, changes: Mapping[str, Any]) -> SamplingConfig:
        """Return the sampling settings of the run with some changed, checked against the model as a whole; None keeps what is there.

        Raises:
            UserError: for settings that do not exist or do not fit the model.
        """
        settings = change(self.config.sampling, changes)
        change(self.config, {"sampling": settings.model_dump(mode="json")})
        return settings

    def describe(self) -> dict[str, Any]:
        """Return what identifies the weights, for reports."""
        return {
            "checkpoint": str(self.source),
            "weights": self.weights,
            "weights_sha256": self.weights_sha256,
            "images_trained": self.images,
        }

    def in_words(self, settings: Mapping[str, Any]) -> str:
        """Return settings in one line for people: checksums are shortened, and classes have their names."""
        return ", ".join(f"{key} {self._in_words(key, value)}" for key, value in settings.items())

    def _in_words(self, key: str, value: Any) -> str:
        if key.endswith("sha256"):
            return str(value)[:12]
        if key == "label" and isinstance(value, int) and class_name(self.config, value) != str(value):
            return f"{value} ({class_name(self.config, value)})"
        return str(value)


def with_weights(action: Action, weights: Mapping[str, Tensor]) -> Action:
    """Return a frozen copy of an action with other weights, in single precision as all sampling is."""
    copied = copy.deepcopy(action).float().requires_grad_(False).eval()
    copied.load_state_dict(weights)
    return copied
