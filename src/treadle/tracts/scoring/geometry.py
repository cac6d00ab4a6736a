"""What is measured of lines: how far they go along each axis, how much they wind, where they end, what they touch."""

from __future__ import annotations

import numpy as np

from treadle.kernels.traversal import traverse
from treadle.tracts.streamlines import Streamlines


def ends_of(lines: Streamlines) -> tuple[np.ndarray, np.ndarray]:
    """First and last points, (n, 3) each; NaN for a line without points."""
    if len(lines.points) == 0:
        nowhere = np.full((len(lines), 3), np.nan)
        return nowhere, nowhere
    empty = (lines.lengths == 0)[:, None]
    last = len(lines.points) - 1
    first = lines.points[np.minimum(lines.offsets[:-1], last)]
    return np.where(empty, np.nan, first), np.where(empty, np.nan, lines.points[np.maximum(lines.offsets[1:] - 1, 0)])


def touching(lines: Streamlines, mask: np.ndarray) -> np.ndarray:
    """(n,) bool: which lines go through a voxel of the mask (x, y, z)."""
    voxels, bounds = traverse(lines.points, lines.offsets, mask.shape)
    line = np.repeat(np.arange(len(lines)), np.diff(bounds))
    return np.asarray(np.bincount(line[mask.reshape(-1)[voxels]], minlength=len(lines)) > 0)


def walked(points: np.ndarray, offsets: np.ndarray, *, to_and_fro: bool) -> np.ndarray:
    """(n, 3): how far lines go along each axis, from end to end or, `to_and_fro`, by all steps whatever their sign."""
    lengths = np.diff(offsets)
    line = np.repeat(np.arange(len(lengths)), lengths)
    steps = np.diff(points, axis=0)
    steps = np.where((line[1:] == line[:-1])[:, None], np.abs(steps) if to_and_fro else steps, 0)
    found = np.zeros((len(lengths), 3))
    np.add.at(found, line[:-1], steps)
    return np.abs(found)


def winding(points: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(n,): degrees that each line turns about its middle, in the plane that fits it best.

    As dipy's `metrics.winding`, which scilpy tells loops by: the angles between successive points, seen from the mean
    of all, summed whatever their sign.
    """
    lengths = np.diff(offsets)
    if len(points) == 0:
        return np.zeros(len(lengths))
    line = np.repeat(np.arange(len(lengths)), lengths)
    count = np.maximum(lengths, 1)[:, None]

    def summed(values: np.ndarray) -> np.ndarray:
        total = np.zeros((len(lengths), values.shape[1]))
        np.add.at(total, line, values)
        return total

    centred = points - (summed(points) / count)[line]
    spread = summed((centred[:, :, None] * centred[:, None]).reshape(-1, 9)).reshape(-1, 3, 3)
    plane = np.linalg.eigh(spread)[1][:, :, :0:-1]  # the two strongest directions
    flat = (centred[:, :, None] * plane[line]).sum(axis=1)
    size = np.linalg.norm(flat, axis=1)
    product = size[1:] * size[:-1]
    cosine = np.divide((flat[1:] * flat[:-1]).sum(axis=1), product, out=np.ones_like(product), where=product > 0)
    angle = np.where(line[1:] == line[:-1], np.arccos(np.clip(cosine, -1, 1)), 0)
    total = np.zeros(len(lengths))
    np.add.at(total, line[:-1], angle)
    return np.degrees(total)
