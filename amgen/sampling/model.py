"""A trained model that generates: how to load it, and its methods."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from amgen.actions import Action
from amgen.config import Config
from amgen.core.checks import MOST_IMAGES
from amgen.core.devices import device_of
from amgen.core.errors import UserError
from amgen.data import Loadings
from amgen.dynamics import Unbalanced
from amgen.model.build import build_action, build_dynamics, build_path
from amgen.model.classes import find_label
from amgen.model.export import load_weights, read_weights
from amgen.model.trained import TrainedAction
from amgen.paths import Neighbourhood
from amgen.sampling.conditioning import start_images
from amgen.sampling.generate import Samples, generate_all
from amgen.sampling.request import Request


@dataclass
class Model(TrainedAction):
    """A trained model that generates images, or points. `load` returns one.

    The attributes are those of `TrainedAction`.
    """

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
        """Generate images, uint8 (num, C, H, W), or points, float32 (num, D), on the CPU.

        Args:
            num: number of images.
            solver: name of the solver; by default that of the run, as for every sampling setting.
            steps: number of steps of a fixed-step solver.
            seed: image i is a function of (model, sampling settings, seed, i).
            label: class of all images, by number or name; by default the class of each start image, or for a model that starts from noise
                i modulo the number of classes.
            start: start images of an image-to-image model (a folder, zip or data set), or the table with the start population of a model
                of points; by default the training data.
            options: further settings of the section `sampling` of the configuration, such as `guidance` or `step_grid`.

        Raises:
            UserError: for settings that do not exist or do not fit the model, and for unbalanced dynamics, whose images carry weights: use
                `generate`.
            Diverged: if an image has values that are not finite.

        Example:
            >>> import amgen
            >>> model = amgen.load("runs/digits")
            >>> images = model.sample(16, solver="heun", steps=4, seed=1)
            >>> images.shape, images.dtype
            (torch.Size([16, 1, 8, 8]), torch.uint8)
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
    ) -> Samples:
        """Generate images or points with everything that belongs to them: classes, NFE, log-weights, inputs and truths.

        Arguments and errors are those of `sample`. The images of unbalanced dynamics carry weights: weight them in every mean, or resample
        them with `amgen.sampling.resample(samples.log_weights.tolist(), seed)`.

        Example:
            >>> import amgen
            >>> samples = amgen.load("runs/digits").generate(4, solver="heun", steps=2)
            >>> samples.images.shape, samples.evaluations
            (torch.Size([4, 1, 8, 8]), 4)
            >>> samples.log_weights is None
            True
        """
        if not 1 <= num <= MOST_IMAGES:
            raise UserError(f"num={num}: expected at least 1 and at most {MOST_IMAGES:,}")
        settings = self.options({"solver": solver, "steps": steps, **options})
        request = Request(seed, find_label(self.config, label), start_images(self, start))
        return Samples.join(list(generate_all(self, settings, range(num), request)))


def load(source: str | Path, ema: float | None = None, raw: bool = False, device: str = "auto") -> Model:
    """Load a trained model; see `amgen.load`."""
    weights = read_weights(Path(source), ema, raw)
    action = build_action(weights.config)
    load_weights(action, weights.tensors, str(weights.source))
    action.to(device_of(device)).requires_grad_(False).eval()
    model = assemble(weights.config, action, weights.name, weights.images, weights.source, weights.sha256, weights.loadings)
    if weights.neighbourhood:
        model.neighbourhood = Neighbourhood(model.path, **weights.neighbourhood)
    return model


def assemble(
    config: Config, action: Action, weights: str, images: int, source: Path, sha256: str | None = None, loadings: Loadings | None = None
) -> Model:
    """Return the model of an action with given weights; path and dynamics follow from the configuration.

    Args:
        config: the configuration of the run.
        action: the network.
        weights: name of the weights, `action` or `ema-RATE`.
        images: number of images that they were trained on.
        source: checkpoint or file that they come from.
        sha256: checksum of the weights; computed when it is needed if None.
        loadings: of the principal components that are the coordinates of the points, or None.
    """
    path = build_path(config)
    return Model(config, action, path, build_dynamics(config, path), weights, images, source, sha256, loadings=loadings)
