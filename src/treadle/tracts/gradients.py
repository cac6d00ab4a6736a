"""Tables of diffusion gradients, brought from FSL's or MRtrix's frame to the grid's own axes.

FSL keeps b-values and directions in two files, each of rows or of columns. Its directions are along the grid's axes,
but the first is turned round where the affine's determinant is positive: FSL counts that axis from right to left.
MRtrix keeps one table, x y z b in each row, along the scanner's RAS+ axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from treadle.errors import UsageError
from treadle.tracts.signal.harmonics import B0_BELOW
from treadle.tracts.space import Space


@dataclass(frozen=True, eq=False)
class Gradients:
    """The gradients of a series of volumes."""

    bvalues: np.ndarray
    """(n,) float64 in s/mm^2; 0 for volumes without a gradient (up to `B0_BELOW` in the file)."""
    directions: np.ndarray
    """(n, 3) float64, of length 1, along the grid's own axes; 0 0 0 for volumes without a gradient."""


def read_gradients(first: Path, second: Path | None, space: Space) -> Gradients:
    """Read FSL's pair of files (bval, bvec), or MRtrix's table alone; which of both is told by their shapes.

    Args:
        first: FSL's b-values, or MRtrix's table.
        second: FSL's directions; None with MRtrix's table.
        space: the grid of the volumes.

    Raises:
        UsageError: naming the file, where it cannot be read, holds NaN, is not of a shape that such a file has, has
            another number of entries than the other, or was taken for the other.
    """
    return read_mrtrix(first, space) if second is None else read_fsl(first, second, space)


def read_fsl(bval: Path, bvec: Path, space: Space) -> Gradients:
    """Read FSL's b-values and directions (see the top of this file). Raises UsageError as `read_gradients` does."""
    bvalues, directions = _numbers(bval), _numbers(bvec)
    if _is_directions(bvalues) and _is_bvalues(directions):
        raise UsageError(f"{bval} holds directions and {bvec} b-values: the two files are the other way round")
    for path, table in ((bval, bvalues), (bvec, directions)):
        if table.shape[1] == 4 and len(table) > 4:
            raise UsageError(f"{path} has four columns: it is MRtrix's table of gradients, which is given alone")
    if not _is_bvalues(bvalues):
        raise UsageError(f"{bval} has {_shape(bvalues)}: expected b-values in one row or one column")
    if not _is_directions(directions):
        raise UsageError(f"{bvec} has {_shape(directions)}: expected directions in three rows or three columns")
    b = bvalues.ravel()
    # Of three gradients rows and columns look alike; FSL's own way is rows.
    vectors = directions.T if len(directions) == 3 else directions
    if len(b) != len(vectors):
        raise UsageError(f"{bval} has {len(b)} b-values, but {bvec} has {len(vectors)} directions")
    if np.linalg.det(space.affine[:3, :3]) > 0:
        vectors = vectors * (-1.0, 1.0, 1.0)
    return _checked(bval, bvec, b, vectors)


def read_mrtrix(table: Path, space: Space) -> Gradients:
    """Read MRtrix's table (see the top of this file). Raises UsageError as `read_gradients` does."""
    rows = _numbers(table)
    if rows.shape[1] != 4:
        hint = ": FSL's b-values and directions are two files, and both are needed" if min(rows.shape) in (1, 3) else ""
        raise UsageError(f"{table} has {_shape(rows)}, where MRtrix's table has four columns, x y z b{hint}")
    axes = space.affine[:3, :3] / space.voxel_sizes
    return _checked(table, table, rows[:, 3], np.linalg.solve(axes, rows[:, :3].T).T)


def _checked(bval: Path, bvec: Path, b: np.ndarray, vectors: np.ndarray) -> Gradients:
    """The gradients with directions of length 1, and 0 where there is none."""
    if not (b >= 0).all() or np.isinf(b).any():
        bad = int(np.argmax(~(b >= 0) | np.isinf(b)))
        raise UsageError(f"{bval} has the b-value {b[bad]:g} for volume {bad}")
    none = b <= B0_BELOW
    if none.all():
        raise UsageError(
            f"{bval} has no b-value above {B0_BELOW:g} s/mm^2 (the largest is {b.max():g}): in other units?"
        )
    lengths = np.linalg.norm(vectors, axis=1)
    # Without a gradient NaN is a usual way to say so.
    lost = np.flatnonzero(~none & ~((lengths > 1e-6) & (lengths < np.inf)))
    if lost.size:
        said = " ".join(f"{value:g}" for value in vectors[lost[0]])
        raise UsageError(
            f"{bvec} has the direction {said} for volume {lost[0]}, whose b-value is {b[lost[0]]:g}: "
            "expected a direction"
        )
    directions = np.zeros_like(vectors)
    directions[~none] = vectors[~none] / lengths[~none, None]
    return Gradients(np.where(none, 0.0, b), directions)


def _numbers(path: Path) -> np.ndarray:
    """The table of numbers in a text file, (rows, columns) float64; commas are spaces, `#` begins a comment."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"{path} is no text file of numbers") from None
    lines = [line.partition("#")[0].replace(",", " ").split() for line in text.splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise UsageError(f"{path} is empty: expected a table of numbers")
    if len({len(line) for line in lines}) != 1:
        raise UsageError(f"{path} has lines of {min(map(len, lines))} and of {max(map(len, lines))} numbers")
    try:
        table = np.array([[float(word) for word in line] for line in lines])
    except ValueError as error:
        raise UsageError(f"{path} is no text file of numbers: {error}") from None
    return table


def _is_bvalues(table: np.ndarray) -> bool:
    return 1 in table.shape


def _is_directions(table: np.ndarray) -> bool:
    """Three rows or three columns, of numbers that can be parts of a direction."""
    return 3 in table.shape and bool(np.nanmax(np.abs(table), initial=0) < B0_BELOW)


def _shape(table: np.ndarray) -> str:
    return f"{len(table)} rows and {table.shape[1]} columns"
