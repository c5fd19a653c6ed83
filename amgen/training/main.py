"""What `amgen train` does once its options are known."""

import os
import warnings
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration, broadcast_object_list
from rich.console import Console

from amgen.config import Config, change
from amgen.data import ImageDataset, SnapshotDataset, open_dataset
from amgen.training.peers import notice_lost_peers, refuse_sharding
from amgen.training.run import hold, prepare_run
from amgen.training.trackers import FOLDER, check_trackers, finish_trackers, start_trackers
from amgen.training.trainer import Trainer


def train(config: Config, run: Path, restart: bool = False, console: Console | None = None) -> None:
    """Train `config` in the run directory `run`, resuming what is there unless `restart`.

    Call it in every process of a torchrun or `accelerate launch`.

    Raises:
        UserError: if the options do not fit the data, the run directory or the number of processes.
        Interrupted: after SIGINT, SIGTERM or SIGUSR1, once the state is saved.
        Diverged: if the loss or the gradient stops being finite.
        PeerLost: if another process dies or does not answer for `training.timeout` seconds.
    """
    options = config.training
    refuse_sharding()
    check_trackers(config)
    # Weight gradients of 1x1 convolutions come in another order of memory than DDP's buckets, which copies them: nothing is wrong.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    if options.compile:  # a cache that survives reboots and is shared by the jobs of a cluster, unlike the default in /tmp
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path("~/.cache/amgen/compiled").expanduser()))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.precision == "tf32"
    # Without `cpu`, accelerate runs a torchrun on a machine without GPUs as so many separate runs of one process.
    cpu = options.device == "cpu" or not torch.accelerator.is_available()
    # A run in the same process may have had another precision, which accelerate otherwise keeps for good.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision="bf16" if options.precision == "bf16" else "no",
        log_with=list(options.trackers) or None,
        project_config=ProjectConfiguration(str(run), logging_dir=str(run / FOLDER)),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=options.timeout))],
    )
    console = console or Console()
    # Names of files are no markup: what stands in brackets or between colons is theirs.
    say = partial(console.print, highlight=False, markup=False, emoji=False, soft_wrap=True)
    dataset = open_dataset(config.data, say if accelerator.is_main_process else None)
    config = change(config, {"data": {**config.data.model_dump(mode="json"), **dataset.record()}})
    with hold(run) if accelerator.is_main_process else nullcontext():
        _train(config, dataset, run, restart, accelerator, console)


def _train(
    config: Config, dataset: ImageDataset | SnapshotDataset, run: Path, restart: bool, accelerator: Accelerator, console: Console
) -> None:
    """Train once processes and data are there, and nobody else is at work in the run directory."""
    options = config.training
    say = partial(console.print, markup=False, emoji=False) if accelerator.is_main_process else lambda *args, **kwargs: None
    # The main process alone touches the folder; the others learn what it found there.
    found = [prepare_run(run, config, restart)] if accelerator.is_main_process else [None]
    checkpoint = broadcast_object_list(found)[0]
    trainer = Trainer(config, dataset, run, accelerator, console)
    say(
        f"{dataset.summary()}, "
        f"{sum(p.numel() for p in trainer.action.parameters()):,} parameters, batch {options.batch_size} on "
        f"{accelerator.num_processes} x {accelerator.device}, run directory {run}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if checkpoint is not None:
        trainer.resume(checkpoint)
        say(f"resuming from {checkpoint}", highlight=False, soft_wrap=True)
    if trainer.progress.step >= trainer.total_steps:
        say(f"already trained on {trainer.progress.images:,} images: raise training.images to go on", highlight=False)
        return
    start_trackers(accelerator, config, run, trainer.progress.images)
    try:
        with notice_lost_peers(run, accelerator.process_index, accelerator.num_processes):
            trainer.train()
    finally:
        finish_trackers(accelerator)
    say(f"trained on {trainer.progress.images:,} images: {run}", highlight=False, soft_wrap=True)
