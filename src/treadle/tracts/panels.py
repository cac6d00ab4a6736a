"""Pictures of streamlines, coloured by direction: |x| red, |y| green, |z| blue, as tractography is wont to be seen.

Seen from far away along an axis of the scanner, or from a corner. Nearer lines hide farther ones, each with a dark rim
(depth-dependent halos, Everts et al., 2009), and are lit as threads are: brightest across the light (Zöckler et al.,
1996). A slice of a volume may lie behind them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from treadle.errors import UsageError, nearest
from treadle.images.reading import Pixels
from treadle.kernels.trilinear import interpolate
from treadle.tracts.resampling import resample_step
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines

VIEWS: Mapping[str, tuple[float, float]] = {
    "axial": (0, 90),
    "coronal": (0, 0),
    "sagittal": (90, 0),
    "corner": (32, 30),
}
"""From where each view is seen: degrees from the back of the head towards its right, and up. The patient's left is
left in axial and coronal views; in a sagittal one the front is right."""

_FINE = 3  # pixels are drawn so much finer along each axis, and averaged
_PAPER = np.array([16, 18, 24])
_WIDTH, _RIM = 1.7, 0.8  # of a line and of the rim on its either side, in pixels of a picture of 400
_LIGHT = np.array([-0.4, 0.5, 0.76])  # from the left, above and the front, as seen


def draw(
    lines: Streamlines,
    space: Space,
    *,
    volume: np.ndarray | None = None,
    views: Sequence[str] = ("axial", "coronal", "corner"),
    size: int = 400,
    most: int = 1000,
    colors: np.ndarray | None = None,
) -> list[Pixels]:
    """Draw streamlines from several sides.

    Args:
        lines: in voxel space with corner origin.
        space: their grid.
        volume: (x, y, z): what lies behind them, as a slice through the middle (from a corner: laid on the floor); its
            brightest hundredth is white.
        views: of `VIEWS`.
        size: width and height of a picture, in pixels.
        most: of more lines, so many are drawn, evenly chosen.
        colors: (n, 3) from 0 to 1: a colour for each line, in place of its directions'.

    Returns:
        A picture (size, size, 3) uint8 for each view; the volume's box just fits.

    Raises:
        UsageError: an unknown view, or a volume of another shape.
    """
    for view in views:
        if view not in VIEWS:
            raise UsageError(f"unknown view {view!r}{nearest(view, VIEWS)}")
    if volume is not None and volume.shape != space.shape:
        raise UsageError(f"the volume has the shape {volume.shape}: expected {space.shape}, as the streamlines' grid")
    if len(lines) > most:
        chosen = np.linspace(0, len(lines) - 1, most).round().astype(np.int64)
        lines, colors = lines.select(chosen), None if colors is None else colors[chosen]
    corners = space.to_world(np.array(np.meshgrid(*((0, count) for count in space.shape))).reshape(3, -1).T)
    # Steps of a few pixels: shorter ones would only be more to draw.
    lines = resample_step(lines, float(np.ptp(corners, axis=0).max()) / 45, space.voxel_sizes)
    segments = _Segments(lines, space, colors)
    pictures = []
    for view in views:
        camera = _Camera(_frame(*VIEWS[view]), corners, size * _FINE)
        sheet = camera.box(camera.paper(volume, space, corners), corners)
        pictures.append(_averaged(segments.drawn(sheet, camera, size * _FINE / 400)))
    return pictures


def picture(pictures: Sequence[Pixels], gap: int = 6) -> Pixels:
    """Several pictures side by side on one, (height, width, 3) uint8, each in the middle of its height."""
    height = max(each.shape[0] for each in pictures)
    width = sum(each.shape[1] for each in pictures) + gap * (len(pictures) + 1)
    sheet = np.full((height + 2 * gap, width, 3), _PAPER, np.uint8)
    left = gap
    for each in pictures:
        top = gap + (height - each.shape[0]) // 2
        sheet[top : top + each.shape[0], left : left + each.shape[1]] = each
        left += each.shape[1] + gap
    return sheet


def _frame(azimuth: float, elevation: float) -> np.ndarray:
    """(3, 3): what is right, up and towards the eye, in RAS+, seen from there."""
    a, e = math.radians(azimuth), math.radians(elevation)
    towards = np.array([math.sin(a) * math.cos(e), -math.cos(a) * math.cos(e), math.sin(e)])
    right = np.array([math.cos(a), math.sin(a), 0.0])
    return np.stack([right, np.cross(towards, right), towards])


class _Camera:
    """Where a point of the world is seen in a picture."""

    def __init__(self, frame: np.ndarray, corners: np.ndarray, size: int) -> None:
        self.frame, self.size = frame, size
        self.middle = corners.mean(axis=0)
        seen = np.abs((corners - self.middle) @ frame.T).max(axis=0)
        self.scale = 0.49 * size / float(seen[:2].max())
        self.near = float(seen[2])

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (n, 2), x and y, and how near points (n, 3) in RAS+ are, from -1 to 1."""
        seen = (points - self.middle) @ self.frame.T
        middle = self.size / 2
        pixels = np.stack([middle + seen[:, 0] * self.scale, middle - seen[:, 1] * self.scale], -1)
        return pixels, seen[:, 2] / max(self.near, 1e-9)

    def paper(self, volume: np.ndarray | None, space: Space, corners: np.ndarray) -> np.ndarray:
        """The background, float (size, size, 3): a slice of the volume where there is one."""
        sheet = np.broadcast_to(_PAPER.astype(np.float32), (self.size, self.size, 3)).copy()
        if volume is None:
            return sheet
        white = float(np.percentile(volume, 99)) or 1.0
        # Every third pixel is looked up: slices are smooth.
        rows, columns = np.mgrid[1 : self.size : _FINE, 1 : self.size : _FINE]
        across = (columns.reshape(-1, 1) - self.size / 2) / self.scale * self.frame[0]
        points = self.middle + across - (rows.reshape(-1, 1) - self.size / 2) / self.scale * self.frame[1]
        straight = np.abs(self.frame[2]).max() > 0.999
        if not straight:  # down along the line of sight to the bottom of the box
            bottom = corners[:, 2].min() + 1e-3
            points = points - ((points[:, 2] - bottom) / self.frame[2, 2])[:, None] * self.frame[2]
            points[:, 2] = self.middle[2]  # where the slice lies that is shown there
        voxels = space.from_world(points)
        values = interpolate(
            torch.from_numpy(np.ascontiguousarray(volume, np.float32))[..., None],
            torch.from_numpy(voxels.astype(np.float32)),
        )[:, 0].numpy()
        brightness = np.clip(values / white, 0, 1) * space.inside(voxels) * 0.5
        gray = brightness.reshape(rows.shape).repeat(_FINE, 0).repeat(_FINE, 1)[: self.size, : self.size, None]
        return np.asarray(sheet + gray * (np.array([200, 205, 220]) - sheet))

    def box(self, sheet: np.ndarray, corners: np.ndarray) -> np.ndarray:
        """With the edges of the volume, seen from a corner."""
        from PIL import Image, ImageDraw

        if np.abs(self.frame[2]).max() > 0.999:
            return sheet
        image = Image.fromarray(sheet.astype(np.uint8))
        pen = ImageDraw.Draw(image)
        pixels, _ = self.project(corners)
        apart = np.linalg.norm(corners[:, None] - corners, axis=-1)
        for first in range(8):
            # Three neighbours of each corner share an edge with it: those that differ in one axis.
            for second in range(first + 1, 8):
                if bin(first ^ second).count("1") == 1 and apart[first, second] > 0:
                    pen.line([*pixels[first], *pixels[second]], fill=(62, 68, 82), width=_FINE)
        return np.asarray(image).astype(np.float32)


class _Segments:
    """The parts of lines between their points."""

    def __init__(self, lines: Streamlines, space: Space, colors: np.ndarray | None) -> None:
        line = np.repeat(np.arange(len(lines)), lines.lengths)
        world = space.to_world(lines.points)
        first = np.flatnonzero(line[1:] == line[:-1])
        self.ends = np.stack([world[first], world[first + 1]], axis=1)
        steps = self.ends[:, 1] - self.ends[:, 0]
        length = np.linalg.norm(steps, axis=1, keepdims=True)
        self.directions = np.divide(steps, length, out=np.zeros_like(steps), where=length > 0)
        if colors is None:
            self.colors = _by_direction(self.directions)
        else:
            self.colors = np.asarray(colors, np.float64)[line[first]]

    def drawn(self, sheet: np.ndarray, camera: _Camera, unit: float) -> np.ndarray:
        """The sheet with all segments on it, the farthest first."""
        from PIL import Image, ImageDraw

        if len(self.ends) == 0:
            return sheet
        pixels, near = camera.project(self.ends.reshape(-1, 3))
        pixels, near = pixels.reshape(-1, 4), near.reshape(-1, 2).mean(axis=1)
        along = self.directions @ (_LIGHT @ camera.frame)
        light = 0.45 + 0.55 * np.sqrt(np.maximum(0, 1 - along**2))
        shade = light * (0.78 + 0.22 * np.clip(near, -1, 1))
        fills = np.clip(_soft(self.colors) * shade[:, None] * 255, 0, 255).astype(int)
        width, rim = max(1, round(_WIDTH * unit)), max(1, round(_RIM * unit))
        image = Image.fromarray(np.clip(sheet, 0, 255).astype(np.uint8))
        pen = ImageDraw.Draw(image)
        order = np.argsort(near, kind="stable")
        for place, fill in zip(pixels[order].tolist(), fills[order].tolist(), strict=True):
            pen.line(place, fill=(8, 9, 12), width=width + 2 * rim)
            pen.line(_longer(place, width / 2), fill=tuple(fill), width=width)
        return np.asarray(image)


def _longer(place: list[float], more: float) -> list[float]:
    """A segment that reaches a little beyond its ends, over the rims of its neighbours."""
    x, y, u, v = place
    length = math.hypot(u - x, v - y)
    # One that is seen from its end is a dot.
    dx, dy = ((u - x) * more / length, (v - y) * more / length) if length > 0 else (more, 0.0)
    return [x - dx, y - dy, u + dx, v + dy]


def direction_colors(directions: np.ndarray) -> np.ndarray:
    """(n, 3) uint8: the colours of directions (n, 3) of length 1 in RAS+, as they have them in these pictures."""
    return np.asarray((_soft(_by_direction(directions)).clip(0, 1) * 255 + 0.5).astype(np.uint8))


def heat(values: np.ndarray) -> np.ndarray:
    """(n, 3) from 0 to 1: colours of values from 0 (cool and dark) to 1 (hot and bright)."""
    at = np.clip(values, 0, 1)[:, None]
    stops = np.array([[0.18, 0.32, 0.75], [0.35, 0.75, 0.75], [0.95, 0.85, 0.35], [0.95, 0.25, 0.15]])
    place = at * (len(stops) - 1)
    low = np.minimum(place.astype(np.int64)[:, 0], len(stops) - 2)
    part = place - low[:, None]
    return np.asarray(stops[low] * (1 - part) + stops[low + 1] * part)


def _by_direction(directions: np.ndarray) -> np.ndarray:
    """|x| red, |y| green, |z| blue."""
    strongest = np.abs(directions).max(axis=1, keepdims=True)
    # Halfway to full brightness: else what runs obliquely is darker than what runs along an axis.
    return np.asarray(np.abs(directions) / np.maximum(strongest, 1e-6) ** 0.5)


def _soft(colors: np.ndarray) -> np.ndarray:
    """Colours that are easier on the eye than pure red, green and blue: each with some of the others."""
    return np.asarray(0.12 + 0.88 * colors @ np.array([[1.0, 0.16, 0.12], [0.14, 0.95, 0.2], [0.16, 0.42, 1.0]]))


def _averaged(sheet: np.ndarray) -> Pixels:
    height, width = sheet.shape[0] // _FINE, sheet.shape[1] // _FINE
    parts = sheet[: height * _FINE, : width * _FINE].reshape(height, _FINE, width, _FINE, 3)
    return np.asarray(parts.mean(axis=(1, 3)).round().clip(0, 255).astype(np.uint8))
