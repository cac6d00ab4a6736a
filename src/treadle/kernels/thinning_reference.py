"""`thinning` in NumPy, line by line: what the compiled loop must equal."""

from __future__ import annotations

import itertools

import numpy as np


def thin_reference(points: np.ndarray, offsets: np.ndarray, tolerance: float, longest: float = 10.0) -> np.ndarray:
    """See `thinning.thin`."""
    keep = np.zeros(len(points), bool)
    for begin, end in itertools.pairwise(offsets.tolist()):
        line = points[begin:end]
        at = 0
        keep[begin:end][:1] = True
        while at < len(line) - 1:
            last = at + 1
            while last + 1 < len(line) and _fits(line[at : last + 2], tolerance, longest):
                last += 1
            keep[begin + last] = True
            at = last
    return keep


def _fits(part: np.ndarray, tolerance: float, longest: float) -> bool:
    """Whether the segment from the first to the last point may stand for all of them."""
    ahead, between = part[-1] - part[0], part[1:-1] - part[0]
    square = float(ahead @ ahead)
    if square > longest**2:
        return False
    along = np.clip(between @ ahead / square, 0, 1) if square > 0 else np.zeros(len(between))
    return bool((((between - along[:, None] * ahead) ** 2).sum(axis=1) <= tolerance**2).all())
