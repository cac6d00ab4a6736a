"""The streamlines of a subject that is prepared: read, checked, resampled and put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from treadle.errors import UsageError
from treadle.tracts.extras import why
from treadle.tracts.files import FORMATS, read_streamlines
from treadle.tracts.prepare_config import LinesGroup
from treadle.tracts.prepare_folder import Grid, SubjectFolder
from treadle.tracts.resampling import compress, resample_count, resample_step
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import Connectivity
from treadle.tracts.volumes import NIFTI, read_volume

Policy = Literal["refuse", "remove", "keep"]

OUTSIDE, SINGLE, POINT, BAD = "outside of the volume", "of a single point", "of no length", "not finite"
"""What is wrong with a line."""

_TOLERANCE = 1e-3
"""Voxels that a line may reach out of the volume: float32 and a transform or two."""


@dataclass(frozen=True)
class Points:
    """Which points streamlines get; at most one of these."""

    step_size: float | None = None
    nb_points: int | None = None
    compress: float | None = None

    def __post_init__(self) -> None:
        given = [name for name, value in vars(self).items() if value is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} were given: expected one of them")
        # Said before the first file is read, not after.
        self.apply(Streamlines.of([]), Space(np.eye(4), (1, 1, 1)))

    def apply(self, lines: Streamlines, space: Space) -> Streamlines:
        """The lines with these points."""
        if self.step_size is not None:
            return resample_step(lines, self.step_size, space.voxel_sizes)
        if self.nb_points is not None:
            return resample_count(lines, self.nb_points, space.voxel_sizes)
        return lines if self.compress is None else compress(lines, self.compress, space.voxel_sizes)


@dataclass
class LinesReport:
    """What became of a group's streamlines."""

    kept: int = 0
    invalid: Counter[str] = field(default_factory=Counter)
    """How many were wrong, by what was wrong."""
    removed: int = 0
    empty: int = 0
    """Files without any."""


def invalid_lines(lines: Streamlines, space: Space) -> dict[str, np.ndarray]:
    """Which lines cannot be learnt from: by what is wrong, (n,) bool each; no line is in two."""
    finite = np.isfinite(lines.points).all(axis=1)
    points = np.where(finite[:, None], lines.points, 0)
    reach = np.asarray(((points < -_TOLERANCE) | (points > np.array(space.shape) + _TOLERANCE)).any(axis=1))
    short = lines.lengths < 2
    packed = Streamlines(points, lines.offsets)
    # millimetres are a difference of two sums: what is left of a line of no length is their rounding.
    still = packed.millimetres(space.voxel_sizes) < 1e-6
    found: dict[str, np.ndarray] = {}
    seen = np.zeros(len(lines), bool)
    for what, wrong in ((BAD, _any(~finite, lines)), (SINGLE, short), (POINT, still), (OUTSIDE, _any(reach, lines))):
        found[what] = wrong & ~seen
        seen |= wrong
    return found


def build_lines(
    group: LinesGroup, folder: SubjectFolder, grid: Grid, points: Points, policy: Policy
) -> tuple[Streamlines, LinesReport]:
    """Read the files of a group of streamlines, check and resample them.

    Lines that cannot be learnt from are refused, removed or kept; those that are not finite cannot be kept. Raises
    UsageError that names the file.
    """
    report, parts = LinesReport(), []
    for path in folder.find(group.files, FORMATS):
        bare = path.suffix.lower() == ".tck"
        if bare and grid.space is None:
            raise UsageError(f"{path}: TCK does not say which grid it belongs to: add a group of type volume")
        lines, space = read_streamlines(path, grid.space if bare else None)
        grid.check(path, space)
        lost = [key for key in group.dps_keys if key not in lines.per_line]
        if lost:
            known = ", ".join(sorted(lines.per_line)) or "nothing"
            raise UsageError(f"{path} does not know {lost[0]!r} of its streamlines (dps_keys): it knows {known}")
        lines = Streamlines(lines.points, lines.offsets, {key: lines.per_line[key] for key in group.dps_keys})
        if len(lines) == 0:
            if policy == "refuse":
                raise UsageError(f"{path} holds no streamlines (--invalid remove goes on without it)")
            report.empty += 1
        lines = _checked(path, lines, space, policy, report)
        parts.append(points.apply(lines, space))
    whole = Streamlines.concatenate(parts)
    if len(whole) == 0:
        raise UsageError(f"the group {group.name!r} is left without any streamline")
    report.kept = len(whole)
    return whole, report


def _checked(path: Path, lines: Streamlines, space: Space, policy: Policy, report: LinesReport) -> Streamlines:
    wrong = invalid_lines(lines, space)
    counts = Counter({what: int(mask.sum()) for what, mask in wrong.items() if mask.any()})
    report.invalid += counts
    if counts and (policy == "refuse" or (policy == "keep" and BAD in counts)):
        listed = ", ".join(f"{count:,} {what}" for what, count in counts.items())
        remedy = "--invalid remove leaves them out" + ("" if BAD in counts else ", --invalid keep keeps them")
        raise UsageError(f"{path}: {counts.total():,} of {len(lines):,} streamlines are invalid, {listed} ({remedy})")
    if not counts or policy == "keep":
        return lines
    report.removed += counts.total()
    return lines.select(~np.logical_or.reduce(list(wrong.values())))


def build_connectivity(
    group: LinesGroup, folder: SubjectFolder, grid: Grid, add_labels: Callable[[np.ndarray], str]
) -> Connectivity | None:
    """Read a group's connectivity matrix, if it has one; `add_labels` takes its volume of labels, and names it."""
    if not group.connectivity_matrix:
        return None
    path = folder.one(group.connectivity_matrix)
    try:
        matrix = np.asarray(np.load(path, allow_pickle=False), np.float64)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path} cannot be read as a NumPy array: {why(error)}") from None
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
        raise UsageError(f"{path} has the shape {matrix.shape}: expected a square matrix of numbers")
    if group.blocs is not None:
        regions = int(np.prod(group.blocs))
        name = ""
    else:
        labels_path = folder.one(group.labels, NIFTI)
        labels, space = read_volume(labels_path)
        grid.check(labels_path, space)
        regions = len(np.unique(labels[labels > 0]))
        name = add_labels(labels)
    if len(matrix) != regions:
        raise UsageError(f"{path} links {len(matrix)} regions, but there are {regions}")
    return Connectivity(np.maximum(matrix, matrix.T), group.blocs, name)


def _any(points: np.ndarray, lines: Streamlines) -> np.ndarray:
    """(n,) bool: which lines have a point of those."""
    before = np.concatenate(([0], np.cumsum(points)))
    return np.asarray(before[lines.offsets[1:]] > before[lines.offsets[:-1]])
