"""Other points along the same streamlines: by a step, by a number of points, or only where lines bend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treadle.errors import UsageError
from treadle.kernels.compiling import compiled
from treadle.tracts.streamlines import Streamlines

Sizes = np.ndarray | Sequence[float]
"""(3,): millimetres along each axis of the grid."""

LONGEST_SEGMENT = 10.0
"""Millimetres: a segment that stands for several is no longer, as in Presseau et al. 2015."""


def resample_step(lines: Streamlines, step_mm: float, voxel_sizes: Sizes) -> Streamlines:
    """Points at equal distances along each line, as near to `step_mm` as whole steps from end to end allow.

    Both ends stay. A line of m millimetres takes max(1, round(m / step_mm)) steps, so each is between 2/3 and 4/3 of
    `step_mm` (longer only in a line of less than one step: that becomes its two ends). Lines of one point or none stay
    as they are. What is known of points goes along, interpolated; of lines, as it is. Raises UsageError for a step that
    is not above 0.
    """
    if not step_mm > 0:
        raise UsageError(f"a step of {step_mm} mm: expected a number above 0")
    along = _along(lines, voxel_sizes)
    millimetres = along[np.maximum(lines.offsets[1:] - 1, 0)] if len(along) else np.zeros(len(lines))
    steps = np.maximum(1, np.rint(millimetres / step_mm)).astype(np.int64)
    return _resampled(lines, np.where(lines.lengths > 1, steps + 1, lines.lengths), along)


def resample_count(lines: Streamlines, points: int, voxel_sizes: Sizes = (1, 1, 1)) -> Streamlines:
    """As many points in each line, at equal distances along it; a line of one point becomes that point repeated.

    Both ends stay. What is known of points goes along, interpolated. Raises UsageError for fewer than 2 points and for
    a line without any. Where voxels are not cubes, their sizes make distances equal in millimetres.
    """
    if points < 2:
        raise UsageError(f"streamlines of {points} points: expected 2 or more")
    if (lines.lengths == 0).any():
        raise UsageError(f"streamline {int(np.argmin(lines.lengths))} has no point to resample")
    return _resampled(lines, np.full(len(lines), points), _along(lines, voxel_sizes))


def compress(
    lines: Streamlines, tolerance_mm: float, voxel_sizes: Sizes, longest_mm: float = LONGEST_SEGMENT
) -> Streamlines:
    """Leave out points that lie within `tolerance_mm` of the segment that replaces them (Presseau et al. 2015).

    From the last point kept on, the segment is stretched for as long as no point it skips is farther from it than the
    tolerance and it is shorter than `longest_mm`. Ends stay; so does what is known of the points that stay. Raises
    UsageError for a tolerance below 0.
    """
    if not tolerance_mm >= 0:
        raise UsageError(f"a tolerance of {tolerance_mm} mm: expected 0 or more")
    places = lines.points.astype(np.float64) * np.asarray(voxel_sizes, np.float64)
    keep = np.zeros(len(places), np.bool_)
    _kept(places, lines.offsets, float(tolerance_mm), float(longest_mm), keep)
    before = np.concatenate(([0], np.cumsum(keep)))
    per_point = {name: values[keep] for name, values in lines.per_point.items()}
    return Streamlines(lines.points[keep], before[lines.offsets], lines.per_line, per_point)


def _along(lines: Streamlines, voxel_sizes: Sizes) -> np.ndarray:
    """(p,) float64: how many millimetres of its line lie before each point; the other lines do not matter."""
    places = lines.points.astype(np.float64) * np.asarray(voxel_sizes, np.float64)
    along = np.zeros(len(places))
    _walk(places, lines.offsets, along)
    return along


def _resampled(lines: Streamlines, counts: np.ndarray, along: np.ndarray) -> Streamlines:
    """Each line with `counts` (n,) points at equal distances along it; a count of 0 or 1 only where it has as many."""
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    left, right, weight = np.zeros(offsets[-1], np.int64), np.zeros(offsets[-1], np.int64), np.zeros((offsets[-1], 1))
    _spaced(along, lines.offsets, offsets, left, right, weight)

    def between(values: np.ndarray) -> np.ndarray:
        low, high = values[left].astype(np.float64), values[right].astype(np.float64)
        return np.asarray(low + weight * (high - low), np.float32)

    per_point = {name: between(values) for name, values in lines.per_point.items()}
    return Streamlines(between(lines.points), offsets, lines.per_line, per_point)


@compiled()
def _walk(places: np.ndarray, offsets: np.ndarray, along: np.ndarray) -> None:
    """Sum up each line's steps from its first point on."""
    for line in range(len(offsets) - 1):
        for point in range(offsets[line] + 1, offsets[line + 1]):
            x = places[point, 0] - places[point - 1, 0]
            y = places[point, 1] - places[point - 1, 1]
            z = places[point, 2] - places[point - 1, 2]
            along[point] = along[point - 1] + np.sqrt(x * x + y * y + z * z)


@compiled()
def _spaced(
    along: np.ndarray, offsets: np.ndarray, made: np.ndarray, left: np.ndarray, right: np.ndarray, weight: np.ndarray
) -> None:
    """Between which points of a line each of the new ones (line k has `made[k]` to `made[k + 1]`) lies, and where."""
    for line in range(len(offsets) - 1):
        at, last, count = offsets[line], offsets[line + 1] - 1, made[line + 1] - made[line]
        for k in range(count):
            row = made[line] + k
            wanted = along[last] * (k / (count - 1)) if count > 1 else 0.0
            while at < last - 1 and along[at + 1] <= wanted:
                at += 1
            left[row] = at
            right[row] = min(at + 1, last)
            gap = along[right[row]] - along[at]
            if gap > 0:
                weight[row, 0] = min(max((wanted - along[at]) / gap, 0.0), 1.0)
            if k == count - 1 and count > 1:  # the end exactly, whatever the rounding of sums
                left[row], right[row], weight[row, 0] = last, last, 0.0


@compiled()
def _kept(places: np.ndarray, offsets: np.ndarray, tolerance: float, longest: float, keep: np.ndarray) -> None:
    """Mark which points (p, 3) float64 stay, line by line; `keep` (p,) bool comes in as False."""
    for line in range(len(offsets) - 1):
        first, last = offsets[line], offsets[line + 1] - 1
        if last < first:
            continue
        keep[first] = True
        keep[last] = True
        start = first
        for end in range(first + 2, last + 1):
            x = places[end, 0] - places[start, 0]
            y = places[end, 1] - places[start, 1]
            z = places[end, 2] - places[start, 2]
            square = x * x + y * y + z * z
            good = square < longest * longest
            point = start + 1
            while good and point < end:
                a = places[point, 0] - places[start, 0]
                b = places[point, 1] - places[start, 1]
                c = places[point, 2] - places[start, 2]
                share = 0.0
                if square > 0:
                    share = min(max((a * x + b * y + c * z) / square, 0.0), 1.0)
                a -= share * x
                b -= share * y
                c -= share * z
                good = a * a + b * b + c * c <= tolerance * tolerance
                point += 1
            if not good:
                start = end - 1
                keep[start] = True
