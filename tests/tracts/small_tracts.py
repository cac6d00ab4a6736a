"""Small heads: arcs around a corner, and tensors (or harmonics) that lie along them. Nothing about them is noisy."""

from __future__ import annotations

from typing import Any

import numpy as np

from treadle.tracts.signal.harmonics import fit_harmonics
from treadle.tracts.signal.tensor import fit_tensors, normalised
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import MemorySubject, TractData

VOXEL = 2.0
SPACE = Space(np.diag([VOXEL, VOXEL, VOXEL, 1.0]), (12, 12, 5))
SMALL: dict[str, Any] = {
    "device": "cpu",
    "sizes": [16],
    "batch_size": 12,
    "learning_rate": 1e-2,
    "step_size": 2.0,
    "track_seeds": 0,
    "track_shortest": 0.0,
    "log_every": "1 step",
}
"""Settings of a training that takes milliseconds."""
TURNED = {"split": 0.5, "reverse": 0.5, "noise": 0.3, "pull": 0.5, "noise_targets": 0.1, "rotate": True}
"""Everything that can be done to lines."""


def along(places: np.ndarray) -> np.ndarray:
    """The direction of the arcs at places (..., 3) in mm: around the axis through the corner."""
    found = np.stack([-places[..., 1], places[..., 0], np.zeros(places.shape[:-1])], axis=-1)
    return found / np.linalg.norm(found, axis=-1, keepdims=True)


def volume(kind: str = "tensor") -> np.ndarray:
    """(12, 12, 5, features) float32: one fibre in every voxel but those near the corner, which are 0."""
    centres = VOXEL * (np.stack(np.meshgrid(*map(np.arange, SPACE.shape), indexing="ij"), -1) + 0.5)
    index = np.arange(45) + 0.5
    height, turn = 1 - index / 45, np.pi * (1 + 5**0.5) * index
    directions = np.stack(
        [np.sqrt(1 - height**2) * np.cos(turn), np.sqrt(1 - height**2) * np.sin(turn), height], axis=1
    )
    bvalues, directions = np.append(0.0, np.full(45, 1000.0)), np.concatenate([np.zeros((1, 3)), directions])
    cosine = along(centres) @ directions.T
    dwi = np.exp(-bvalues * (3e-4 + 1.2e-3 * cosine**2))
    if kind == "tensor":
        values = normalised(fit_tensors(dwi, bvalues, directions))
    else:
        values = fit_harmonics(dwi, bvalues, directions, 4)
    far = np.linalg.norm(centres[..., :2], axis=-1) >= 4
    return np.asarray(np.where(far[..., None], values, 0), np.float32)


def arcs(count: int, seed: int = 0) -> Streamlines:
    """Quarters of circles, half of them the other way round, by points about a millimetre apart."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        radius, height = rng.uniform(8, 20), rng.uniform(2, 8)
        angle = np.linspace(0.15, np.pi / 2 - 0.15, round(1.3 * radius))[:: 1 if number % 2 else -1]
        made.append(np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(len(angle), height)], 1) / VOXEL)
    lines = Streamlines.of(made)
    bundle = np.float32([[number % 3] for number in range(count)])
    return Streamlines(lines.points, lines.offsets, {"bundle": bundle})


def subject(name: str, count: int = 24, seed: int = 0, kind: str = "tensor", **given: Any) -> MemorySubject:
    """With the volume "input" and the lines "fibres"."""
    return MemorySubject(name, SPACE, {"input": (volume(kind), kind)}, {"fibres": arcs(count, seed)}, **given)


def data(kind: str = "tensor") -> TractData:
    """Two subjects to train on, one to validate and one to test on."""
    return TractData(
        (subject("one", 24, 0, kind), subject("two", 24, 1, kind)),
        (subject("three", 12, 2, kind),),
        (subject("four", 9, 3, kind),),
    )
