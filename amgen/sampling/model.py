"""A trained model, ready to generate."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from amgen.actions import Action
from amgen.config import Config
from amgen.core.checks import MOST_IMAGES
from amgen.core.devices import device_of
from amgen.core.errors import UserError
from amgen.dynamics import Unbalanced
from amgen.model import checkpoints
from amgen.model.build import build_action, build_dynamics, build_path
from amgen.model.classes import find_label
from amgen.model.trained import TrainedAction
from amgen.sampling.conditioning import start_images
from amgen.sampling.generate import Samples, generate_all
from amgen.sampling.request import Request


@dataclass
class Model(TrainedAction):
    """A trained action that generates."""

    def sample(
        self,
        num: int,
        *,
        solver: str | None = None,
        steps: int | None = None,
        seed: int = 0,
        label: int | str | None = None,
        start: str | None = None,
        **options: Any,
    ) -> Tensor:
        """Draw images that all count the same, uint8 (num, C, H, W), or points, float32 (num, D), on the CPU.

            images = amgen.load("runs/digits").sample(64, solver="heun", steps=20)

        Args:
            num: how many.
            solver: name of the solver; this and other settings are by default those of the run.
            steps: number of steps.
            seed: image i is a function of this seed and i.
            label: class to draw, by number or name, where the model has classes; by default that of the image that each is made from, or
                each class in turn.
            start: images that a model which completes or colours them starts from (a folder, zip or data set), or the table of points that
                a population starts from; by default the training data.
            options: further settings of the section `sampling` of the configuration, such as `guidance` or `step_grid`.

        Raises:
            UserError: for settings that do not exist or do not fit the model, and for unbalanced dynamics, whose images carry weights: see
                `generate`.
        """
        if isinstance(self.dynamics, Unbalanced):
            raise UserError(
                f"the {self.config.modality} of unbalanced dynamics carry weights, which sample would leave out: call generate, whose "
                "result has images and log_weights"
            )
        return self.generate(num, solver=solver, steps=steps, seed=seed, label=label, start=start, **options).images

    def generate(
        self,
        num: int,
        *,
        solver: str | None = None,
        steps: int | None = None,
        seed: int = 0,
        label: int | str | None = None,
        start: str | None = None,
        **options: Any,
    ) -> "Samples":
        """Draw images or points with all that belongs to them: classes, log-weights, inputs and truths. Arguments as for `sample`.

        The images of unbalanced dynamics are to be averaged by their weights, or drawn by them:

            drawn = amgen.load("runs/digits-unbalanced").generate(64)
            weights = drawn.log_weights.softmax(dim=0)
            images = drawn.images[amgen.sampling.resample(drawn.log_weights, seed=0)]
        """
        if not 1 <= num <= MOST_IMAGES:
            raise UserError(f"num={num}: expected at least 1 and at most {MOST_IMAGES:,}")
        settings = self.options({"solver": solver, "steps": steps, **options})
        request = Request(seed, find_label(self.config, label), settings.guidance, start_images(self, start), settings.noise_level)
        return Samples.join(list(generate_all(self, settings, range(num), request)))


def load(source: str | Path, ema: float | None = None, raw: bool = False, device: str = "auto") -> Model:
    """Load a model from a run directory (its newest checkpoint), a checkpoint or an exported file.

    Args:
        source: the folder or file.
        ema: rate of the averaged weights to use; by default the first of the run's.
        raw: use the weights themselves instead of an average.
        device: where to put it: a torch device, or auto for a GPU where there is one.

    Raises:
        UserError: if there is no such checkpoint or average, or it is damaged.
    """
    weights = checkpoints.read_weights(Path(source), ema, raw)
    action = build_action(weights.config)
    checkpoints.load_weights(action, weights.tensors, str(weights.source))
    action.to(device_of(device)).requires_grad_(False).eval()
    return assemble(weights.config, action, weights.name, weights.images, weights.source, weights.sha256)


def assemble(config: Config, action: Action, weights: str, images: int, source: Path, sha256: str | None = None) -> Model:
    """Put a model together around an action; the arguments are its attributes."""
    path = build_path(config)
    return Model(config, action, path, build_dynamics(config, path), weights, images, source, sha256)
