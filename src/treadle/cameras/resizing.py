"""Smaller copies of photographs: means over areas, in the 8 bits that files have, as everyone takes them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.capture import Photograph
from treadle.cameras.distortion import divided, premultiplied
from treadle.errors import UsageError


def resized(photograph: Photograph, width: int, height: int) -> Photograph:
    """The view with a picture that is smaller, or as large.

    A pixel is the mean over the area that it covers, weighted by alpha; it counts only where all of that area did, so
    that nothing of what is to be ignored gets into the colours. Depth and normals, whose means would lie between two
    surfaces, are those in the middle of the area.

    Raises:
        UsageError: for a size that is larger than the picture's.
    """
    camera = photograph.camera
    if (width, height) == camera.size:
        return photograph
    if not (1 <= width <= camera.width and 1 <= height <= camera.height):
        raise UsageError(f"{camera.name or 'a picture'} is {camera.width} x {camera.height} pixels and cannot be made "
                         f"{width} x {height}: only smaller copies are made")  # fmt: skip
    mask, depth, normals = photograph.mask, photograph.depth, photograph.normals
    if mask is not None:
        mask = mean_over_areas(mask[:, :, None], width, height)[:, :, 0] > 0.999
    scale = np.array([width / camera.width, height / camera.height, 1], np.float32)
    colours = photograph.pixels if photograph.pixels.shape[2] == 3 else premultiplied(photograph.pixels)
    return replace(
        photograph,
        camera=camera.resized(width, height),
        pixels=divided(mean_over_areas(colours, width, height)),
        mask=mask,
        depth=None if depth is None else at_centres(depth, width, height),
        normals=None if normals is None else at_centres(normals, width, height),
        points=photograph.points * scale,
    )


def smaller_size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """Width and height divided by `factor`, rounded, and at least 1."""
    return max(1, round(size[0] / factor)), max(1, round(size[1] / factor))


def at_centres(values: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    """(h, w, ...) as (height, width, ...): of each area the value in its middle."""
    rows = ((np.arange(height) + 0.5) * (values.shape[0] / height)).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * (values.shape[1] / width)).astype(np.intp)
    return values[rows[:, None], columns]


def mean_over_areas(values: NDArray[Any], width: int, height: int) -> NDArray[np.float32]:
    """(h, w, channels) as (height, width, channels) float32; what an area covers in part counts in part."""
    columns = _means(values.reshape(len(values), -1), height).reshape(height, *values.shape[1:])
    turned = np.ascontiguousarray(columns.swapaxes(0, 1)).reshape(values.shape[1], -1)
    return _means(turned, width).reshape(width, height, -1).swapaxes(0, 1)


def _means(rows: NDArray[Any], count: int) -> NDArray[np.float32]:
    """(n, m) as (count, m): means over n / count rows each."""
    n, m = rows.shape
    if n % count == 0:
        return rows.reshape(count, n // count, m).mean(axis=1, dtype=np.float32)
    means = np.empty((count, m), np.float32)
    edges = np.arange(count + 1) * (n / count)
    for index, (start, end) in enumerate(pairwise(edges)):
        first, last = int(start), min(int(np.ceil(end)), n)
        inside = np.arange(first, last)
        covered = (np.minimum(inside + 1, end) - np.maximum(inside, start)).astype(np.float32)
        means[index] = (rows[first:last] * (covered / covered.sum())[:, None]).sum(axis=0)
    return means
