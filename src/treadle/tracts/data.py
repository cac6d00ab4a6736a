"""What a training of tractography takes: a prepared file, or phantoms of our own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from treadle.errors import UsageError
from treadle.tracts.phantom import Phantom, make_phantom
from treadle.tracts.scoring.truth import Truth, truth_of, voxels_of
from treadle.tracts.subject import MemorySubject, Subject, TractData

TRAINING, VALIDATION, TESTING = (1, 2, 3, 4, 5, 6), (100,), (101,)
"""Seeds of the phantoms."""


@dataclass(eq=False)
class PhantomSubject(MemorySubject):
    """A phantom as a subject, of which the truth is known."""

    phantom: Phantom | None = None


@dataclass(frozen=True, eq=False)
class Ground:
    """Where a subject is tracked."""

    mask: np.ndarray
    """(x, y, z) bool: where lines may be."""
    seeding: np.ndarray
    """(x, y, z) bool: where they begin."""
    truth: Truth | None
    """What is right, where that is known."""


def load_tracts(path: Path | None) -> TractData:
    """The subjects of a file that `treadle tracts prepare` wrote, or dwi_ml; None makes phantoms.

    Raises UsageError for a file that cannot be read, or that h5py is missing for.
    """
    if path is None:
        training, validation, testing = (tuple(map(_phantom, seeds)) for seeds in (TRAINING, VALIDATION, TESTING))
        return TractData(training, validation, testing)
    from treadle.tracts.prepared import open_prepared

    return open_prepared(path)


def tracking_mask(subject: Subject, volume: str) -> np.ndarray:
    """(x, y, z) bool: where lines of a subject may be: a phantom's own mask; of others where `volume` is not 0."""
    if isinstance(subject, PhantomSubject) and subject.phantom is not None:
        return subject.phantom.tracking_mask
    return np.asarray((subject.volume(volume) != 0).any(axis=3))


def ground_of(subject: Subject, volume: str, lines: str) -> Ground:
    """Where to track a subject, and from where: a phantom in its masks, others from where their lines run.

    Args:
        subject: which.
        volume: the group that the model sees.
        lines: the group of its real streamlines.
    """
    mask = tracking_mask(subject, volume)
    if isinstance(subject, PhantomSubject) and subject.phantom is not None:
        return Ground(mask, subject.phantom.seeding_mask, truth_of(subject.phantom))
    seeding = mask & voxels_of(subject.streamlines(lines), mask.shape)
    if not seeding.any():
        raise UsageError(f"{subject.name}: no streamline of {lines!r} runs where the volume {volume!r} is not 0")
    return Ground(mask, seeding, None)


@lru_cache(16)
def _phantom(seed: int) -> Subject:
    phantom = make_phantom(seed)
    given = phantom.subject(f"phantom-{seed}")
    return PhantomSubject(given.name, given.space, given.given_volumes, given.given_lines, phantom=phantom)
