"""What a training of tractography takes: a prepared file, or phantoms of our own."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from treadle.tracts.phantom import make_phantom
from treadle.tracts.subject import Subject, TractData

TRAINING, VALIDATION, TESTING = (1, 2, 3, 4, 5, 6), (100,), (101,)
"""Seeds of the phantoms."""


def load_tracts(path: Path | None) -> TractData:
    """The subjects of a file that `treadle tracts prepare` wrote, or dwi_ml; None makes phantoms.

    Raises UsageError for a file that cannot be read, or that h5py is missing for.
    """
    if path is None:
        training, validation, testing = (tuple(map(_phantom, seeds)) for seeds in (TRAINING, VALIDATION, TESTING))
        return TractData(training, validation, testing)
    from treadle.tracts.prepared import open_prepared

    return open_prepared(path)


@lru_cache(16)
def _phantom(seed: int) -> Subject:
    return make_phantom(seed).subject(f"phantom-{seed}")
