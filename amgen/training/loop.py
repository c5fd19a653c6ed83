"""The training loop.

    for each step:
        for each pass:  x_t ~ path(noise, data, t);  loss(action, x_t).mean().backward()
        clip the gradient, move the weights, average them

Progress is counted in images seen, and everything random is a function of (seed, index in the stream): see `amgen.training.batches`. So a
run that was stopped and resumed, or that runs on another number of processes, computes the same as an undisturbed run.

The loop does not wait for the device. Losses and gradient norms stay there until a synchronisation: before every log line, checkpoint, grid
and evaluation, and every `training.sync_every` steps. Only there are they read and checked, and the processes agree on whether to stop. A
loss that is not finite is therefore noticed late, but never saved.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor, nn

from amgen.config import Config
from amgen.core.devices import has_float64, tf32
from amgen.core.errors import Diverged, Interrupted, UserError
from amgen.data import ImageDataset, SnapshotDataset
from amgen.model import checkpoints
from amgen.model.build import build_action, build_cells, build_loss, build_masses, build_path, build_times
from amgen.model.checkpoints import Progress
from amgen.paths import PathSample
from amgen.training.batches import Loader, TrainingBatch, TrainingItems, load_batches, parts, sample_times
from amgen.training.ema import ExponentialAverages
from amgen.training.logging import Recorder
from amgen.training.measurements import StepMetrics, Stopwatch, average_distances, block_norms, gradient_norms, weight_norm
from amgen.training.periodic import Periodic, due_after
from amgen.training.ranks import FaultTolerantProcesses, explain_failures
from amgen.training.signals import StopRequest, catch_signals
from amgen.training.state import TrainingState


class Trainer:
    """Trains an action in a run directory.

    Args:
        config: the resolved options.
        dataset: the training images or points.
        run: the run directory, prepared.
        accelerator: accelerate's object for devices, precision and processes.
        console: the console of the main process.

    Raises:
        UserError: if the options do not fit the data, the device or the number of processes.
    """

    def __init__(self, config: Config, dataset: ImageDataset | SnapshotDataset, run: Path, accelerator: Accelerator, console: Console):
        options = config.training
        self.config = config
        self.dataset = dataset
        self.run = run
        self.accelerator = accelerator
        self.console = console
        self.dtype = torch.float64 if options.precision == "fp64" else torch.float32
        self.path = build_path(config)
        self.action = build_action(config).to(self.dtype)
        _check_labels(config, dataset)
        self.masses = build_masses(config, dataset.class_counts())
        _check_precision(config, accelerator.device)
        self.objective = build_loss(config, self.action, self.path)
        self.cells = build_cells(config, self.path)
        if options.compile:
            compile_loss(self.objective)
        self.share = _share(options.batch_size, accelerator.num_processes)
        self.micro_batch = _micro_batch(options.micro_batch, self.share)
        self.loss = accelerator.prepare(self.objective)
        self.optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[options.optimizer](
            self.action.parameters(), lr=options.learning_rate, betas=options.betas, weight_decay=options.weight_decay, fused=True
        )
        self.averages = ExponentialAverages(self.action, options.ema, options.batch_size)
        self.times = build_times(config)
        self.items = TrainingItems(config, dataset, self.times, self.dtype)
        progress = Progress(data=dataset.source.fingerprint())
        near = self.items.neighbourhood() if accelerator.is_main_process else {}
        self.state = TrainingState(config, self.action, self.optimizer, self.averages, self.times, progress, near)
        self.metrics = StepMetrics(self.dtype)
        self._gradient_norms: dict[str, Tensor] = {}
        self._skipped = 0
        self._seen: list[tuple[Tensor, Tensor]] = []
        """Times and losses that the adaptive sampler has not learned from yet."""

    @property
    def total_steps(self) -> int:
        """Steps in the whole run."""
        return math.ceil(self.config.training.images / self.config.training.batch_size)

    def train(self) -> None:
        """Train from the current progress to the end.

        Raises:
            Interrupted: after a signal, once the state is saved.
            Diverged: if a loss or a gradient is not finite; the weights that caused it are not saved.
        """
        options, state, accelerator = self.config.training, self.state, self.accelerator
        total, main, alone = self.total_steps * options.batch_size, accelerator.is_main_process, accelerator.num_processes == 1
        processes = FaultTolerantProcesses(accelerator.process_index, accelerator.num_processes, str(accelerator.device))
        periodic = Periodic(self.config, self.run, self.dataset, self.path, processes, accelerator.device, self._say)
        trackers = accelerator.log if options.trackers else None
        recorder = Recorder(self.run, self.console, total, state.progress.step, state.progress.images, main, trackers)
        stopwatch = Stopwatch(accelerator.device, state.progress.images)
        with (
            catch_signals(main, launched="TORCHELASTIC_RUN_ID" in os.environ) as request,
            recorder,
            tf32(options.precision == "tf32"),
            explain_failures(accelerator.device, self.micro_batch, self.config.data.workers),
            self._load(stopwatch) as batches,
        ):
            while state.progress.step < self.total_steps:
                due = due_after(self.config, state.progress.step + 1, self.total_steps)
                self._step(batches, watch=due.line)
                # A single process stops after any step. Several processes agree on stopping when they synchronise anyway.
                if not due.synchronisation and not (alone and request.name):
                    continue
                batches.fetch()  # while the device still works on the step
                last, stop = self._synchronise(request)
                images = state.progress.images
                recorder.step(images, last["loss"], last["gradient_norm"])
                if due.line:
                    recorder.line(self._line(), stopwatch.lap(images))
                # Saved first, so that a signal or a failure below does not lose the steps up to here.
                if due.checkpoint or stop:
                    recorder.sync()
                    self.save()
                periodic.run(due, state, stop)
                if stop and not due.end:
                    raise Interrupted(
                        f"stopped after {images:,} of {total:,} images and saved {checkpoints.latest(self.run)}; "
                        "run the same command again to go on"
                    )

    def _step(self, batches: Loader, watch: bool) -> None:
        """Take one optimisation step. Nothing here waits for the device, unless times are adaptive.

        Args:
            batches: the batches of the passes.
            watch: whether to keep the gradient norms of this step for a log line.
        """
        options, progress = self.config.training, self.state.progress
        passes = self.share // self.micro_batch
        if self.times.adaptive:
            batches.fetch()
            self._learn_times()
        for number in range(passes):
            batch = batches.take()
            if batch.t is None:
                batch = sample_times(batch, self.times, self.config)
            sample = self._sample(batch)
            # Gradients of all but the last pass stay on their process.
            with nullcontext() if number == passes - 1 else self.accelerator.no_sync(self.loss):
                terms = self.loss(sample)
                self.accelerator.backward(terms.loss.mean() / passes)
            self.metrics.add_pass({"loss": terms.loss.detach(), **terms.terms}, passes)
            self._skipped += batch.skipped
            if self.times.adaptive and batch.t is not None:
                self._seen.append((batch.t, terms.interior))
        if watch:
            self._gradient_norms = gradient_norms(self.action)
        self.metrics.end_step(torch.nn.utils.clip_grad_norm_(self.action.parameters(), options.clip or math.inf))

        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.averages.update(progress.step + 1)
        self.state.progress = replace(progress, step=progress.step + 1, images=progress.images + options.batch_size)

    def _sample(self, batch: TrainingBatch) -> PathSample:
        """Return the points of a batch along the path, on the device."""
        loss, here = self.objective, batch.to(self.accelerator.device)
        return here.sample(self.path, self.masses, boundary=loss.needs_boundary, score=loss.needs_score, cells=self.cells)

    def _synchronise(self, request: StopRequest) -> tuple[dict[str, float], bool]:
        """Read and check the metrics of the steps since the last synchronisation. All processes come here after the same steps.

        Returns:
            The metrics of the last step, averaged over the processes; and whether one of the processes was asked to stop.

        Raises:
            Diverged: in all processes, if a loss or a gradient of one of the steps is not finite.
        """
        progress = self.state.progress
        counts = [self._skipped, float(request.name is not None)]
        steps, (skipped, stop) = self.metrics.read(counts, lambda values: self.accelerator.reduce(values, "mean"))
        window = dict(progress.window)
        for step, metrics in enumerate(steps, progress.step - len(steps) + 1):
            for name, value in {"steps": 1.0, **metrics}.items():
                if not math.isfinite(value):
                    raise Diverged(self._divergence(name, value, step))
                window[name] = window.get(name, 0.0) + value
        self._learn_times()
        self._skipped = 0
        count = round(skipped * self.accelerator.num_processes)
        self.state.progress = replace(progress, window=window, skipped=progress.skipped + count)
        return steps[-1], stop > 0

    def _learn_times(self) -> None:
        """Let adaptive times learn from the losses of the last step, of all processes. This waits for the device."""
        if not self._seen:
            return
        # On the CPU: sums in float64 in one order, which not every device has.
        statistics = torch.stack([self.times.statistics(t, losses.cpu()) for t, losses in self._seen]).sum(dim=0)
        if self.accelerator.num_processes > 1:
            statistics = self.accelerator.reduce(statistics.to(self.accelerator.device), "sum").cpu()
        self.times.learn(statistics)
        self._seen = []

    @contextmanager
    def _load(self, stopwatch: Stopwatch) -> Iterator[Loader]:
        """Yield the batches of this process, from the current progress to the end of the run."""
        steps = range(self.state.progress.step, self.total_steps)
        indices = parts(self.config.training.batch_size, steps, self.accelerator.process_index, self.share, self.micro_batch)
        pin_memory = self.accelerator.device.type == "cuda"
        with load_batches(self.items, indices, self.config.data.workers, pin_memory, stopwatch.waited) as batches:
            stopwatch.start(self.state.progress.images)
            yield batches

    def _learning_rate(self) -> float:
        """Return the step size of the next step: a linear rise over the warm-up, constant, a linear fall over the decay."""
        options, progress = self.config.training, self.state.progress
        rise = (progress.images + options.batch_size) / options.warmup_images if options.warmup_images else 1.0
        left = 1 - progress.step / self.total_steps
        fall = left / options.decay if options.decay else 1.0
        return options.learning_rate * min(1.0, rise, fall)

    def _line(self) -> dict[str, float]:
        """Return the means since the last log line with the norms of this step, and begin the next line."""
        progress = self.state.progress
        window = dict(progress.window)
        steps = window.pop("steps")
        self.state.progress = replace(progress, window={})
        return {
            "step": progress.step,
            "images": progress.images,
            **{name: total / steps for name, total in window.items()},
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            **({"skipped": progress.skipped} if self.config.data.on_error == "skip" else {}),
            "weight_norm": weight_norm(self.action),
            **average_distances(self.action, self.averages.averages),
            **block_norms(self._gradient_norms),
        }

    def save(self) -> None:
        """Write a checkpoint on the main process, while the others wait."""
        if self.accelerator.is_main_process:
            self.state.save(self.run)
        self.accelerator.wait_for_everyone()

    def resume(self, folder: Path) -> None:
        """Restore the state of a checkpoint.

        Raises:
            UserError: if it is damaged, or was trained on other images.
        """
        self.state.resume(folder, self.dataset.source.description)

    def _say(self, line: str) -> None:
        with suppress(OSError):  # a closed terminal does not end the training
            self.console.print(line, soft_wrap=True, highlight=False, markup=False, emoji=False)

    def _divergence(self, name: str, value: float, step: int) -> str:
        """Return the message for a number that is not finite, `step` counted from 1."""
        last = checkpoints.latest(self.run)
        rescue = f"the last good checkpoint is {last}" if last else "no checkpoint had been written"
        return (
            f"{name} is {value} at step {step} ({(step - 1) * self.config.training.batch_size:,} images): {rescue}; "
            "try a lower training.learning_rate, a longer training.warmup_images or training.precision=fp32"
        )


def compile_loss(loss: nn.Module) -> None:
    """Compile a loss in place, so that parameter names stay what they are."""
    import torch._dynamo

    # Dynamo would split the graph where DDP splits the gradients. It cannot do so if the graph itself computes gradients.
    torch._dynamo.config.optimize_ddp = False
    loss.compile()


def _share(batch_size: int, processes: int) -> int:
    """Return each process's part of the global batch."""
    if batch_size % processes:
        raise UserError(f"training.batch_size={batch_size} is not a multiple of the {processes} processes")
    return batch_size // processes


def _micro_batch(micro_batch: int | None, share: int) -> int:
    """Return the number of images in one pass of a process."""
    micro_batch = min(micro_batch or share, share)
    if share % micro_batch:
        raise UserError(f"training.micro_batch={micro_batch} does not divide the {share} images of each process")
    return micro_batch


def _check_labels(config: Config, dataset: ImageDataset | SnapshotDataset) -> None:
    """Refuse a class-conditional network whose classes are not those of the data."""
    classes, found = config.action.classes, len(dataset.source.classes)
    if classes and classes != found:
        raise UserError(f"action.classes={classes} but {dataset.source.description} has {found}: set action.classes={found}")


def _check_precision(config: Config, device: torch.device) -> None:
    """Refuse float64 on a device without float64."""
    if config.training.precision == "fp64" and not has_float64(device):
        raise UserError(f"training.precision=fp64: {device} has no float64: set training.device=cpu or another precision")
