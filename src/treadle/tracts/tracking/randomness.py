"""Random numbers that belong to a place: a function of the seed and of what they are for, whoever asks and when.

A counter is mixed by the finalizer of SplitMix64 (Steele, Lea and Flood, 2014), one round for each of its parts; the
key of a purpose comes from `derive_seed`.
"""

from __future__ import annotations

import numpy as np

from treadle.data.random import derive_seed

_ODD = np.uint64(0x9E3779B97F4A7C15)


def uniforms(seed: int, purpose: str, indices: np.ndarray, count: int, step: int = 0) -> np.ndarray:
    """(n, count) float32 in (0, 1): the numbers of each of `indices` (n,) int64 at `step` of `purpose`."""
    if count == 0:
        return np.zeros((len(indices), 0), np.float32)
    key = np.uint64(derive_seed(seed, purpose))
    rows = _mixed(_mixed(np.asarray(indices, np.uint64) + key) + np.array([step], np.uint64) * _ODD)
    columns = np.arange(1, count + 1, dtype=np.uint64) * _ODD
    drawn = _mixed(rows[:, None] + columns)
    # 23 bits and half a unit: neither 0 nor 1, and exact in float32.
    return ((drawn >> np.uint64(41)).astype(np.float32) + np.float32(0.5)) * np.float32(2**-23)


def _mixed(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
