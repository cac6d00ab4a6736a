"""Generation-validation: whether tracked lines end where real ones do, which the loss of points does not tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from treadle.tracts.data import tracking_mask
from treadle.tracts.scoring.connectivity import bloc_regions, end_regions, label_regions
from treadle.tracts.scoring.geometry import ends_of
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import Subject
from treadle.tracts.tracking.propagator import Propagator
from treadle.tracts.tracking.settings import TrackingSettings
from treadle.tracts.tracking.tracker import track


@dataclass(frozen=True, eq=False)
class Held:
    """Real lines of one subject, and in which regions they end."""

    subject: Subject
    lines: Streamlines
    regions: np.ndarray
    """(x, y, z) int64: the region of each voxel; -1: none."""
    space: Space
    mask: np.ndarray
    """(x, y, z) bool: where lines may be."""


def hold(subjects: Sequence[Subject], group: str, volume: str, count: int, regions: int) -> list[Held]:
    """Choose about `count` lines of all subjects together, evenly; all where there are fewer.

    Args:
        subjects: those held out.
        group: their streamlines.
        volume: what the model sees; see `tracking_mask`.
        count: lines; those of fewer than three points are not chosen, for they have no middle.
        regions: along each axis, where a subject has no connectivity of its own.
    """
    usable = [np.flatnonzero(subject.lines[group].lengths >= 3) for subject in subjects]
    total = sum(map(len, usable))
    held = []
    for subject, indices in zip(subjects, usable, strict=True):
        if len(indices) == 0:
            continue
        share = min(len(indices), max(1, round(count * len(indices) / total)))
        chosen = indices[np.linspace(0, len(indices) - 1, share).astype(np.int64)]
        known = subject.connectivity(group)
        if known is not None and known.labels:
            where = label_regions(subject.volume(known.labels)[..., 0])
        else:
            blocs = (regions,) * 3 if known is None or known.blocs is None else known.blocs
            where = bloc_regions(subject.volumes[volume].space.shape, blocs)
        lines, space = subject.streamlines(group, chosen), subject.lines[group].space
        held.append(Held(subject, lines, where, space, tracking_mask(subject, volume)))
    return held


def generate(
    held: Sequence[Held],
    propagator_of: Callable[[Subject], Propagator],
    settings: TrackingSettings,
    *,
    seed: int,
) -> dict[str, float]:
    """Track each held line anew, from its middle point both ways, and compare where it ends.

    Args:
        held: from `hold`.
        propagator_of: what leads lines in a subject.
        settings: how to track; lines of any length are kept.
        seed: of all randomness.

    Returns:
        "endpoint_distance": mm from the real ends, a mean over lines and both ends, taken the way round that is
        nearer; "connectivity": the share of lines that link the same two regions as the real ones.
    """
    distances, linked = [], []
    for one in held:
        middles = one.lines.points[(one.lines.offsets[:-1] + one.lines.offsets[1:]) // 2]
        tracked = track(propagator_of(one.subject), middles, one.space, one.mask, settings, seed=seed)
        real, made = np.stack(ends_of(one.lines)), np.stack([middles, middles])  # what did not grow ends where it began
        made[:, tracked.numbers] = np.stack(ends_of(tracked.lines))
        ways = [np.linalg.norm((way - real) * one.space.voxel_sizes, axis=2).mean(axis=0) for way in (made, made[::-1])]
        distances.append(np.minimum(*ways))
        wanted, found = (np.sort(end_regions(_between(ends), one.regions), axis=1) for ends in (real, made))
        linked.append((wanted == found).all(axis=1))
    return {
        "endpoint_distance": float(np.concatenate(distances).mean()),
        "connectivity": float(np.concatenate(linked).mean()),
    }


def _between(ends: np.ndarray) -> Streamlines:
    """Ends (2, n, 3) as lines of two points."""
    return Streamlines(np.moveaxis(ends, 0, 1).reshape(-1, 3), 2 * np.arange(ends.shape[1] + 1))
