"""Small subjects with known signals, for the tests of feeds."""

from __future__ import annotations

import numpy as np

from treadle.tracts.signal.harmonics import count_of
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import MemorySubject

SIZES = np.array([2.0, 1.0, 1.5])


def space(shape=(12, 14, 10)) -> Space:
    return Space(np.diag([*SIZES, 1.0]), shape)


def lines(count: int, seed: int = 0, shortest: int = 2, longest: int = 15) -> Streamlines:
    """Smooth lines inside the volume, of `shortest` to `longest` points."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        points = int(rng.integers(shortest, longest + 1))
        start, along, bend = rng.uniform(3, 6, 3), rng.normal(size=3), 0.02 * rng.normal(size=3)
        t = np.arange(points)[:, None] * 0.3
        made.append(start + along / np.linalg.norm(along) * t + bend * t**2)
    return Streamlines.of(made)


def subject(name: str, count: int, seed: int = 0, kind: str = "tensor", **given) -> MemorySubject:
    """A subject with a random volume "fodf" or "dti" and the group "bundle"."""
    features = {"tensor": 6, "sh": count_of(2), "": 4}[kind]
    volume = np.random.default_rng(seed).normal(size=(12, 14, 10, features)).astype(np.float32)
    return MemorySubject(name, space(), {"dwi": (volume, kind)}, {"bundle": lines(count, seed, **given)})


def subjects(*counts: int, kind: str = "tensor", **given) -> list[MemorySubject]:
    return [subject(f"sub-{k}", count, k, kind, **given) for k, count in enumerate(counts)]
