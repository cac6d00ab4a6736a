"""The picture of a facade's label map: brick courses, panes, tiles, shadows. A function of the label map alone.

Every texture is anchored to the edges of its element or to the image's grid, is the same in mirror image, and depends
on labels near by, so that a translator can learn all of it; nothing is drawn at random. Lengths are in units of 1/64
of the picture's width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.images.reading import Pixels

_Floats = NDArray[np.floating[Any]]

LABELS = {
    "sky": (0, 0, 170),
    "wall": (0, 0, 255),
    "window": (0, 85, 255),
    "door": (0, 170, 255),
    "cornice": (0, 255, 255),
    "sill": (85, 255, 170),
    "balcony": (170, 255, 85),
    "shutter": (255, 255, 0),
    "awning": (255, 170, 0),
    "molding": (255, 85, 0),
    "pillar": (255, 0, 0),
    "shop": (170, 0, 0),
    "brick": (85, 0, 255),
    "stone": (85, 85, 255),
    "boards": (0, 85, 170),
    "tiles": (170, 0, 170),
    "slate": (85, 0, 85),
    "plant": (0, 170, 0),
    "pavement": (85, 85, 85),
}
"""Name and colour of each label. The first twelve are the colours of the CMP facade data set, in which sky is the
background and awning the decoration."""

_COLOURS = np.array(list(LABELS.values()), np.uint8)
_LEVELS = np.array([0, 85, 170, 255])
_CUBE = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS, indexing="ij"), axis=-1).reshape(64, 1, 3)
_NEAREST = ((_CUBE - _COLOURS.astype(int)) ** 2).sum(axis=2).argmin(axis=1).astype(np.uint8)
_STANDS_OUT = ("cornice", "sill", "balcony", "awning", "molding", "tiles", "slate")
_CASTS_SHADOW = np.array([name in _STANDS_OUT for name in LABELS])


def colours_of(indices: NDArray[np.uint8]) -> Pixels:
    """The label map in colours, uint8 (height, width, 3), of indices into LABELS."""
    return _COLOURS[indices]


def indices_of(labels: Pixels) -> NDArray[np.uint8]:
    """Indices into LABELS, uint8 (height, width), of a label map in colours; other colours become the nearest label."""
    level = (labels.astype(np.uint16) + 42) // 85
    found: NDArray[np.uint8] = _NEAREST[level[..., 0] * 16 + level[..., 1] * 4 + level[..., 2]]
    return found


def render(labels: Pixels) -> Pixels:
    """The picture of a label map: uint8 (height, width, 3) from uint8 (height, width, 3), a pure function."""
    indices = indices_of(labels)
    unit = indices.shape[1] / 64
    top, above = _run(indices)
    bottom = _run(indices[::-1])[0][::-1]
    left = _run(indices.T)[0].T
    right = _run(indices.T[::-1])[0][::-1].T
    y, x = np.indices(indices.shape, np.float32)
    flat = [plane.ravel() for plane in (x, y, left, right, top, bottom)]
    order = np.argsort(indices, axis=None, kind="stable")
    ends = np.searchsorted(indices.ravel()[order], np.arange(len(LABELS) + 1))
    shadow = 0.45 * _part(1.3 - 0.6 * top / unit) * _CASTS_SHADOW[above]
    light = (1 - shadow).reshape(-1, 1)
    out = np.empty((indices.size, 3), np.float32)
    for index, name in enumerate(LABELS):
        chosen = order[ends[index] : ends[index + 1]]
        if len(chosen):
            place = _Place(1 / unit, *((plane[chosen] + np.float32(0.5)) / np.float32(unit) for plane in flat))
            colour = _PAINT[name](place)
            out[chosen] = colour if name in ("sky", "plant") else colour * light[chosen]
    return np.clip(out + 0.5, 0, 255).astype(np.uint8).reshape(labels.shape)


def _run(indices: NDArray[np.uint8]) -> tuple[_Floats, NDArray[np.uint8]]:
    """Along the first axis: pixels since the label last changed, and the label before that (its own at the border)."""
    rows = np.arange(len(indices), dtype=np.int32)[:, None]
    starts = np.zeros(indices.shape, np.int32)
    starts[1:] = np.where(indices[1:] != indices[:-1], rows[1:], 0)
    starts = np.maximum.accumulate(starts, axis=0)
    before = np.take_along_axis(indices, np.maximum(starts - 1, 0), axis=0)
    return (rows - starts).astype(np.float32), before


@dataclass(frozen=True)
class _Place:
    """Where the pixels of one label are, each a float32 (n,), in units: pixel centres."""

    pixel: float
    x: _Floats
    y: _Floats
    left: _Floats  # distance to the element's edge at the left, along the row
    right: _Floats
    top: _Floats
    bottom: _Floats

    @property
    def grain(self) -> float:
        """Scale of the textures: finer where there are pixels for it."""
        return 1 if self.pixel > 0.5 else 0.5

    @property
    def side(self) -> _Floats:
        return np.minimum(self.left, self.right)

    @property
    def edge(self) -> _Floats:
        """Distance to the nearest edge."""
        return np.minimum(self.side, np.minimum(self.top, self.bottom))

    def line(self, distance: _Floats, width: float) -> _Floats:
        """How much of each pixel a line of that width covers, in [0, 1], at a distance from the line's middle."""
        covered = np.clip((width + self.pixel) / 2 - np.abs(distance), 0, min(self.pixel, width))
        return (covered / self.pixel).astype(np.float32)

    def lines(self, along: _Floats, period: float, width: float) -> _Floats:
        """The same of lines at every multiple of `period`."""
        return self.line((along + period / 2) % period - period / 2, width)

    def band(self, distance: _Floats, width: float) -> _Floats:
        """How much of each pixel lies within `width` of an edge."""
        return np.clip((width - distance) / self.pixel + 0.5, 0, 1).astype(np.float32)


def _part(values: NDArray[Any]) -> _Floats:
    return np.clip(values, 0, 1).astype(np.float32)


def _mix(first: object, second: object, amount: _Floats) -> _Floats:
    """Blend two colours, each (3,) or (n, 3), by `amount` (n,) in [0, 1]."""
    a, b = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return np.asarray(a + (b - a) * amount[:, None], np.float32)


def _bright(colour: _Floats, factor: _Floats) -> _Floats:
    return np.asarray(colour * factor[:, None], np.float32)


def _courses(at: _Place, height: float, length: float, width: float) -> _Floats:
    """Joints of a wall of blocks, each course shifted by half a block."""
    height, length, width = height * at.grain, length * at.grain, width * at.grain
    shift = (at.y // height % 2) * (length / 2)
    return np.maximum(at.lines(at.y - at.pixel / 2, height, width), 0.8 * at.lines(at.x + shift, length, width))


def _daylight(at: _Place) -> _Floats:
    """Walls are brighter above, and darker in the corners that they form with what stands out."""
    return np.asarray((1.1 - 0.0035 * at.y) * (1 - 0.16 * at.band(at.side, 1)), np.float32)


def _sky(at: _Place) -> _Floats:
    return _mix((92, 148, 214), (226, 234, 238), _part(at.y / 50))


def _wall(at: _Place) -> _Floats:
    colour = _mix((232, 202, 146), (205, 166, 106), at.lines(at.y - 0.5, 8, 0.8))
    return _bright(colour, _daylight(at))


def _brick(at: _Place) -> _Floats:
    colour = _mix((166, 82, 60), (186, 100, 72), _part(at.y // (4 * at.grain) % 2))
    return _bright(_mix(colour, (216, 186, 160), _courses(at, 4, 8, 0.8)), _daylight(at))


def _stone(at: _Place) -> _Floats:
    colour = _mix((188, 182, 172), (212, 206, 194), _part(at.y // (4 * at.grain) % 2))
    return _bright(_mix(colour, (122, 116, 110), _courses(at, 4, 16, 0.8)), _daylight(at))


def _boards(at: _Place) -> _Floats:
    return _bright(_mix((146, 178, 176), (92, 124, 126), _part(at.y / (4 * at.grain) % 1)), _daylight(at))


def _window(at: _Place) -> _Floats:
    height = at.top + at.bottom
    glass = _mix((186, 214, 232), (52, 72, 98), _part(at.top / 8))
    bars = at.line(at.left - at.right, 1.8) * _part(at.left + at.right > 4.5)
    transom = at.line(at.top - 2.5, 0.9) * _part(height > 5.5)
    return _mix(glass, (246, 242, 232), np.maximum(np.maximum(bars, transom), at.band(at.edge, 0.8)))


def _door(at: _Place) -> _Floats:
    fill = _part(np.abs(at.bottom % 4 - 2) < 1.1) * _part(at.edge > 1) * (1 - at.line(at.left - at.right, 3))
    wood = _mix((44, 92, 76), (98, 158, 130), fill)
    light = _mix(wood, (240, 208, 130), _part(at.top < 3))
    return _mix(light, (26, 56, 48), np.maximum(at.band(at.edge, 0.7), at.line(at.left - at.right, 0.9)))


def _ledge(at: _Place) -> _Floats:
    """Cornices and sills: lit above, dark below."""
    return _mix((250, 244, 230), (176, 164, 146), _part(at.top / (at.top + at.bottom) * 1.4 - 0.4))


def _molding(at: _Place) -> _Floats:
    return _mix((236, 228, 210), (206, 196, 176), at.band(at.edge, 0.5))


def _balcony(at: _Place) -> _Floats:
    rails = np.maximum(at.lines(at.x, 4 * at.grain, 1.6 * at.grain), at.band(at.top, 0.9))
    return _mix(_mix((138, 130, 126), (40, 42, 50), rails), (214, 206, 190), at.band(at.bottom, 0.9))


def _shutter(at: _Place) -> _Floats:
    slats = _mix((74, 128, 96), (38, 82, 62), at.lines(at.top - 0.5, 3 * at.grain, 1.2 * at.grain))
    return _mix(slats, (58, 106, 80), at.band(at.side, 0.5))


def _awning(at: _Place) -> _Floats:
    stripe = at.lines(at.x, 4, 2)
    return _bright(_mix((206, 62, 54), (250, 240, 226), stripe), 1.05 - 0.08 * at.top)


def _pillar(at: _Place) -> _Floats:
    colour = _mix((226, 214, 192), (166, 150, 128), at.lines(at.y - 0.5, 4, 0.8))
    return _bright(colour, 1 - 0.15 * at.band(at.side, 0.8))


def _shop(at: _Place) -> _Floats:
    glow = _mix((255, 218, 140), (120, 84, 58), _part(at.top / 8))
    frame = np.maximum(at.band(at.side, 0.8), at.lines(at.x, 4, 0.8))
    return _mix(glow, (56, 44, 44), np.maximum(frame, at.band(at.bottom, 1.5)))


def _covering(at: _Place, light: object, dark: object, joint: object) -> _Floats:
    """Roof tiles: rows that are darker where the next overlaps them, and joints between the tiles."""
    size = 4 * at.grain
    colour = _mix(light, dark, _part(at.y / size % 1))
    shift = at.y // size % 2 * size / 2
    return _mix(colour, joint, 0.7 * at.lines(at.x + shift, size, 0.8 * at.grain))


def _tiles(at: _Place) -> _Floats:
    return _covering(at, (214, 112, 74), (150, 62, 44), (128, 50, 38))


def _slate(at: _Place) -> _Floats:
    return _covering(at, (126, 134, 154), (76, 82, 104), (62, 66, 86))


def _plant(at: _Place) -> _Floats:
    height = at.top + at.bottom
    colour = _mix((132, 176, 76), (34, 84, 48), _part(at.top / height))
    return _bright(colour, 0.8 + 0.2 * _part(at.edge / 2))


def _pavement(at: _Place) -> _Floats:
    slabs = _mix((172, 166, 160), (126, 120, 118), at.lines(at.x, 8, 0.7) * _part(at.bottom - 2))
    colour = _mix(slabs, (92, 90, 96), _part(3 - at.bottom))
    return _bright(colour, 1 - 0.3 * at.band(at.top, 0.8))


_PAINT: dict[str, Callable[[_Place], _Floats]] = {
    "sky": _sky,
    "wall": _wall,
    "window": _window,
    "door": _door,
    "cornice": _ledge,
    "sill": _ledge,
    "balcony": _balcony,
    "shutter": _shutter,
    "awning": _awning,
    "molding": _molding,
    "pillar": _pillar,
    "shop": _shop,
    "brick": _brick,
    "stone": _stone,
    "boards": _boards,
    "tiles": _tiles,
    "slate": _slate,
    "plant": _plant,
    "pavement": _pavement,
}
