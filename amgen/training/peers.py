"""The other processes of a run: how they may be joined, and what happens when one of them dies."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amgen import checkpoints
from amgen.errors import PeerLost, UserError
from amgen.processes import of_a_peer, reason_of

SHARDED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "sharding by a parallelism configuration",
}
"""Environment variables by which a launcher asks for divided weights."""


def refuse_sharding() -> None:
    """Refuse launchers that divide the weights among the processes.

    Raises:
        UserError: with the reason.
    """
    for variable, name in SHARDED.items():
        if os.environ.get(variable, "").lower() in ("1", "true", "yes"):
            raise UserError(
                f"{name} ({variable}) frees each layer's weights as soon as one backward pass has used them, but the loss differentiates "
                "the action twice and needs them again: launch with torchrun, which keeps whole weights on every process, and lower "
                "memory by training.micro_batch or training.checkpoint_activations=true"
            )


@contextmanager
def notice_lost_peers(run: Path, rank: int, processes: int) -> Iterator[None]:
    """Turn the failure of a collective operation into a line that says what happened and how to go on.

    Raises:
        PeerLost: if another process died, or did not answer in time.
    """
    try:
        yield
    except (RuntimeError, PeerLost) as error:
        if isinstance(error, RuntimeError) and (processes == 1 or not of_a_peer(error)):
            raise
        last = checkpoints.latest(run)
        rescue = f"the last checkpoint is {last}" if last else "no checkpoint had been written"
        reason = error.reason if isinstance(error, PeerLost) else reason_of(error)
        raise PeerLost(
            f"process {rank} stops because another of the {processes} is lost ({reason}): {rescue}; run the same command again to go on",
            reason,
        ) from None
