"""Random numbers that are a function of (seed, purpose, index) and of nothing else.

Every draw made for an image uses a generator seeded by what it is for and by that image's global index. Results therefore
do not depend on the batch size, the number of processes or the data-loading workers, and a run resumes from a count alone.
Draws are made on the CPU in float32, so that all devices and precisions agree on them.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum

import torch
from torch import Tensor


class Purpose(IntEnum):
    """What a draw is for. Values are part of the reproducibility contract: never renumber them."""

    SHUFFLE = 1
    FLIP = 2
    NOISE = 3
    TIME = 4
    DROPOUT = 5
    SAMPLE_NOISE = 6
    INITIAL_WEIGHTS = 7
    EVALUATION_SPLIT = 8
    LABEL_DROPOUT = 9
    CHOICE = 10
    SAMPLE_CHOICE = 11
    PROBE = 12
    BOUNDARY = 13
    BROWNIAN = 14
    RESAMPLING = 15
    DEQUANTISATION = 16
    TRACE_PROBE = 17
    LIKELIHOOD_IMAGES = 18
    BOUNDARY_DROPOUT = 19
    SNAPSHOT = 20
    SIMULATION = 21


def derive_seed(seed: int, purpose: Purpose, index: int) -> int:
    """Hash (seed, purpose, index) to 63 bits, so that neighbouring seeds or indices share nothing."""
    digest = hashlib.blake2b(struct.pack("<qqq", seed, purpose, index), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, purpose: Purpose, index: int) -> torch.Generator:
    """Return a fresh CPU generator for one index."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, index))


def gaussian(seed: int, purpose: Purpose, indices: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Draw standard normal noise of shape (len(indices), *shape), float32; row k depends on (seed, indices[k]) alone."""
    noise = torch.empty(len(indices), *shape)
    rng = torch.Generator()
    for row, index in zip(noise, indices, strict=True):
        rng.manual_seed(derive_seed(seed, purpose, index))
        row.normal_(generator=rng)
    return noise


def uniform(seed: int, purpose: Purpose, indices: Iterable[int]) -> Tensor:
    """Draw one number in [0, 1) for each index, shape (len(indices),), float64, exactly reproducible."""
    # The top 53 bits: all that a float64 holds, so that rounding never reaches 1.
    draws = [(derive_seed(seed, purpose, index) >> 10) / 2.0**53 for index in indices]
    return torch.tensor(draws, dtype=torch.float64)


def permutation(seed: int, purpose: Purpose, index: int, length: int) -> Tensor:
    """Return a random order of range(length), shape (length,), int64."""
    return torch.randperm(length, generator=generator(seed, purpose, index))


def uniforms(seed: int, purpose: Purpose, indices: Sequence[int], count: int) -> Tensor:
    """Draw `count` numbers in [0, 1) for each index, shape (len(indices), count), float32."""
    return torch.stack([torch.rand(count, generator=generator(seed, purpose, index)) for index in indices])


def keys(seed: int, purpose: Purpose, indices: Sequence[int]) -> Tensor:
    """Return a key of 62 bits for each index, int32 (len(indices), 2), for draws that are made on the device itself."""
    hashes = torch.tensor([derive_seed(seed, purpose, index) for index in indices])
    return torch.stack([hashes & 0x7FFFFFFF, hashes >> 32], dim=1).int()


def rademacher(seed: int, purpose: Purpose, indices: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Draw signs, +1 or -1 with equal chance, of shape (len(indices), *shape), float32."""
    signs = [torch.randint(2, list(shape), generator=generator(seed, purpose, index)) for index in indices]
    return torch.stack(signs).mul_(2).sub_(1).float()
