"""Deforming and cutting pictures of any type: where each pixel is taken from, the same for all that belong together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

Places = tuple[NDArray[np.float32], NDArray[np.float32]]
"""The row and the column, (H, W) each and in pixels, that each pixel of a picture is taken from."""


def window(top: int, left: int, height: int, width: int) -> Places:
    """The places of a rectangle that is cut from a picture as it is."""
    rows, columns = np.arange(height, dtype=np.float32) + top, np.arange(width, dtype=np.float32) + left
    return np.repeat(rows[:, None], width, 1), np.repeat(columns[None], height, 0)


def elastic(places: Places, deviation: float, sigma: float, rng: np.random.Generator) -> Places:
    """Places moved by smooth random displacements (Simard et al. 2003, the elastic distortions of their section 2).

    Rows and columns are displaced by Gaussian noise of standard deviation `deviation` at every pixel, smoothed with a
    Gaussian of standard deviation `sigma`, in pixels both. The noise stands on a grid of half of `sigma`, which makes
    of so smooth a field the same and costs a fraction.
    """
    height, width = places[0].shape
    along, across = _smoothing(height, sigma), _smoothing(width, sigma)
    noise = rng.standard_normal((2, along.shape[1], across.shape[1]), dtype=np.float32)
    moved = np.float32(deviation) * (along @ noise @ across.T)
    return places[0] + moved[0], places[1] + moved[1]


def _smoothing(size: int, sigma: float) -> NDArray[np.float32]:
    """What makes `size` values of values on a grid, (size, grid): Gaussian weights whose squares sum to 1."""
    step = max(1.0, sigma / 2)
    grid = np.arange(-3 * sigma, size + 3 * sigma, step)
    weights = np.exp(-0.5 * ((np.arange(size)[:, None] - grid) / sigma) ** 2)
    return (weights / np.sqrt((weights**2).sum(1, keepdims=True))).astype(np.float32)


def lens(places: Places, strength: float) -> Places:
    """Places as a lens of radial distortion `strength` moves them (k1 and k2 of Brown's model, in widths and heights).

    Above 0 the border comes from further outside, so that straight lines bend outwards; below 0 the other way.
    """
    height, width = places[0].shape
    v = (np.arange(height, dtype=np.float32)[:, None] - (height - 1) / 2) / height
    u = (np.arange(width, dtype=np.float32)[None] - (width - 1) / 2) / width
    square = u * u + v * v
    factor = np.float32(strength) * (square + square * square)
    return places[0] + factor * v * height, places[1] + factor * u * width


def taken(picture: NDArray[Any], places: Places, *, nearest: bool = False) -> NDArray[Any]:
    """The pixels of a picture (H, W, C) at some places, (h, w, C) of its type; beyond the border its mirror image.

    Between pixels values are interpolated (linearly; whole numbers rounded), or with `nearest` those of the nearest.
    """
    planes = torch.from_numpy(np.array(picture.transpose(2, 0, 1), np.float32, order="C"))
    sizes = picture.shape[:2]
    down, right = (torch.from_numpy((2 * at + 1) / size - 1) for at, size in zip(places, sizes, strict=True))
    found = functional.grid_sample(
        planes[None],
        torch.stack([right, down], 2)[None],
        mode="nearest" if nearest else "bilinear",
        padding_mode="reflection",
        align_corners=False,
    )[0]
    values = found.permute(1, 2, 0).numpy()
    return np.rint(values).astype(picture.dtype) if picture.dtype.kind in "iu" else values.astype(picture.dtype)


def rectangles(
    height: int, width: int, count: int, sizes: tuple[float, float], rng: np.random.Generator
) -> list[tuple[slice, slice]]:
    """So many random rectangles within a picture, their sides drawn from `sizes`, shares of the picture's."""
    found = []
    for _ in range(count):
        sides = []
        for size in (height, width):
            extent = max(1, round(size * (sizes[0] + (sizes[1] - sizes[0]) * rng.random())))
            start = int(rng.integers(size - extent + 1))
            sides.append(slice(start, start + extent))
        found.append((sides[0], sides[1]))
    return found


def without(picture: NDArray[Any], cut: list[tuple[slice, slice]], value: float) -> NDArray[Any]:
    """A copy of a picture (H, W, C) with `value` in the rectangles that are `cut`."""
    left = picture.copy()
    for rows, columns in cut:
        left[rows, columns] = value
    return left
