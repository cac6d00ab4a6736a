"""Slices of a volume along the scanner's axes: as pictures with lines near them, and as planes in space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from treadle.images.reading import Pixels
from treadle.kernels.trilinear import interpolate
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The axis of RAS+ that each kind of slice lies across."""
PAPER = np.array([16, 18, 24], np.uint8)
"""The colour of what lies outside."""
_TINT = np.array([0.92, 0.94, 1.0])
_LONGEST = 320
"""The longest side of a grid, in pixels."""


def bounds(space: Space) -> np.ndarray:
    """(2, 3) float64: the lower and the upper corner, in RAS+ millimetres, of the box around a grid."""
    corners = space.to_world(np.array(np.meshgrid(*((0, count) for count in space.shape))).reshape(3, -1).T)
    return np.stack([corners.min(axis=0), corners.max(axis=0)])


class Volume:
    """A volume that is looked at.

    Args:
        values: (x, y, z, features) float32.
        space: its grid.
    """

    def __init__(self, values: np.ndarray, space: Space) -> None:
        self.values, self.space = np.ascontiguousarray(values, np.float32), space
        self.tensor = torch.from_numpy(self.values)
        self._channels: dict[int, tuple[torch.Tensor, float]] = {}

    def channel(self, number: int) -> tuple[torch.Tensor, float]:
        """(x, y, z, 1) float32, and its brightest hundredth, which is shown white."""
        if number not in self._channels:
            values = np.ascontiguousarray(self.values[..., number : number + 1])
            self._channels = {number: (torch.from_numpy(values), float(np.percentile(values, 99)) or 1.0)}
        return self._channels[number]

    def at(self, places: np.ndarray, channel: int) -> np.ndarray:
        """(n,) float32: the values at places (n, 3) in RAS+ millimetres; NaN outside."""
        voxels = self.space.from_world(places)
        found = interpolate(self.channel(channel)[0], torch.from_numpy(voxels.astype(np.float32)))[:, 0].numpy()
        return np.where(self.space.inside(voxels), found, np.nan)

    def shown(self, places: np.ndarray, channel: int) -> np.ndarray:
        """(n, 3) uint8: what is seen there, from black to white; the paper outside."""
        values = self.at(places, channel) / self.channel(channel)[1]
        colors = (np.nan_to_num(values).clip(0, 1)[:, None] * _TINT * 255 + 0.5).astype(np.uint8)
        return np.where(np.isnan(values)[:, None], PAPER, colors)


@dataclass(frozen=True, eq=False)
class Slice:
    """A slice across an axis of the scanner, as a picture.

    The patient's left is left in axial and coronal pictures; in a sagittal one the front is right; up is up or front.
    """

    space: Space
    axis: int
    """0, 1 or 2 of RAS+; see `AXES`."""
    position: float
    """Where along it, in millimetres."""

    @property
    def across(self) -> tuple[int, int]:
        """The axes of RAS+ that run to the right and up in the picture."""
        right, up = {0: (1, 2), 1: (0, 2), 2: (0, 1)}[self.axis]
        return right, up

    @property
    def scale(self) -> float:
        """Pixels per millimetre, the same in all slices of a grid."""
        low, high = bounds(self.space)
        return _LONGEST / float((high - low).max())

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture."""
        box = bounds(self.space)
        width, height = ((box[1] - box[0])[list(self.across)] * self.scale).round().astype(int).tolist()
        return max(1, width), max(1, height)

    def places(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(n, 3) float64: where pixels at columns and rows (n,) are, in RAS+ millimetres."""
        box, (right, up) = bounds(self.space), self.across
        found = np.empty((len(columns), 3))
        found[:, self.axis] = self.position
        found[:, right] = box[0, right] + (columns + 0.5) / self.scale
        found[:, up] = box[1, up] - (rows + 0.5) / self.scale
        return found

    def paper(self, volume: Volume | None, channel: int) -> Pixels:
        """The volume alone, (height, width, 3) uint8; without one nothing."""
        width, height = self.size
        if volume is None:
            return np.tile(PAPER, (height, width, 1))
        rows, columns = np.mgrid[:height, :width].reshape(2, -1)
        return volume.shown(self.places(columns, rows), channel).reshape(height, width, 3)

    def drawn(self, paper: Pixels, lines: Streamlines, slab: float) -> Pixels:
        """The picture, (height, width, 3) uint8: above the paper, what of the lines is near.

        Args:
            paper: what lies behind them.
            lines: in RAS+ millimetres; of each point a "color", from 0 to 255.
            slab: millimetres; segments are drawn whose middle is not farther from the slice than half of it.
        """
        (height, width), picture = paper.shape[:2], paper.copy()
        line = np.repeat(np.arange(len(lines)), lines.lengths)
        first = np.flatnonzero(line[1:] == line[:-1])
        points = lines.points.astype(np.float64)
        depth = points[:, self.axis] - self.position
        first = first[np.abs(depth[first] + depth[first + 1]) <= slab]
        first = first[np.argsort(-np.abs(depth[first]), kind="stable")]  # the nearest last, above the others
        box, (right, up) = bounds(self.space), self.across
        pixels = np.stack([points[:, right] - box[0, right], box[1, up] - points[:, up]], axis=1) * self.scale
        ways = pixels[first + 1] - pixels[first]
        # Dots of 2 x 2 pixels along each segment, so near to one another that they are a line.
        count = np.maximum(np.ceil(np.abs(ways).max(axis=1)), 1).astype(np.int64) if len(first) else np.zeros(0, int)
        segment = np.repeat(np.arange(len(first)), count)
        share = (np.arange(len(segment)) - np.repeat(np.cumsum(count) - count, count) + 0.5) / count[segment]
        dots = np.floor(pixels[first[segment]] + share[:, None] * ways[segment] - 0.5).astype(np.int64)
        colors = lines.per_point["color"][first[segment]].round().clip(0, 255).astype(np.uint8)
        for x, y in ((0, 0), (1, 0), (0, 1), (1, 1)):
            column, row = dots[:, 0] + x, dots[:, 1] + y
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            picture[row[inside], column[inside]] = colors[inside]
        return picture
