"""Action Matching and its baseline, flow matching: the same network, pairs, times, optimiser and time to train, and the same solver.

Symbols: f(t, x) a U-Net, u the velocity along a path, v the velocity that is learned.

    action   v = grad_x s with s(t, x) = <x, f(t, x)>     loss 1/2 |v - u|^2, whose gradient differentiates f twice
    field    v = f(t, x), flow matching (arXiv 2210.02747)    loss 1/2 |v - u|^2, plain backpropagation
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from amgen.actions import Action
from amgen.config import Config
from amgen.core.batching import in_batches
from amgen.core.errors import Diverged
from amgen.core.randomness import Purpose, gaussian
from amgen.data import ImageDataset, to_uint8, training_stream
from amgen.dynamics import Dynamics
from amgen.model.build import build_action, build_coupling, build_dynamics, build_loss, build_path, build_times
from amgen.paths import PathSample
from amgen.solvers import ODESolver
from amgen.solvers.ode import Velocity
from amgen.training.batches import CoupledStream
from amgen.training.ema import ExponentialAverages

SLICE = 1.0
"""Seconds of training between turns."""
SCALE_FREE = math.nextafter(1, 0)
"""Rate of the averaged weights at which d = min(rate, (1 + n) / (10 + n)) at step n is (1 + n) / (10 + n) for ever."""


class Method(ABC):
    """A method to compare: a network, its loss on points along a path, and the velocity that it learns.

    Attributes:
        name: its name in tables.
        network: the network that is trained.
    """

    name: ClassVar[str]
    network: nn.Module

    @abstractmethod
    def loss(self, sample: PathSample) -> Tensor:
        """Return 1/2 |v - u|^2 at each point, (B,)."""

    @abstractmethod
    def velocity(self) -> Velocity:
        """Return v; this freezes the network, so call it after training."""

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.network.parameters())


class ActionMatching(Method):
    """The action and the loss that the settings describe."""

    name = "action"
    network: Action

    def __init__(self, settings: Config):
        self.network = build_action(settings)
        self._loss = build_loss(settings, self.network, build_path(settings))

    def loss(self, sample: PathSample) -> Tensor:
        """Return the loss at each point."""
        return self._loss(sample).loss

    def velocity(self) -> Velocity:
        """Return the gradient of the action."""
        return Dynamics(self.network).velocity


class FlowMatching(Method):
    """The body of the same action, with the same initial weights, as a vector field."""

    name = "field"

    def __init__(self, settings: Config):
        self.network = build_action(settings).body
        self._dynamics = build_dynamics(settings, build_path(settings))

    def loss(self, sample: PathSample) -> Tensor:
        """Return the loss at each point."""
        return self._dynamics.fenchel_young(self.network(sample.t, sample.x), sample.velocity)

    def velocity(self) -> Velocity:
        """Return the network itself."""
        network = self.network.requires_grad_(False).eval()
        return lambda t, x: network(torch.full((len(x),), t, dtype=x.dtype), x)


METHODS: dict[str, Callable[[Config], Method]] = {"action": ActionMatching, "field": FlowMatching}


def schedule(fraction: float, warmup: float, decay: float) -> float:
    """Return the learning rate when `fraction` of the time has passed, in units of its highest.

    It rises linearly over the first share `warmup` of the time and falls linearly to 0 over the last share `decay`.
    """
    rise = fraction / warmup if warmup else 1.0
    fall = (1 - fraction) / decay if decay else 1.0
    return max(0.0, min(1.0, rise, fall))


class Training:
    """Trains a method for some seconds of its own training time.

    Args:
        method: what to train.
        settings: the other options; the warm-up takes training.warmup_images / training.images of the time.
        dataset: the images.
        learning_rate: the highest learning rate.
        seconds: how long to train.
        clock: returns the time, seconds.

    Attributes:
        spent: seconds of training so far.
        losses: the mean loss of each step.
    """

    def __init__(
        self,
        method: Method,
        settings: Config,
        dataset: ImageDataset,
        learning_rate: float,
        seconds: float,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.method, self.settings, self.learning_rate, self.seconds, self.clock = method, settings, learning_rate, seconds, clock
        self.path, self.times = build_path(settings), build_times(settings)
        self.stream = CoupledStream(training_stream(dataset, settings.seed), build_coupling(settings), within_classes=False)
        self.optimizer = torch.optim.Adam(method.network.parameters(), lr=learning_rate, betas=settings.training.betas, fused=True)
        self.averages = ExponentialAverages(method.network, [SCALE_FREE], settings.training.batch_size)
        self.spent = 0.0
        self.losses: list[float] = []

    @property
    def images(self) -> int:
        """Images seen so far."""
        return len(self.losses) * self.settings.training.batch_size

    def warm_up(self) -> None:
        """Compute a gradient and drop it, so that PyTorch sets up what it needs once."""
        self._gradient()
        self.optimizer.zero_grad()

    def run_until(self, mark: float) -> None:
        """Train until `mark` seconds are spent; the last step may end later.

        Raises:
            Diverged: if a loss is not finite.
        """
        while self.spent < mark:
            start = self.clock()
            self._step(start)
            self.spent += self.clock() - start

    def finish(self) -> Method:
        """Return the method with the averaged weights in place of the last ones."""
        self.method.network.load_state_dict(self.averages.averages[SCALE_FREE])
        return self.method

    def _step(self, start: float) -> None:
        options = self.settings.training
        self.losses.append(self._gradient())
        fraction = (self.spent + self.clock() - start) / self.seconds
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * schedule(fraction, options.warmup_images / options.images, options.decay)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.averages.update(len(self.losses))

    def _gradient(self) -> float:
        """Compute the gradient of the next batch, clipped, and return its mean loss."""
        options, step = self.settings.training, len(self.losses)
        size = options.batch_size
        batch = self.stream.__getitems__(range(step * size, (step + 1) * size))
        times, _ = self.times.sample(self.settings.seed, step, range(size), size)
        loss = self.method.loss(self.path.sample(times.float(), batch.noise, batch.images)).mean()
        if not torch.isfinite(loss):
            name = self.method.name
            raise Diverged(f"the loss of the {name} is {loss.item()} at step {step + 1}: try a lower --learning-rate-{name}")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.method.network.parameters(), options.clip or math.inf)
        return loss.item()


def alternate(trainings: Sequence[Training], seconds: float) -> None:
    """Train all in turns of SLICE seconds, in reversed order every other time, until each has spent its `seconds`."""
    for training in trainings:
        training.warm_up()
    for number in range(math.ceil(seconds / SLICE)):
        for training in trainings if number % 2 == 0 else trainings[::-1]:
            training.run_until(min((number + 1) * SLICE, seconds))


def generate(velocity: Velocity, solver: ODESolver, num: int, settings: Config) -> tuple[Tensor, int]:
    """Generate images from the noise of the settings' seed.

    Returns:
        The images, uint8 (num, C, H, W), and the number of evaluations of the velocity for each image.
    """

    def noise(indices: Sequence[int]) -> Tensor:
        return gaussian(settings.seed, Purpose.SAMPLE_NOISE, indices, settings.shape)

    def work(indices: Sequence[int]) -> tuple[Tensor, int]:
        evaluations = 0

        def counted(t: float, x: Tensor) -> Tensor:
            nonlocal evaluations
            evaluations += 1
            return velocity(t, x)

        return to_uint8(solver.solve(counted, noise(indices))), evaluations

    def probe(indices: Sequence[int]) -> Tensor:
        return velocity(0.0, noise(indices))

    batches = in_batches(work, range(num), settings.sampling.batch_size, probe, torch.device("cpu"))
    images, evaluations = zip(*(found for _, found in batches), strict=True)
    return torch.cat(images), max(evaluations)
