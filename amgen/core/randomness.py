"""Random numbers that are a function of (seed, purpose, index) and of nothing else.

Every index has its own stream of Philox (Salmon, Moraes, Dror and Shaw, SC 2011), NumPy's counter-based generator: the key is (seed,
purpose) and the counter starts at (0, index), 64 bits each. Streams of different seeds, purposes or indices share no block, and each has
2^66 words of 64 bits. So results do not depend on the batch size, the number of processes or the data-loading workers, and a run resumes
from its count of images. Numbers are generated on the CPU, so that they are the same for all devices and precisions. They are made from the
words of the generator only, which NumPy guarantees to be the same in all versions; it does not guarantee its distributions.
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
    """Purposes of random numbers. Their values must never change: results of old seeds depend on them."""

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
    TRANSPORT_GROUPS = 22
    SUBSAMPLE = 23
    FATE = 24
    PAIR = 25


_WORD = 2**64 - 1


def derive_seed(seed: int, purpose: Purpose, index: int) -> int:
    """Return another seed of 63 bits, a hash of (seed, purpose, index), for numbers that have a second index."""
    digest = hashlib.blake2b(struct.pack("<qqq", seed, purpose, index), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def words(seed: int, purpose: Purpose, indices: Sequence[int], count: int) -> np.ndarray:
    """Return the first `count` words of the stream of each index, uint64 (len(indices), count)."""
    found = np.empty((len(indices), count), dtype=np.uint64)
    stream = np.random.Philox(key=[seed & _WORD, purpose])
    state = stream.state
    counter = state["state"]["counter"]
    # Setting the state takes a quarter of the time of a new generator.
    for row, index in zip(found, indices, strict=True):
        counter[:] = 0, int(index) & _WORD, 0, 0
        stream.state = state
        row[:] = stream.random_raw(count)
    return found


def gaussian(seed: int, purpose: Purpose, indices: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Return standard normal noise of shape (len(indices), *shape), float32; row k depends on the seed, the purpose and indices[k] only.

    It is the Box-Muller transform of 31 and 32 bits; the largest possible value is 6.7.
    """
    size = math.prod(shape)
    half = -(-size // 2)
    # In place, since allocating memory costs more than the arithmetic.
    noise = torch.from_numpy(words(seed, purpose, indices, half).view(np.float32))
    bits = noise.view(torch.int32)
    # In (0, 1], finest near 0, where the logarithm is steep.
    radius = bits[:, :half].bitwise_and_(0x7FFFFFFF).float().add_(0.5).mul_(2.0**-31).log_().mul_(-2).sqrt_()
    angle = bits[:, half:].float().mul_(math.pi * 2.0**-31)
    torch.cos(angle, out=noise[:, :half]).mul_(radius)
    torch.sin(angle, out=noise[:, half:]).mul_(radius)
    return noise[:, :size].reshape(len(indices), *shape)


def uniform(seed: int, purpose: Purpose, indices: Sequence[int]) -> Tensor:
    """Return one uniform number in [0, 1) for each index, shape (len(indices),), float64, exactly reproducible."""
    # The upper 53 bits, the precision of float64, so that rounding never gives 1.
    return torch.from_numpy((words(seed, purpose, indices, 1)[:, 0] >> np.uint64(11)) * 2.0**-53)


def uniforms(seed: int, purpose: Purpose, indices: Sequence[int], count: int) -> Tensor:
    """Return `count` uniform numbers in [0, 1) for each index, shape (len(indices), count), float32, exactly reproducible."""
    bits = words(seed, purpose, indices, -(-count // 2)).view(np.uint32)[:, :count]
    return torch.from_numpy((bits >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24))


def permutation(seed: int, purpose: Purpose, index: int, length: int) -> Tensor:
    """Return a random order of range(length), shape (length,), int64."""
    return torch.from_numpy(np.argsort(words(seed, purpose, [index], length)[0], kind="stable"))


def dropout_seeds(seed: int, purpose: Purpose, indices: Sequence[int]) -> Tensor:
    """Return a seed of 62 bits for each index, int32 (len(indices), 2), for dropout masks, which are computed on the device."""
    return torch.from_numpy(words(seed, purpose, indices, 1).view(np.int32) & np.int32(0x7FFFFFFF))


def rademacher(seed: int, purpose: Purpose, indices: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Return random signs, +1 or -1 with probability 1/2, of shape (len(indices), *shape), float32."""
    size = math.prod(shape)
    drawn = words(seed, purpose, indices, -(-size // 64)).view(np.uint8)
    signs = torch.from_numpy(np.unpackbits(drawn, axis=1, count=size)).float().mul_(2).sub_(1)
    return signs.reshape(len(indices), *shape)
