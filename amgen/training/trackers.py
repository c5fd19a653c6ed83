"""TensorBoard and Weights & Biases, through accelerate."""

import importlib.util
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from amgen.config import Config
from amgen.core.errors import UserError
from amgen.core.files import make_folder, write_text

FOLDER = "tracking"


def check_trackers(config: Config) -> None:
    """Refuse trackers that are not installed.

    Raises:
        UserError: naming the package.
    """
    for name in config.training.trackers:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"training.trackers names {name}, which is not installed: pip install 'amgen[{name}]', or leave it out")


def start_trackers(accelerator: Accelerator, config: Config, run: Path, images: int) -> None:
    """Start the trackers of a run that continues after `images`. Their entries for later images are discarded.

    Raises:
        UserError: if one of them cannot be started.
    """
    if not config.training.trackers:
        return
    settings: dict[str, Any] = {"tensorboard": {"purge_step": images + 1}}
    if accelerator.is_main_process and "wandb" in config.training.trackers:
        folder = make_folder(run / FOLDER)
        name = folder / "wandb-id"
        if not name.exists():
            write_text(name, secrets.token_hex(4))
        settings["wandb"] = {"dir": str(folder), "id": name.read_text(), "name": run.name}
        if not _wandb_is_offline():  # offline there is nothing to resume, and wandb 0.31 then records nothing at all
            settings["wandb"]["resume"] = "allow"
    try:
        accelerator.init_trackers("amgen", init_kwargs=settings)
    except Exception as error:  # of any class: trackers have their own
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"training.trackers={config.training.trackers} cannot be started ({type(error).__name__}: {reason}): "
            "fix that (wandb login, or WANDB_MODE=offline), or leave it out"
        ) from None


def _wandb_is_offline() -> bool:
    import wandb

    return wandb.setup().settings.mode == "offline"


def finish_trackers(accelerator: Accelerator) -> None:
    """Let the trackers write their buffers. An error of a tracker here does not fail the training."""
    for tracker in accelerator.trackers:
        with suppress(Exception):
            tracker.finish()
