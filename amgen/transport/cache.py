"""Plans in files: an npz archive whose name is a hash of all that the plan depends on. A damaged file is solved again."""

import hashlib
import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from amgen.core.errors import UserError
from amgen.core.files import make_folder, replacing
from amgen.core.npz import read_npz
from amgen.transport.plan import Plan
from amgen.transport.solve import GROUP, TOLERANCE

VERSION = 1
"""Version of the solver: raise it whenever the same arguments give another plan."""

ARRAYS = ("rows", "columns", "start_mass", "end_mass")


def plan_key(
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    delta: float | None,
    group: int = GROUP,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> str:
    """Return the SHA-256, hexadecimal, of the arguments of `wfr_plan` and of the version of the solver."""
    digest = hashlib.sha256(b"amgen plan")
    scale = math.inf if delta is None else float(delta)
    digest.update(struct.pack("<qdqqd", VERSION, scale, group, seed, tolerance))
    for values in (x, y, a, b):
        array = np.ascontiguousarray(torch.as_tensor(values).detach().cpu().double().numpy())
        digest.update(struct.pack(f"<q{array.ndim}q", array.ndim, *array.shape))
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_plan(file: Path, plan: Plan, key: str) -> None:
    """Write a plan atomically.

    Raises:
        UserError: if the file cannot be written.
    """
    arrays = {name: getattr(plan, name).numpy() for name in ARRAYS}
    values = np.array([plan.primal, plan.dual, plan.delta, plan.groups])
    stamp = np.frombuffer(bytes.fromhex(key) + _checksum([*arrays.values(), values]), dtype=np.uint8)
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, values=values, stamp=stamp, **arrays)


def load_plan(file: Path, key: str) -> Plan | None:
    """Return the plan in a file, or None if the file is absent, damaged or of another key."""
    if not file.is_file():
        return None
    try:
        found = read_npz(file, (*ARRAYS, "values", "stamp"), "delete it")
        arrays, values = [found[name] for name in ARRAYS], found["values"]
        stamp = bytes.fromhex(key) + _checksum([*arrays, values])
        if found["stamp"].tobytes() != stamp:
            return None
        primal, dual, delta, groups = values.tolist()
    except (UserError, KeyError, ValueError, AttributeError):
        return None
    tensors = [torch.from_numpy(array) for array in arrays]
    return Plan(tensors[0], tensors[1], tensors[2], tensors[3], primal, dual, delta, int(groups))


def _checksum(arrays: list[np.ndarray]) -> bytes:
    """Return the SHA-256 of the types, shapes and contents of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def cached_plan(folder: Path, key: str, solve: Callable[[], Plan]) -> Plan:
    """Return the plan with a key from a folder; if it is not there or damaged, solve it and write it there.

    Args:
        folder: folder of the plans, created if needed.
        key: `plan_key` of the arguments.
        solve: function that makes the plan.

    Raises:
        UserError: if the folder cannot be created or written to.

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from amgen.transport import cached_plan, plan_key, wfr_plan
        >>> x, a = torch.rand(20, 2), torch.ones(20)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for _ in range(2):  # the second time from the file
        ...         plan = cached_plan(Path(folder), plan_key(x, x + 1, a, a, 2.0), lambda: wfr_plan(x, x + 1, a, a, 2.0))
        >>> plan.relative_gap < 1e-3
        True
    """
    file = make_folder(folder) / f"{key}.npz"
    plan = load_plan(file, key)
    if plan is None:
        plan = solve()
        save_plan(file, plan, key)
    return plan
