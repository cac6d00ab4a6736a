"""Random numbers of lines: each a pure function of (seed, epoch, line, counter), many at once.

A line's numbers are those of SplitMix64 (Steele, Lea and Flood, 2014), begun at a hash of seed, epoch and line: which
other lines are in its batch, and which process makes it, does not matter.
"""

from __future__ import annotations

import numpy as np

from treadle.data.random import derive_seed

_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mixed(bits: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer; overflow is meant."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(bits ^ (bits >> np.uint64(31)))


def streams(seed: int, epoch: int, lines: np.ndarray) -> np.ndarray:
    """(n,) uint64: where the numbers of each of the lines (n,) int64 begin."""
    start = np.uint64(derive_seed(seed, "lines", epoch))
    return _mixed(np.asarray(lines).astype(np.uint64) * _STEP + start)


def uniforms(stream: np.ndarray, counters: np.ndarray | int) -> np.ndarray:
    """Numbers `counters` of the streams, float64 above 0 and below 1; both are broadcast."""
    # At least an array of one: NumPy warns of overflow in a scalar, where it is meant.
    steps = (np.atleast_1d(counters).astype(np.uint64) + np.uint64(1)) * _STEP
    bits = _mixed(stream + steps)
    return np.asarray(((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52)


def normals(stream: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(n, 3) float64 normal numbers from four uniform ones of streams (n,), from counters `first` (n,) on."""
    a, b, c, d = (uniforms(stream, first + k) for k in range(4))
    # Box and Muller, 1958.
    far, near = np.sqrt(-2 * np.log(a)), np.sqrt(-2 * np.log(c))
    return np.stack([far * np.cos(2 * np.pi * b), far * np.sin(2 * np.pi * b), near * np.cos(2 * np.pi * d)], axis=1)


def rotations(stream: np.ndarray, first: int) -> np.ndarray:
    """(n, 3, 3) float64 rotations, each as likely as any other, from three numbers of each stream (n,).

    By a uniform quaternion (Shoemake, 1992).
    """
    a, b, c = (uniforms(stream, first + k) for k in range(3))
    low, high = np.sqrt(1 - a), np.sqrt(a)
    x, y = low * np.sin(2 * np.pi * b), low * np.cos(2 * np.pi * b)
    z, w = high * np.sin(2 * np.pi * c), high * np.cos(2 * np.pi * c)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)
