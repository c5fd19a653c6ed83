"""The entry point of training: `amgen train` calls `train` after it has checked the options."""

import os
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration, broadcast_object_list
from rich.console import Console

from amgen.config import Config, SimulatedConfig, SnapshotsConfig, UnbalancedConfig, WFRCouplingConfig, change
from amgen.core.errors import AmgenError, UserError
from amgen.core.files import make_folder
from amgen.data import ImageDataset, Loadings, SnapshotDataset, growth_scale, neighbour_plans, open_dataset
from amgen.data.loadings import FILE as LOADINGS
from amgen.data.named import NAMED
from amgen.model.build import growth_scale_of
from amgen.training.loop import Trainer
from amgen.training.ranks import explain_failures, notice_lost_peers, refuse_sharding
from amgen.training.rundir import lock, prepare_run
from amgen.training.trackers import FOLDER, check_trackers, finish_trackers, start_trackers

T = TypeVar("T")


def train(config: Config, run: Path, restart: bool = False, console: Console | None = None) -> None:
    """Train `config` in the run directory `run`, resuming what is there unless `restart`.

    Call it in every process of a torchrun or `accelerate launch`.

    Raises:
        UserError: if the options do not fit the data, the run directory or the number of processes.
        Interrupted: after SIGINT, SIGTERM, SIGUSR1 or SIGHUP, once the state is saved.
        Diverged: if the loss or the gradient stops being finite.
        PeerLost: if another process dies or does not answer for `training.timeout` seconds.
    """
    options = config.training
    refuse_sharding()
    check_trackers(config)
    # Weight gradients of 1x1 convolutions have another memory layout than DDP's buckets, which therefore copies them: this is harmless.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    if options.compile:  # a cache that survives reboots and is shared by the jobs of a cluster, unlike the default in /tmp
        with suppress(UserError):  # unchanged if the home folder cannot be written to
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(make_folder(Path("~/.cache/amgen/compiled").expanduser())))
    # Without `cpu=True`, on a machine without GPUs, accelerate lets each process of a torchrun work alone.
    cpu = options.device == "cpu" or not torch.accelerator.is_available()
    # Otherwise accelerate keeps the precision of an earlier run in this process.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision="bf16" if options.precision == "bf16" else "no",
        log_with=list(options.trackers) or None,
        project_config=ProjectConfiguration(str(run), logging_dir=str(run / FOLDER)),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=options.timeout))],
    )
    console = console or Console()
    say = _speaker(console, accelerator.is_main_process)
    config = _with_absolute_paths(config)
    dataset = open_dataset(config.data, say if accelerator.is_main_process else None, _known_loadings(config, run, restart))
    config = change(config, {"data": {**config.data.model_dump(mode="json"), **dataset.record()}})
    config = _from_main(accelerator, lambda: _with_plans(config, dataset, say))
    with ExitStack() as stack:
        _from_main(accelerator, lambda: stack.enter_context(lock(run, say)))
        # Before the run directory is opened: --restart must not delete a run if the new options do not fit the data or the processes.
        with explain_failures(accelerator.device, 0, config.data.workers):
            trainer = Trainer(config, dataset, run, accelerator, console)
        checkpoint = _from_main(accelerator, lambda: prepare_run(run, config, restart))
        if isinstance(dataset, SnapshotDataset) and (loadings := dataset.whole.loadings) is not None:
            _from_main(accelerator, lambda: loadings.save(run / LOADINGS))
        _train(trainer, checkpoint, say)


def _with_plans(config: Config, dataset: ImageDataset | SnapshotDataset, say: Callable[[str], None]) -> Config:
    """Return the configuration with the length scale of growth that the data decides. Plans of transport are solved and kept on disk.

    The main process does it, while the others wait; they then read the plans, or solve them again where they see another disk.
    """
    if not isinstance(dataset, SnapshotDataset):
        return config
    if isinstance(config.dynamics, UnbalancedConfig) and config.dynamics.delta == "auto":
        delta = growth_scale(dataset)
        say(f"dynamics.delta={delta:g}: 95 % of the mass that moves between two times moves at most as far, in standardized coordinates")
        config = change(config, {"dynamics": {**config.dynamics.model_dump(mode="json"), "delta": delta}})
    if isinstance(config.coupling, WFRCouplingConfig):
        neighbour_plans(dataset, growth_scale_of(config), config.coupling.group, say)
    return config


def _known_loadings(config: Config, run: Path, restart: bool) -> Loadings | None:
    """Return the loadings of principal components that the run was started with, so that it goes on with the same coordinates."""
    data = config.data
    if restart or not isinstance(data, SnapshotsConfig) or data.embedding != "pca" or not (run / LOADINGS).exists():
        return None
    found = Loadings.load(run / LOADINGS)
    # Those of a run with other options, which `prepare_run` refuses, would not fit.
    return found if found.dimension == data.dimension else None


def _from_main(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Do some work in the main process, and return its result, or raise its error, in every process."""
    found: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            found = [work()]
        except AmgenError as error:
            found = [error]
    result = broadcast_object_list(found)[0]
    if isinstance(result, AmgenError):
        result.collective = True  # so that a single line is printed, and no process waits
        raise result
    return result


def _speaker(console: Console, main: bool) -> Callable[[str], None]:
    """Return a function that prints a line on the main process, and does nothing on the others."""

    def say(line: str) -> None:
        if main:
            with suppress(OSError):  # a closed terminal does not end the training
                # File names may hold brackets and colons: they are no markup.
                console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)

    return say


def _train(trainer: Trainer, checkpoint: Path | None, say: Callable[[str], None]) -> None:
    """Train, after the processes have met, the data is open and the run directory is locked."""
    config, run, accelerator, options = trainer.config, trainer.run, trainer.accelerator, trainer.config.training
    say(
        f"{trainer.dataset.summary()}, "
        f"{sum(p.numel() for p in trainer.action.parameters()):,} parameters, batch {options.batch_size} on "
        f"{accelerator.num_processes} x {accelerator.device}, run directory {run}"
    )
    if checkpoint is not None:
        trainer.resume(checkpoint)
        say(f"resuming from {checkpoint}")
    if trainer.state.progress.step >= trainer.total_steps:
        say(f"already trained on {trainer.state.progress.images:,} images: {_how_to_go_on(config)}")
        return
    start_trackers(accelerator, config, run, trainer.state.progress.images)
    try:
        with notice_lost_peers(run, accelerator.process_index, accelerator.num_processes):
            trainer.train()
    finally:
        finish_trackers(accelerator)
    say(f"trained on {trainer.state.progress.images:,} images: {run}")


def _how_to_go_on(config: Config) -> str:
    decay = config.training.decay
    if not decay:
        return "raise training.images to go on"
    return (
        f"the learning rate has fallen to its end (training.decay={decay:g}), so that this run cannot go on: train more images in another "
        "--run-dir, or start over with --restart"
    )


def _with_absolute_paths(config: Config) -> Config:
    """Return the configuration with its files named from the root, so that the run can be used from any folder."""
    changes: dict[str, Any] = {"evaluation": {**config.evaluation.model_dump(mode="json"), "data": _absolute(config.evaluation.data)}}
    if not isinstance(config.data, SimulatedConfig):
        changes["data"] = {**config.data.model_dump(mode="json"), "path": _absolute(config.data.path)}
    return change(config, changes)


def _absolute(path: str | None) -> str | None:
    """Return the absolute path of a file that exists; names of data sets, and of files that do not exist, stay as they are."""
    if path is None or path in NAMED:
        return path
    try:
        place = Path(path).expanduser().absolute()
        return str(place) if place.exists() else path
    except (OSError, ValueError, RuntimeError):  # not a valid file name: opening it gives the error
        return path
