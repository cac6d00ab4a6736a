"""What is done to lines before a model sees them: cut, turned round, shaken. Everything for many lines at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from treadle.kernels.compiling import compiled
from treadle.tracts.feeds.draws import normals, streams, uniforms

# The counters of a line's random numbers: changing them changes every run.
_SPLIT, _CUT, _REVERSE, _ROTATION, _POINTS, _PER_POINT = 0, 1, 2, 4, 16, 8


@dataclass(frozen=True, eq=False)
class Parts:
    """Lines, or parts of lines, of one subject, one after the other; all of it in millimetres along the grid's axes."""

    clean: np.ndarray
    """(p, 3) float64 points, as they were."""
    seen: np.ndarray
    """(p, 3) float64 points with noise."""
    offsets: np.ndarray
    """(n + 1,) int64."""
    lines: np.ndarray
    """(n,) int64: the number of the line that each is of."""
    whole: np.ndarray
    """(n,) bool: its last point is where the line ends (and not where it was cut)."""
    rows: np.ndarray
    """(p,) int64: which point of its line each is."""
    stream: np.ndarray
    """(n,) uint64: where the random numbers of its line begin; empty where nothing is random."""


def plain_parts(points: np.ndarray, offsets: np.ndarray, lines: np.ndarray) -> Parts:
    """Lines as they are: points (p, 3) in millimetres."""
    points = np.asarray(points, np.float64)
    rows = np.arange(len(points)) - np.repeat(offsets[:-1], np.diff(offsets))
    return Parts(points, points, offsets, lines, np.ones(len(lines), bool), rows, np.zeros(0, np.uint64))


def augmented_parts(
    points: np.ndarray,
    offsets: np.ndarray,
    lines: np.ndarray,
    *,
    seed: int,
    epoch: int,
    split: float,
    reverse: float,
    noise: float,
) -> Parts:
    """Lines, some of them cut and turned round, with noise on what is seen.

    What is drawn for a line is a function of (seed, epoch, line). A line of at least 3 points is cut with probability
    `split`, at any point between its ends; that point, and the noise on it, is in both parts. Parts are turned round
    with probability `reverse`. Noise has the standard deviation `noise`, is cut at twice that, and moves no point
    farther than half the way to the nearer of its neighbours.

    Args:
        points: (p, 3) in millimetres.
        offsets: (n + 1,) int64.
        lines: (n,) int64: their numbers.
        seed, epoch: of the randomness.
        split, reverse, noise: see above.
    """
    points = np.asarray(points, np.float64)
    stream = streams(seed, epoch, lines)
    counts = np.diff(offsets)
    cut = (uniforms(stream, _SPLIT) < split) & (counts >= 3)
    at = 1 + np.floor(uniforms(stream, _CUT) * np.maximum(counts - 2, 1)).astype(np.int64)
    # First and last point of each part, in the order of the lines, a line's second part after its first.
    of = np.repeat(np.arange(len(lines)), 1 + cut)
    second = np.zeros(len(of), bool)
    second[1:] = of[1:] == of[:-1]
    first = np.where(second, at[of], 0)
    last = np.where(cut[of] & ~second, at[of], counts[of] - 1)
    turned = uniforms(stream[of], _REVERSE + second.astype(np.int64)) < reverse
    # A part ends where its line does unless that end was cut off: turned round, the line's other end counts.
    whole = ~cut[of] | (second ^ turned)
    sizes = last - first + 1
    ends = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    part = np.repeat(np.arange(len(of)), sizes)
    within = np.arange(ends[-1]) - ends[part]
    rows = np.where(turned[part], last[part] - within, first[part] + within)
    clean = points[offsets[of][part] + rows]
    seen = clean
    if noise > 0:
        shift = _shift(stream[of][part], rows, 0, noise, _room(points, offsets)[offsets[of][part] + rows])
        seen = clean + shift
    return Parts(clean, seen, ends, np.asarray(lines)[of], whole, rows, stream[of])


def target_noise(parts: Parts, targets: np.ndarray, noise: float) -> np.ndarray:
    """(p, 3): noise on the directions (p, 3) that follow the points: at most half as long as these."""
    stream = np.repeat(parts.stream, np.diff(parts.offsets))
    return _shift(stream, parts.rows, 4, noise, 0.5 * np.linalg.norm(targets, axis=1))


def _shift(stream: np.ndarray, rows: np.ndarray, first: int, noise: float, most: np.ndarray) -> np.ndarray:
    """Noise (p, 3) for points `rows` of their lines, at most `most` (p,) long."""
    found = noise * np.clip(normals(stream, _POINTS + _PER_POINT * rows + first), -2, 2)
    length = np.linalg.norm(found, axis=1)
    return found * np.minimum(1, np.divide(most, length, out=np.ones_like(length), where=length > 0))[:, None]


def _room(points: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(p,): half the distance from each point to the nearer of its neighbours on the line; 0 where it has none."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    between = offsets[1:-1]
    steps[between[(between > 0) & (between < len(points))] - 1] = np.inf  # from one line to the next
    steps = np.concatenate(([np.inf], steps, [np.inf]))
    nearer = np.minimum(steps[:-1], steps[1:]) / 2
    return np.where(np.isfinite(nearer), nearer, 0.0)


def rotation_counter() -> int:
    """The first of the three numbers of a line that say how it is turned."""
    return _ROTATION


@compiled()
def turn_rows(values: np.ndarray, matrices: np.ndarray, offsets: np.ndarray, out: np.ndarray) -> None:
    """Multiply each vector of rows offsets[k] to offsets[k + 1] with matrix k.

    Args:
        values: (p, m, f) float32: m vectors a row.
        matrices: (n, f, f) float32.
        offsets: (n + 1,) int64.
        out: (p, m, f) float32. Sums are in one order: a row's result depends on nothing but the row and its matrix.
    """
    size = values.shape[2]
    for k in range(len(offsets) - 1):
        for row in range(offsets[k], offsets[k + 1]):
            for vector in range(values.shape[1]):
                for i in range(size):
                    total = np.float32(0)
                    for j in range(size):
                        total += matrices[k, i, j] * values[row, vector, j]
                    out[row, vector, i] = total
