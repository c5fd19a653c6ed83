"""How many processes a command was launched in."""

import os

from amgen.errors import UserError


def require_single(command: str) -> None:
    """Refuse to run a command in several processes when it does not divide its work among them.

    Raises:
        UserError: under a torchrun of more than one process.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise UserError(f"{command} runs in one process, but was launched in {processes}: run it without torchrun")
