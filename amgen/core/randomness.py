"""Random numbers that are a function of (seed, purpose, index) and of nothing else.

Every draw made for an image comes from a stream of its own: NumPy's Philox (Salmon, Moraes, Dror and Shaw, SC 2011), a block cipher whose
key is (seed, purpose) and whose counter begins at (0, index), 64 bits each. Streams of other seeds, purposes or indices share no block, and
one index has 2^66 words of 64 bits to draw from. Results therefore do not depend on the batch size, the number of processes or the
data-loading workers, and a run resumes from a count alone. Draws are made on the CPU, so that all devices and precisions agree on them, and
from the words alone, whose values NumPy guarantees across versions (those of its distributions it does not).
"""

import hashlib
import math
import struct
from collections.abc import Sequence
from enum import IntEnum, unique

import numpy as np
import torch
from torch import Tensor


@unique
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
    AUXILIARY = 10
    SAMPLE_AUXILIARY = 11
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


_WORD = 2**64 - 1


def derive_seed(seed: int, purpose: Purpose, index: int) -> int:
    """Hash (seed, purpose, index) to the 63 bits of another seed, for what has indices of its own below this one."""
    digest = hashlib.blake2b(struct.pack("<qqq", seed, purpose, index), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def words(seed: int, purpose: Purpose, indices: Sequence[int], count: int) -> np.ndarray:
    """Return the first `count` words of the stream of each index, uint64 (len(indices), count)."""
    found = np.empty((len(indices), count), dtype=np.uint64)
    stream = np.random.Philox(key=[seed & _WORD, purpose])
    state = stream.state
    counter = state["state"]["counter"]
    # Putting the state back takes a quarter of the time of a new generator.
    for row, index in zip(found, indices, strict=True):
        counter[:] = 0, int(index) & _WORD, 0, 0
        stream.state = state
        row[:] = stream.random_raw(count)
    return found


def gaussian(seed: int, purpose: Purpose, indices: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Draw standard normal noise of shape (len(indices), *shape), float32; row k depends on (seed, indices[k]) alone.

    By the transform of Box and Muller from 31 and 32 bits: up to 6.7 deviations from the mean.
    """
    size = math.prod(shape)
    half = -(-size // 2)
    # The words become the noise in place: fresh memory costs more than the arithmetic.
    noise = torch.from_numpy(words(seed, purpose, indices, half).view(np.float32))
    bits = noise.view(torch.int32)
    # In (0, 1], finest near 0, where the logarithm is steep.
    radius = bits[:, :half].bitwise_and_(0x7FFFFFFF).float().add_(0.5).mul_(2.0**-31).log_().mul_(-2).sqrt_()
    angle = bits[:, half:].float().mul_(math.pi * 2.0**-31)
    torch.cos(angle, out=noise[:, :half]).mul_(radius)
    torch.sin(angle, out=noise[:, half:]).mul_(radius)
    return noise[:, :size].reshape(len(indices), *shape)


def uniform(seed: int, purpose: Purpose, indices: Sequence[int]) -> Tensor:
    """Draw one number in [0, 1) for each index, shape (len(indices),), float64, exactly reproducible."""
    # The top 53 bits: all that a float64 holds, so that rounding never reaches 1.
    return torch.from_numpy((words(seed, purpose, indices, 1)[:, 0] >> np.uint64(11)) * 2.0**-53)


def uniforms(seed: int, purpose: Purpose, indices: Sequence[int], count: int) -> Tensor:
    """Draw `count` numbers in [0, 1) for each index, shape (len(indices), count), float32, exactly reproducible."""
    bits = words(seed, purpose, indices, -(-count // 2)).view(np.uint32)[:, :count]
    return torch.from_numpy((bits >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24))


def permutation(seed: int, purpose: Purpose, index: int, length: int) -> Tensor:
    """Return a random order of range(length), shape (length,), int64."""
    return torch.from_numpy(np.argsort(words(seed, purpose, [index], length)[0], kind="stable"))


def dropout_seeds(seed: int, purpose: Purpose, indices: Sequence[int]) -> Tensor:
    """Return a key of 62 bits for each index, int32 (len(indices), 2), for draws that are made on the device itself."""
    return torch.from_numpy(words(seed, purpose, indices, 1).view(np.int32) & np.int32(0x7FFFFFFF))


def rademacher(seed: int, purpose: Purpose, indices: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Draw signs, +1 or -1 with equal chance, of shape (len(indices), *shape), float32."""
    size = math.prod(shape)
    drawn = words(seed, purpose, indices, -(-size // 64)).view(np.uint8)
    signs = torch.from_numpy(np.unpackbits(drawn, axis=1, count=size)).float().mul_(2).sub_(1)
    return signs.reshape(len(indices), *shape)
