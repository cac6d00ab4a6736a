"""Lenses that bend straight lines: OpenCV's two families of distortion, and pictures taken through them made straight.

What is needed to straighten a picture is the forward model, from the ray of a pixel of a pinhole to where the lens has
put it: a few lines for each family. The pixels are fetched there by torch's `grid_sample`. OpenCV would do both, but
it would have to be installed, its `remap` rounds positions to 1/32 pixel, and alpha and masks are beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.cameras.capture import Photograph
from treadle.errors import UsageError

_ROWS = 64
"""Rows of a picture that are straightened at a time, which bounds the memory that it takes."""

_LARGEST = 1e4
"""The largest coefficient that is taken for one."""

_OUTSIDE = 4.0
"""Where the edges of a picture lie at -1 and 1: a place outside."""

_WHOLE = 0.999
"""The part of a pixel's weight that must come from pixels that count, for it to count."""


@dataclass(frozen=True)
class Distortion:
    """How a lens departs from a pinhole.

    Attributes:
        kind: "brown" for OpenCV's pinhole with radial and tangential terms, "fisheye" for its fisheye (Kannala-Brandt).
        coefficients: of "brown" k1 k2 p1 p2 k3 k4 k5 k6, OpenCV's order, of "fisheye" k1 k2 k3 k4; the last ones may be
            left out where they are 0.

    Raises:
        UsageError: coefficients that no lens has.
    """

    kind: Literal["brown", "fisheye"]
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        if not all(abs(value) <= _LARGEST for value in self.coefficients):
            said = ", ".join(map(str, self.coefficients))
            raise UsageError(f"a lens with the coefficients {said}: expected numbers of at most {_LARGEST:g}; "
                             "calibrate it again")  # fmt: skip

    @property
    def is_none(self) -> bool:
        """Whether this is a pinhole. A fisheye is none, even with coefficients of 0."""
        return self.kind == "brown" and not any(self.coefficients)

    def distort(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Where the lens puts what a pinhole of focal length 1 would show at (x, y) from its principal point.

        NaN where it puts it nowhere: beyond the angle at which the polynomial turns back, and would show the picture a
        second time, mirrored.
        """
        r = np.hypot(x, y)
        farthest = float(r.max(initial=0))
        if self.kind == "fisheye":
            theta = np.arctan(r)
            with np.errstate(invalid="ignore"):
                scale = np.where(r > 1e-9, self._radial(theta) * theta / np.maximum(r, 1e-9), 1)
            bent = x * scale, y * scale
            beyond = theta > self._turns_back_at(float(np.arctan(farthest)))
        else:
            _, _, p1, p2 = self._padded(8)[:4]
            scale, both, squares = self._radial(r), 2 * x * y, r * r
            bent = (
                x * scale + p1 * both + p2 * (squares + 2 * x * x),
                y * scale + p1 * (squares + 2 * y * y) + p2 * both,
            )
            beyond = r > self._turns_back_at(farthest)
        return np.where(beyond, np.nan, bent[0]), np.where(beyond, np.nan, bent[1])

    def _padded(self, count: int) -> tuple[float, ...]:
        return (*self.coefficients, *(0.0,) * (count - len(self.coefficients)))

    def _radial(self, r: NDArray[np.float64]) -> NDArray[np.float64]:
        """The factor by which the lens stretches the distance `r` from the axis (of a fisheye: the angle from it)."""
        q = r * r
        if self.kind == "fisheye":
            k1, k2, k3, k4 = self._padded(4)
            return 1 + q * (k1 + q * (k2 + q * (k3 + q * k4)))
        k1, k2, _, _, k3, k4, k5, k6 = self._padded(8)
        return (1 + q * (k1 + q * (k2 + q * k3))) / (1 + q * (k4 + q * (k5 + q * k6)))

    def _turns_back_at(self, farthest: float) -> float:
        """The smallest r up to `farthest` from which on r times `_radial` grows no more; infinity if there is none."""
        r = np.linspace(0, farthest, 4097)
        with np.errstate(divide="ignore", invalid="ignore"):
            grows = np.diff(r * self._radial(r)) > 0
        return float("inf") if grows.all() else float(r[int(np.argmin(grows))])


def straightened(photograph: Photograph, distortion: Distortion) -> Photograph:
    """The view as a pinhole with the same camera and size would show it.

    Colours are interpolated linearly between the four nearest pixels, weighted by their alpha; depth is that of the
    nearest pixel. A pixel is masked out where any of these four lies outside the picture or was masked out. `points`
    stay: they are a pinhole's already. Normals are not known to any file that has distortion.
    """
    camera, pixels = photograph.camera, photograph.pixels
    grid = _sources(camera.intrinsics, camera.size, distortion)
    counts = np.ones(pixels.shape[:2], np.float32) if photograph.mask is None else photograph.mask.astype(np.float32)
    planes = _planes(np.concatenate((premultiplied(pixels), counts[:, :, None]), axis=2))
    colours = np.empty_like(pixels)
    mask = np.empty(pixels.shape[:2], np.bool_)
    distances = None if photograph.depth is None else _planes(photograph.depth[:, :, None])
    depth = None if photograph.depth is None else np.empty_like(photograph.depth)
    for start in range(0, camera.height, _ROWS):
        rows = slice(start, start + _ROWS)
        fetched = _fetch(planes, grid[rows], "bilinear")
        colours[rows], mask[rows] = divided(fetched[:, :, :-1]), fetched[:, :, -1] > _WHOLE
        if depth is not None and distances is not None:
            depth[rows] = _fetch(distances, grid[rows], "nearest")[:, :, 0]
    kept = None if photograph.mask is None and mask.all() else mask
    return replace(photograph, pixels=colours, mask=kept, depth=depth)


def premultiplied(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colours as float32, where there is alpha times that, so that means of them are means of what is seen."""
    values = pixels.astype(np.float32)
    if values.shape[2] == 4:
        values[:, :, :3] *= values[:, :, 3:] / np.float32(255)
    return values


def divided(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """What `premultiplied` gave, or means of it, as 8 bits with straight alpha; what is transparent is black."""
    if values.shape[2] == 4:
        values = values.copy()
        alpha = values[:, :, 3:]
        values[:, :, :3] *= np.divide(np.float32(255), alpha, out=np.zeros_like(alpha), where=alpha > 0)
    return np.rint(values).clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=2)
def _sources(
    intrinsics: tuple[float, float, float, float], size: tuple[int, int], distortion: Distortion
) -> NDArray[np.float32]:
    """Where each pixel comes from: (height, width, 2) float32, column and row from -1 to 1 between the outer edges."""
    (fx, fy, cx, cy), (width, height) = intrinsics, size
    grid = np.empty((height, width, 2), np.float32)
    columns = (np.arange(width) + 0.5 - cx) / fx
    for start in range(0, height, _ROWS):
        rows = (np.arange(start, min(start + _ROWS, height)) + 0.5 - cy) / fy
        with np.errstate(over="ignore", invalid="ignore"):
            x, y = distortion.distort(*np.broadcast_arrays(columns[None], rows[:, None]))
            places = np.stack((2 * (x * fx + cx) / width - 1, 2 * (y * fy + cy) / height - 1), axis=2)
        grid[start : start + _ROWS] = np.nan_to_num(places, nan=_OUTSIDE).clip(-_OUTSIDE, _OUTSIDE)
    return grid


def _planes(values: NDArray[np.float32]) -> Tensor:
    """(height, width, channels) as (1, channels, height, width)."""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]


def _fetch(planes: Tensor, grid: NDArray[np.float32], mode: str) -> NDArray[np.float32]:
    """(h, w, channels): the values of `planes` at `grid`, 0 outside."""
    with torch.no_grad():
        fetched = torch.nn.functional.grid_sample(
            planes, torch.from_numpy(grid)[None], mode=mode, padding_mode="zeros", align_corners=False
        )
    return fetched[0].permute(1, 2, 0).numpy()
