"""Periodic work of a training: log lines, checkpoints, sample grids, evaluations, and the best weights.

All processes compute from the step alone which work is due, and generate images together.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from amgen.config import Config
from amgen.core.devices import set_tf32
from amgen.core.files import make_folder, write_json
from amgen.data import ImageDataset, SnapshotDataset
from amgen.evaluation.evaluator import Evaluator
from amgen.evaluation.features import make_extractor
from amgen.evaluation.metric_options import MetricOptions
from amgen.evaluation.reference import open_reference
from amgen.evaluation.report import Evaluation
from amgen.model import checkpoints
from amgen.model.trained import with_weights
from amgen.model.weights_file import digest
from amgen.paths import Path as ProbabilityPath
from amgen.sampling import Model, Request, assemble, generate_all
from amgen.training.ranks import FaultTolerantProcesses, tolerate_failure
from amgen.training.state import TrainingState
from amgen.visualization.grids import save_grid

EVALUATION = "evaluation.json"
"""The evaluation of the weights in checkpoints/best, in the same folder."""


@dataclass(frozen=True)
class Due:
    """The work that is due after a step.

    Attributes:
        end: whether it is the last step.
        line: write a line of metrics.jsonl.
        checkpoint: save a checkpoint.
        grid: generate a grid of samples.
        evaluation: evaluate the averaged weights.
        synchronisation: read the metrics, check that they are finite, and agree on whether to stop. Part of everything else.
    """

    end: bool
    line: bool
    checkpoint: bool
    grid: bool
    evaluation: bool
    synchronisation: bool


def due_after(config: Config, step: int, last: int) -> Due:
    """Return the work that is due after a step, counted from 1; `last` is the last step."""
    options, after = config.training, step * config.training.batch_size
    before, end = after - config.training.batch_size, step == last

    def is_due(every: int) -> bool:
        """Tell whether a multiple of `every` images lies in this step."""
        return every > 0 and (end or after // every > before // every)

    line, grid, evaluation = is_due(options.log_every), is_due(options.sample_every), is_due(config.evaluation.every)
    checkpoint = evaluation or is_due(options.checkpoint_every)
    synchronisation = line or grid or checkpoint or step % options.sync_every == 0
    return Due(end, line, checkpoint, grid, evaluation, synchronisation)


class Periodic:
    """Generates grids and evaluates during training, with the first averaged weights of `training.ema`.

    A failure here is reported in one line, and training continues.

    Args:
        config: the resolved options.
        run: the run directory.
        dataset: the training images or points.
        path: the path between noise and data.
        processes: the processes of the run.
        device: the device of the network.
        say: prints a line, on the main process.

    Raises:
        UserError: if something for an evaluation is missing; this is found before the first step.
    """

    def __init__(
        self,
        config: Config,
        run: Path,
        dataset: ImageDataset | SnapshotDataset,
        path: ProbabilityPath,
        processes: FaultTolerantProcesses,
        device: torch.device,
        say: Callable[[str], None],
    ):
        self._config = config
        self._run = run
        self._starts = dataset if path.conditional else None
        self._processes = processes
        self._say = say
        self._evaluator = self._make_evaluator(device) if config.evaluation.every else None

    def run(self, due: Due, state: TrainingState, stopping: bool) -> None:
        """Do the work that is due. A training that is stopping still generates its grid, but is evaluated only after its last step."""
        images = state.progress.images
        evaluator = self._evaluator if due.evaluation and (due.end or not stopping) else None
        if not due.grid and evaluator is None:
            return
        set_tf32(False)
        if due.grid:
            with tolerate_failure(self._processes, self._say, f"the grid at {images:,} images"):
                self._sample_grid(state)
        if evaluator is not None:
            with tolerate_failure(self._processes, self._say, f"the evaluation at {images:,} images"):
                self._evaluate(evaluator, state)
        set_tf32(self._config.training.precision == "tf32")

    def _make_evaluator(self, device: torch.device) -> Evaluator:
        """Prepare the evaluations of this run."""
        options = self._config.evaluation
        channels, size, _ = self._config.image_shape
        extractor = make_extractor(options.features, channels, size, None, device)
        reference = open_reference(options.data, self._config.images, extractor, self._processes)
        metrics = MetricOptions(options.metrics, kid_subset_size=options.kid_subset_size)
        evaluator = Evaluator(extractor, reference, metrics, self._processes)
        evaluator.check(options.num)
        return evaluator

    def _averaged(self, state: TrainingState) -> tuple[Model, Request]:
        """Return the model with the first averaged weights, and the request for its samples."""
        rate, weights = next(iter(state.averages.averages.items()))
        name, action = checkpoints.ema_name(rate), with_weights(state.action, weights)
        model = assemble(self._config, action, name, state.progress.images, self._run, digest(weights))
        return model, Request(self._config.seed, images=self._starts)

    def _evaluate(self, evaluator: Evaluator, state: TrainingState) -> None:
        """Evaluate the first averaged weights on all processes, and keep them as the best ones if no earlier ones were better."""
        model, request = self._averaged(state)
        evaluation = evaluator(model, self._config.sampling, self._config.evaluation.num, request)
        if not self._processes.main:
            return
        images, features = state.progress.images, self._config.evaluation.features.replace(":", "-")
        write_json(make_folder(self._run / "eval") / f"training-{features}-{images:09d}.json", evaluation.to_dict())
        self._say(f"{images:,} images  {evaluation.principal.line()}")
        best = checkpoints.folder_of(self._run) / checkpoints.BEST / EVALUATION
        before = Evaluation.from_dict(json.loads(best.read_text())) if best.exists() else None
        if before is None or not before.comparable(evaluation) or not before.principal.better(evaluation.principal):
            checkpoints.save(self._run, state.checkpoint(), checkpoints.BEST, {EVALUATION: evaluation.to_dict()})

    def _sample_grid(self, state: TrainingState) -> None:
        """Generate a grid from the first averaged weights, each process its part, and write it on the main one."""
        options, processes = self._config.sampling, self._processes
        model, request = self._averaged(state)
        columns: dict[int, list[Tensor]] = {}
        for samples in generate_all(model, options, range(options.grid), request, processes, self._say):
            columns |= samples.by_index(samples.indices)
        columns = dict(processes.gather(list(columns.items())))
        if processes.main:
            rows = [torch.stack(row) for row in zip(*(columns[index] for index in range(options.grid)), strict=True)]
            save_grid(self._run / "samples" / f"{self._config.modality}-{state.progress.images:09d}.png", rows)
