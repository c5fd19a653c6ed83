"""The training loop.

Progress is the number of images seen, and everything random is a function of (seed, index in the stream): a run that was stopped and
resumed, or that runs on another number of processes, computes what an undisturbed one would have.
"""

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor, nn

from amgen.config import Config, MarginalLossConfig
from amgen.core.devices import has_float64, set_tf32, tf32
from amgen.core.errors import Diverged, Interrupted, UserError
from amgen.core.files import make_folder, write_json
from amgen.core.randomness import Purpose, derive_seed, dropout_seeds, rademacher, uniform, uniforms
from amgen.data import Batch, ImageDataset, SnapshotDataset, TrainingStream, training_stream
from amgen.evaluation.evaluate import Evaluator, MetricOptions
from amgen.evaluation.features import make_extractor
from amgen.evaluation.reference import open_reference
from amgen.evaluation.report import Evaluation
from amgen.model import checkpoints
from amgen.model.build import build_action, build_coupling, build_loss, build_masses, build_path, build_times, laplacian_probes, no_label
from amgen.model.checkpoints import Checkpoint, Progress
from amgen.model.trained import with_weights
from amgen.paths import Boundary, PathSample
from amgen.sampling import Model, Request, assemble, generate_all
from amgen.training.coupled import CoupledStream
from amgen.training.ema import ExponentialAverages
from amgen.training.interrupts import StopRequest, catch_signals
from amgen.training.loading import reading
from amgen.training.measures import Stopwatch, average_distances, gradient_norms, weight_norm
from amgen.training.peers import CarefulProcesses, explain_failures, forgiving
from amgen.training.resuming import OPTIMIZER, check_resumable
from amgen.training.tracking import Recorder
from amgen.visualization.grids import save_grid

EVALUATION = "evaluation.json"
"""Beside the weights of checkpoints/best: what they scored."""


class Trainer:
    """Trains an action in a run directory.

    Args:
        config: the resolved options.
        dataset: the training images or points.
        run: the run directory, prepared.
        accelerator: devices, precision and processes.
        console: where the main process reports.
    """

    def __init__(self, config: Config, dataset: ImageDataset | SnapshotDataset, run: Path, accelerator: Accelerator, console: Console):
        self.config = config
        self.run = run
        self.accelerator = accelerator
        self.console = console
        self.dataset = dataset
        self.stream = CoupledStream(
            training_stream(dataset, config.seed), build_coupling(config), config.action.classes > 0, _boundary_stream(config, dataset)
        )
        self.fingerprint = dataset.source.fingerprint()
        self.path = build_path(config)
        self.times = build_times(config)
        self.dtype = torch.float64 if config.training.precision == "fp64" else torch.float32
        self.action = build_action(config).to(self.dtype)
        _check_labels(config, dataset)
        self.masses = build_masses(config, dataset.class_counts())

        options = config.training
        if options.precision == "fp64" and not has_float64(accelerator.device):
            raise UserError(f"training.precision=fp64: {accelerator.device} has no float64: set training.device=cpu or another precision")
        loss = self.objective = build_loss(config, self.action, self.path)
        if options.compile:
            compile_loss(loss)
        self.share = _share(options.batch_size, accelerator.num_processes)
        self.micro_batch = _micro_batch(options.micro_batch, self.share)
        self.loss = accelerator.prepare(loss)
        optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[options.optimizer]
        self.optimizer = optimizer(
            self.action.parameters(),
            lr=options.learning_rate,
            betas=options.betas,
            weight_decay=options.weight_decay,
            fused=True,
        )
        self.averages = ExponentialAverages(self.action, options.ema, options.batch_size)
        self.progress = Progress(data=self.fingerprint)
        self.stopwatch = Stopwatch(accelerator.device)
        self.block_norms: dict[str, float] = {}

    @property
    def _processes(self) -> CarefulProcesses:
        """The processes of this run, for work that they share outside the loop."""
        return CarefulProcesses(self.accelerator.process_index, self.accelerator.num_processes, str(self.accelerator.device))

    def _say(self, line: str) -> None:
        with suppress(OSError):  # a terminal that was closed ends no training
            self.console.print(line, soft_wrap=True, highlight=False, markup=False, emoji=False)

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
        options, workers = self.config.training, self.config.data.workers
        total = self.total_steps * options.batch_size
        step, images, main = self.progress.step, self.progress.images, self.accelerator.is_main_process
        evaluator = self._evaluator()
        recorder = Recorder(self.run, self.console, total, step, images, main, self.accelerator.log if options.trackers else None)
        with (
            catch_signals(main, launched="TORCHELASTIC_RUN_ID" in os.environ) as request,
            recorder,
            tf32(options.precision == "tf32"),
            explain_failures(self.accelerator.device, self.micro_batch, workers),
            reading(self.stream, self._parts(), workers, self.accelerator.device.type == "cuda") as batches,
        ):
            self.stopwatch, lap = Stopwatch(self.accelerator.device), self.progress.images
            while self.progress.step < self.total_steps:
                before = self.progress.images
                loss, gradient_norm, stop = self._step(batches, request)
                after, finished = self.progress.images, self.progress.step == self.total_steps
                recorder.step(after, loss, gradient_norm)
                if self._logs(before, after):
                    recorder.line(self._metrics(), self.stopwatch.lap(after - lap))
                    lap = after
                scored = evaluator is not None and (finished or _crosses(before, after, self.config.evaluation.every))
                # Saved first: neither a signal nor what goes wrong while drawing may cost the steps that led here.
                if stop or finished or scored or _crosses(before, after, options.checkpoint_every):
                    recorder.sync()
                    self.save()
                draws = options.sample_every and (finished or _crosses(before, after, options.sample_every))
                scores = scored and (finished or not stop)
                if draws or scores:
                    set_tf32(False)
                    if draws:
                        with forgiving(self._processes, self._say, f"the grid at {after:,} images"):
                            self._sample_grid()
                    if evaluator is not None and scores:
                        with forgiving(self._processes, self._say, f"the evaluation at {after:,} images"):
                            self._evaluate(evaluator)
                    set_tf32(options.precision == "tf32")
                if stop and not finished:
                    raise Interrupted(
                        f"stopped after {after:,} of {total:,} images and saved {checkpoints.latest(self.run)}; "
                        "run the same command again to go on"
                    )

    def _step(self, batches: Iterator[Batch], request: StopRequest) -> tuple[float, float, bool]:
        """Take one optimisation step; return the loss and gradient norm over the global batch, and whether to stop."""
        options, step = self.config.training, self.progress.step
        passes = self.share // self.micro_batch
        sums: dict[str, Tensor] = {}
        seen: list[Tensor] = []
        skipped = 0
        for number in range(passes):
            asked = time.perf_counter()
            batch = next(batches)
            self.stopwatch.waiting(time.perf_counter() - asked)
            skipped += sum(batch.skipped)
            sample = self._sample(batch, step)
            # Gradients of all but the last pass stay on their process.
            synchronise = nullcontext() if number == passes - 1 else self.accelerator.no_sync(self.loss)
            with synchronise:
                terms = self.loss(sample)
                self.accelerator.backward(terms.loss.mean() / passes)
            for name, values in {"loss": terms.loss.detach(), **terms.terms}.items():
                sums[name] = sums.get(name, 0) + values.to(self.dtype).mean() / passes
            if self.times.adaptive:
                seen.append(self.times.statistics(sample.t.cpu(), terms.interior.cpu()))
        images = self.progress.images + options.batch_size
        if self._logs(self.progress.images, images):
            self.block_norms = gradient_norms(self.action)
        gradient_norm = torch.nn.utils.clip_grad_norm_(self.action.parameters(), options.clip or math.inf)

        # One small reduction a step tells every process the same loss and the same decision to stop.
        local = torch.stack([*sums.values(), *sums["loss"].new_tensor([skipped, float(request.name is not None)])])
        *means, skipped_mean, stop = self.accelerator.reduce(local, "mean").tolist()
        averages = {**dict(zip(sums, means, strict=True)), "gradient_norm": float(gradient_norm)}
        for name, value in averages.items():
            if not math.isfinite(value):
                raise Diverged(self._divergence(name, value))
        if self.times.adaptive:
            self.times.learn(self._total(torch.stack(seen).sum(dim=0)))

        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.averages.update(step + 1)
        window = {"steps": 1.0, **averages}
        summed = {name: self.progress.window.get(name, 0.0) + value for name, value in window.items()}
        skipped = self.progress.skipped + round(skipped_mean * self.accelerator.num_processes)
        self.progress = replace(self.progress, step=step + 1, images=images, window=summed, skipped=skipped)
        return averages["loss"], averages["gradient_norm"], stop > 0

    def _total(self, statistics: Tensor) -> Tensor:
        """Return the sum of float64 statistics over all processes, on the CPU."""
        if self.accelerator.num_processes == 1:
            return statistics
        return self.accelerator.reduce(statistics.to(self.accelerator.device), "sum").cpu()

    def _sample(self, batch: Batch, step: int) -> PathSample:
        """Draw points along the path for a part of the global batch, on the device."""
        config, seed, size, device = self.config, self.config.seed, self.config.training.batch_size, self.accelerator.device
        first = batch.indices[0] - step * size
        times, density = self.times.draw(seed, step, range(first, first + len(batch.indices)), size)
        # Below 1 in float32 as well, where scores are finite.
        times = times.to(self.dtype).clamp(max=1 - torch.finfo(torch.float32).eps / 2)
        batch = batch.to(device, self.dtype)
        sample = self.path.sample(
            times.to(device),
            batch.noise,
            batch.images,
            density=density.to(device, self.dtype),
            label=self._labels(batch),
            auxiliary=self._auxiliary(batch),
            dropout_seeds=self._dropout_seeds(batch, Purpose.DROPOUT),
            boundary=self.objective.needs_boundary and batch.boundary is None,
            score=self.objective.needs_score,
        )
        if batch.boundary is not None:
            sample = replace(sample, boundary=self._boundary(batch.boundary))
        if self.masses is not None:
            sample = self.masses.weigh(sample, batch.labels, None if batch.boundary is None else batch.boundary.labels)
        if probes := laplacian_probes(config):
            signs = rademacher(seed, Purpose.PROBE, batch.indices, (probes, *sample.x.shape[1:]))
            sample = replace(sample, probes=signs.to(device, self.dtype))
        return sample

    def _boundary(self, batch: Batch) -> Boundary:
        """Take samples of both ends from a batch of their own."""
        conditioning = self.path.conditioning(batch.images, self._auxiliary(batch))
        seeds = self._dropout_seeds(batch, Purpose.BOUNDARY_DROPOUT)
        return self.path.boundary(batch.noise, batch.images, conditioning, self._labels(batch), seeds)

    def _labels(self, batch: Batch) -> Tensor | None:
        """Return what the action is told of the classes: a share of the samples goes without."""
        if not self.config.action.classes:
            return None
        nothing = no_label(self.config)
        if nothing is None:
            return batch.labels
        dropped = uniform(self.config.seed, Purpose.LABEL_DROPOUT, batch.indices) < self.config.action.label_dropout
        return torch.where(dropped.to(batch.labels.device), nothing, batch.labels)

    def _auxiliary(self, batch: Batch) -> Tensor | None:
        """Draw the random numbers that the path needs beside noise."""
        if not self.path.auxiliary:
            return None
        return uniforms(self.config.seed, Purpose.AUXILIARY, batch.indices, self.path.auxiliary).to(batch.images.device)

    def _dropout_seeds(self, batch: Batch, purpose: Purpose) -> Tensor | None:
        """Return what the dropout masks of each sample are made from."""
        return dropout_seeds(self.config.seed, purpose, batch.indices).to(batch.images.device) if self.config.action.dropout else None

    def _parts(self) -> Iterator[range]:
        """Yield this process's parts of the global batches, from the current progress to the end of the run."""
        size, rank = self.config.training.batch_size, self.accelerator.process_index
        return (
            range(step * size + start, step * size + start + self.micro_batch)
            for step in range(self.progress.step, self.total_steps)
            for start in range(rank * self.share, (rank + 1) * self.share, self.micro_batch)
        )

    def _learning_rate(self) -> float:
        """Return the step size of the next step: a linear rise over the warm-up, constant, a linear fall over the decay."""
        options = self.config.training
        rise = (self.progress.images + options.batch_size) / options.warmup_images if options.warmup_images else 1.0
        left = 1 - self.progress.step / self.total_steps
        fall = left / options.decay if options.decay else 1.0
        return options.learning_rate * min(1.0, rise, fall)

    def _logs(self, before: int, after: int) -> bool:
        """Tell whether a line of metrics is due for the step that led from `before` to `after` images."""
        return after == self.total_steps * self.config.training.batch_size or _crosses(before, after, self.config.training.log_every)

    def _metrics(self) -> dict[str, float]:
        """Return the means since the last line with the norms of this step, and empty the window."""
        window = dict(self.progress.window)
        steps = window.pop("steps")
        self.progress = replace(self.progress, window={})
        return {
            "step": self.progress.step,
            "images": self.progress.images,
            **{name: total / steps for name, total in window.items()},
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            **({"skipped": self.progress.skipped} if self.config.data.on_error == "skip" else {}),
            "weight_norm": weight_norm(self.action),
            **average_distances(self.action, self.averages.averages),
            **self.block_norms,
        }

    def _averaged(self) -> tuple[Model, Request]:
        """Return the model of the first averaged weights, and what to draw from it."""
        options = self.config.sampling
        rate, weights = next(iter(self.averages.averages.items()))
        name, action = checkpoints.ema_name(rate), with_weights(self.action, weights)
        model = assemble(self.config, action, name, self.progress.images, self.run, checkpoints.digest(weights))
        images = self.dataset if self.path.conditional else None
        return model, Request(self.config.seed, guidance=options.guidance, images=images, noise_level=options.noise_level)

    def _evaluator(self) -> Evaluator | None:
        """Prepare the evaluations of this run, if there are any: what they lack is found before the first step."""
        options = self.config.evaluation
        if not options.every:
            return None
        channels, size, _ = self.config.image_shape
        processes = self._processes
        extractor = make_extractor(options.features, channels, size, None, self.accelerator.device)
        reference = open_reference(options.data, self.config.images, extractor, processes)
        evaluator = Evaluator(extractor, reference, MetricOptions(options.metrics, kid_subset_size=options.kid_subset_size), processes)
        evaluator.check(options.num)
        return evaluator

    def _evaluate(self, evaluator: Evaluator) -> None:
        """Score the first averaged weights on all processes, and keep them if none before were better."""
        model, request = self._averaged()
        evaluation = evaluator(model, self.config.sampling, self.config.evaluation.num, request)
        if not self.accelerator.is_main_process:
            return
        features = self.config.evaluation.features.replace(":", "-")
        file = make_folder(self.run / "eval") / f"training-{features}-{self.progress.images:09d}.json"
        write_json(file, evaluation.to_dict())
        self._say(f"{self.progress.images:,} images  {evaluation.principal.line()}")
        best = checkpoints.folder_of(self.run) / checkpoints.BEST / EVALUATION
        before = Evaluation.from_dict(json.loads(best.read_text())) if best.exists() else None
        if before is None or not before.comparable(evaluation) or not before.principal.better(evaluation.principal):
            checkpoints.save(self.run, self._checkpoint(), checkpoints.BEST, {EVALUATION: evaluation.to_dict()})

    def _sample_grid(self) -> None:
        """Draw a grid from the first averaged weights, every process its part, and write it on the main one."""
        options, processes = self.config.sampling, self._processes
        model, request = self._averaged()
        pictures: dict[int, list[Tensor]] = {}
        for samples in generate_all(model, options, range(options.grid), request, processes, self._say):
            pictures |= samples.by_index(samples.indices)
        pictures = dict(processes.gather(list(pictures.items())))
        if processes.main:
            rows = [torch.stack(column) for column in zip(*(pictures[index] for index in range(options.grid)), strict=True)]
            save_grid(self.run / "samples" / f"{self.config.modality}-{self.progress.images:09d}.png", rows)

    def save(self) -> None:
        """Write a checkpoint on the main process, drop old ones, and let the others wait."""
        options = self.config.training
        if self.accelerator.is_main_process:
            checkpoints.save(self.run, self._checkpoint())
            checkpoints.rotate(self.run, options.keep_last, options.keep_every / options.batch_size)
        self.accelerator.wait_for_everyone()

    def _checkpoint(self) -> Checkpoint:
        """Return the state as it is."""
        progress = replace(self.progress, times=self.times.state())
        weights = {checkpoints.ACTION: self.action.state_dict(), **self.averages.state()}
        optimizer = {
            f"{name}:{entry}": value
            for name, parameter in self.action.named_parameters()
            for entry, value in self.optimizer.state[parameter].items()
        }
        return Checkpoint(self.config, progress, weights, optimizer)

    def resume(self, folder: Path) -> None:
        """Take over the state of a checkpoint.

        Raises:
            UserError: if it is damaged, or was trained on other images.
        """
        checkpoint = checkpoints.load(folder)
        if checkpoint.progress.data != self.fingerprint:
            raise UserError(
                f"{folder} was trained on other images than {self.dataset.source.description}: "
                "give the same data.path, or choose another --run-dir"
            )
        check_resumable(checkpoint, folder, self.action, self.averages.rates, self.times.state())
        checkpoints.load_weights(self.action, checkpoint.weights[checkpoints.ACTION], str(folder))
        self.averages.load(checkpoint.weights)
        for name, parameter in self.action.named_parameters():
            self.optimizer.state[parameter] = {entry: checkpoint.optimizer[f"{name}:{entry}"].to(parameter.device) for entry in OPTIMIZER}
        self.progress = checkpoint.progress
        self.times.load(checkpoint.progress.times)

    def _divergence(self, name: str, value: float) -> str:
        last = checkpoints.latest(self.run)
        rescue = f"the last good checkpoint is {last}" if last else "no checkpoint had been written"
        return (
            f"{name} is {value} at step {self.progress.step + 1} ({self.progress.images:,} images): {rescue}; "
            "try a lower training.learning_rate, a longer training.warmup_images or training.precision=fp32"
        )


def compile_loss(loss: nn.Module) -> None:
    """Compile a loss in place, so that parameter names stay what they are."""
    import torch._dynamo

    # It would divide the graph where DDP divides the gradients, which it cannot do with gradients inside of it.
    torch._dynamo.config.optimize_ddp = False
    loss.compile()


def _crosses(before: int, after: int, every: int) -> bool:
    """Tell whether a multiple of `every` lies in (before, after]."""
    return after // every > before // every


def _share(batch_size: int, processes: int) -> int:
    """Return each process's part of the global batch."""
    if batch_size % processes:
        raise UserError(f"training.batch_size={batch_size} is not a multiple of the {processes} processes")
    return batch_size // processes


def _micro_batch(micro_batch: int | None, share: int) -> int:
    """Return how many images a process holds in one pass."""
    micro_batch = min(micro_batch or share, share)
    if share % micro_batch:
        raise UserError(f"training.micro_batch={micro_batch} does not divide the {share} images of each process")
    return micro_batch


def _check_labels(config: Config, dataset: ImageDataset | SnapshotDataset) -> None:
    """Refuse a class-conditional network whose classes are not those of the data."""
    classes, found = config.action.classes, len(dataset.source.classes)
    if classes and classes != found:
        raise UserError(f"action.classes={classes} but {dataset.source.description} has {found}: set action.classes={found}")


def _boundary_stream(config: Config, dataset: ImageDataset | SnapshotDataset) -> TrainingStream | None:
    """Return a stream of its own for boundary terms that are independent of the interior ones."""
    if not isinstance(config.loss, MarginalLossConfig) or config.loss.boundaries == "paired":
        return None
    return training_stream(dataset, derive_seed(config.seed, Purpose.BOUNDARY, 0))
