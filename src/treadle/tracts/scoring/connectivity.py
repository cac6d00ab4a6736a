"""Connectivity: how many lines link which regions, as a matrix; and how near lines end to where they should.

dwi_ml validates by these what a model generates (`compute_triu_connectivity_from_blocs`, from whose triangle our
matrices differ by being symmetric).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treadle.errors import UsageError
from treadle.tracts.scoring.geometry import ends_of
from treadle.tracts.streamlines import Streamlines


def bloc_regions(shape: Sequence[int], blocs: Sequence[int]) -> np.ndarray:
    """(x, y, z) int64: a volume cut into (bx, by, bz) blocs, as equal as voxels allow; each voxel's bloc, from 0 on.

    Raises UsageError for other than three numbers of at least 1.
    """
    if len(blocs) != 3 or min(blocs) < 1:
        raise UsageError(f"a volume cannot be cut into {tuple(blocs)} blocs: expected three numbers of at least 1")
    x, y, z = ((np.arange(size) * count) // size for size, count in zip(shape, blocs, strict=True))
    return (x[:, None, None] * blocs[1] + y[:, None]) * blocs[2] + z


def label_regions(labels: np.ndarray) -> np.ndarray:
    """(x, y, z) int64: the regions of a volume of labels (whole numbers, 0 is none), from 0 on in order, else -1."""
    values = np.unique(labels)
    values = values[values != 0]
    return np.where(labels == 0, -1, np.searchsorted(values, labels))


def end_regions(lines: Streamlines, regions: np.ndarray) -> np.ndarray:
    """(n, 2) int64: the regions in which lines begin and end; -1 where there is none, or outside of the volume.

    `regions` is (x, y, z) int64, as from `bloc_regions` or `label_regions`.
    """
    found = []
    for points in ends_of(lines):
        voxel = np.floor(np.nan_to_num(points, nan=-1.0)).astype(np.int64)
        inside = ((voxel >= 0) & (voxel < regions.shape)).all(axis=1)
        there = regions[tuple(np.clip(voxel, 0, np.array(regions.shape) - 1).T)]
        found.append(np.where(inside, there, -1))
    return np.stack(found, axis=1)


def connectivity_matrix(lines: Streamlines, regions: np.ndarray, count: int | None = None) -> np.ndarray:
    """(r, r) float64, symmetric: how many lines link each two regions; those with an end in none are left out.

    `count` is r; None: as many as `regions` names.
    """
    count = int(regions.max()) + 1 if count is None else count
    first, second = end_regions(lines, regions).T
    there = (first >= 0) & (second >= 0)
    low, high = np.minimum(first, second)[there], np.maximum(first, second)[there]
    matrix = np.bincount(low * count + high, minlength=count * count).reshape(count, count).astype(np.float64)
    return matrix + np.triu(matrix, 1).T


def connected(lines: Streamlines, regions: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(n,) bool: whether each line links two regions that `matrix` (r, r) says are linked."""
    first, second = end_regions(lines, regions).T
    there = (first >= 0) & (second >= 0)
    return there & (matrix[np.where(there, first, 0), np.where(there, second, 0)] > 0)


def end_distances(lines: Streamlines, expected: np.ndarray, voxel_sizes: np.ndarray) -> np.ndarray:
    """(n,): millimetres from the last point of each line to where it should end, (n, 3) in voxel space."""
    return np.asarray(np.linalg.norm((ends_of(lines)[1] - expected) * voxel_sizes, axis=1))
