"""House fronts without a download: a small split grammar that draws label maps, and the one right picture of each.

The grammar works as in Wonka et al., "Instant Architecture" (2003): a street is split into pavement and houses, a house
into floors and a roof, a floor into bays, a bay into a window and what surrounds it. Everything lies on a plan of
64 x 64 units, so a house is the same house at every size.

The picture is a function of the label map alone: every texture is anchored to the edges of its element or to the
image's grid, is the same in mirror image, and depends on labels near by, so that a translator can learn all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from treadle.data import derive_seed
from treadle.errors import UsageError
from treadle.images.reading import Pixels

_Floats = NDArray[np.floating[Any]]
_Rng = np.random.Generator

UNITS = 64
"""Width and height of the plan; an element of one unit is one pixel at 64 px."""

SIZES = range(32, 513)


def facade(seed: int, index: int, size: int = 64) -> tuple[Pixels, Pixels]:
    """House front number `index` of the data set `seed`: (label map, picture), both uint8 (size, size, 3).

    A pure function of its arguments, and the picture one of the label map alone: it is `render(labels)`. Raises
    UsageError for a size outside 32..512.
    """
    if not isinstance(size, int) or size not in SIZES:
        raise UsageError(f"facades of size {size!r}: expected a whole number of pixels from 32 to 512")
    indices = np.zeros((size, size), np.uint8)  # sky
    for shape in _street(np.random.default_rng(derive_seed(seed, "facade", index))):
        _draw(indices, shape)
    return _COLOURS[indices], _painted(indices)


def facades(seed: int, count: int, size: int = 64) -> tuple[Pixels, Pixels]:
    """The first `count` house fronts of the data set `seed`: two arrays, uint8 (count, size, size, 3)."""
    labels, pictures = zip(*(facade(seed, index, size) for index in range(count)), strict=True)
    return np.stack(labels), np.stack(pictures)


def render(labels: Pixels) -> Pixels:
    """The picture of a label map: uint8 (height, width, 3) from uint8 (height, width, 3), a pure function.

    A colour that is no label's counts as the nearest one.
    """
    difference = labels[..., None, :].astype(np.int32) - _COLOURS
    return _painted(np.square(difference).sum(-1).argmin(-1).astype(np.uint8))


_FORMS: dict[str, Callable[[Any, Any, float, float], Any]] = {
    "oval": lambda x, y, half, height: (x / half) ** 2 + (2 * y / height - 1) ** 2 < 1,
    "arch": lambda x, y, half, height: (x / half) ** 2 + np.clip(1 - y / min(half, height - 2), 0, None) ** 2 < 1,
    "gable": lambda x, y, half, height: abs(x) < half * y / height,
    "hip": lambda x, y, half, height: abs(x) < half - 0.7 * (height - y),
    "box": lambda x, y, half, height: abs(x) < np.inf,
}
"""What of its box a shape fills: from x to its middle, y to its top, half its width and its height, in units."""


class _Shape(NamedTuple):
    label: str
    left: float
    top: float
    right: float
    bottom: float
    form: str = "box"


def _draw(indices: NDArray[np.uint8], shape: _Shape) -> None:
    """Put a shape into a label map: at least one pixel, so that nothing thin is lost."""
    unit = len(indices) / UNITS
    left, top, right, bottom = (int(end * unit + 0.5) for end in shape[1:5])
    place = slice(max(0, top), max(top + 1, bottom)), slice(max(0, left), max(left + 1, right))
    y, x = ((plane + 0.5) / unit for plane in np.indices(indices.shape, np.float32)[:, *place])
    half = (shape.right - shape.left) / 2
    chosen = _FORMS[shape.form](x - shape.left - half, y - shape.top, half, shape.bottom - shape.top)
    indices[place][chosen] = list(LABELS).index(shape.label)


def _street(rng: _Rng) -> Iterator[_Shape]:
    """Pavement, a house, what one sees of its neighbours, and trees."""
    ground = UNITS - 2 * int(rng.integers(2, 5))
    yield _Shape("pavement", 0, ground, UNITS, UNITS)
    left, right = (4 * max(0, int(n)) for n in rng.integers(-2, 5, size=2))
    wall, other = rng.permutation(["wall", "brick", "stone", "boards"])[:2]
    sides = [(start, end) for start, end in ((0, left), (UNITS - right, UNITS)) if end - start >= 8]
    for start, end in sides:
        if rng.random() < 0.65:
            top = 4 * int(rng.integers(3, 10))
            yield _Shape(other, start, top, end, ground)
            yield _Shape("cornice", start, top - 1, end, top + 1)
            for y in range(top + 4, ground - 8, 12):
                yield _Shape("window", start + 2, y, end - 2, y + 6)
                yield _Shape("sill", start + 1, y + 6, end - 1, y + 7)
    yield from _house(rng, wall, left, ground, UNITS - right)
    for start, end in sides:
        if rng.random() < 0.4:
            yield _Shape("plant", start - 1, ground - int(rng.integers(10, 27)), end + 1, ground + 2, "oval")


def _house(rng: _Rng, wall: str, left: int, ground: int, right: int) -> Iterator[_Shape]:
    """Split a house into roof and floors, and each floor into bays."""
    width = right - left
    roof = str(rng.choice(["flat", "gable", "hip"]))
    height = {"flat": 0, "gable": min(18, width // 2), "hip": int(rng.integers(7, 13))}[roof]
    storey, bay, lost = (int(n) for n in rng.integers((9, 8, 0), (15, 15, 3)))
    floors = max(1, (ground - 4 - height) // storey - lost)
    top, street = ground - floors * storey, ground - storey
    yield _Shape(wall, left, top, right, ground)
    yield from _roof(rng, roof, wall, left, top - height, right, top)

    count = (width - 2) // bay
    margin = (width - bay * count) // 2
    edges = [left + margin + bay * number for number in range(count)]
    gap, head, foot = (int(n) for n in rng.integers(2, ((bay - 2) // 2, 4, storey - 6)))
    form, around = "arch" if rng.random() < 0.3 else "box", rng.choice(["none", "molding", "shutter"])
    balconies, shop = rng.choice(["none", "none", "single", "long"]), rng.random() < 0.3

    def window(edge: int, ceiling: int, *, balcony: bool) -> Iterator[_Shape]:
        left, top, right = edge + gap, ceiling + head, edge + bay - gap
        bottom = ceiling + storey - (1 if balcony else foot)
        if around == "shutter":
            yield _Shape("shutter", left - 2, top, right + 2, bottom)
        elif around == "molding":
            yield _Shape("molding", left - 1, top - 1, right + 1, bottom, form)
        yield _Shape("window", left, top, right, bottom, form)
        yield _Shape("balcony" if balcony else "sill", left - 1, bottom - 3 * balcony, right + 1, bottom + 1)

    for ceiling in range(top, street, storey):
        for edge in edges:
            yield from window(edge, ceiling, balcony=balconies == "single")
        if balconies == "long":
            yield _Shape("balcony", edges[0], ceiling + storey - 4, edges[-1] + bay, ceiling + storey)
        elif balconies == "none":
            yield _Shape("cornice", left, ceiling + storey - 1, right, ceiling + storey)
    if margin >= 2 and rng.random() < 0.5:
        yield _Shape("pillar", left, top, left + 2, ground)
        yield _Shape("pillar", right - 2, top, right, ground)
    entrance = edges.pop(int(rng.integers(count)))
    for edge in edges:
        if shop:
            yield _Shape("shop", edge + 1, street + 4, edge + bay - 1, ground - 1)
            yield _Shape("awning", edge, street + 2, edge + bay, street + 5)
        else:
            yield from window(edge, street, balcony=False)
    across = min(bay - 2, storey - 5, int(rng.integers(4, 8)))
    door = entrance + (bay - across) // 2
    yield _Shape("molding", door - 1, street + 2, door + across + 1, ground, form)
    yield _Shape("door", door, street + 3, door + across, ground - 1, form)
    yield _Shape("sill", door - 1, ground - 1, door + across + 1, ground + 1)


def _roof(rng: _Rng, kind: str, wall: str, left: int, top: int, right: int, foot: int) -> Iterator[_Shape]:
    cover, middle = str(rng.choice(["tiles", "slate"])), (left + right) / 2
    if kind == "gable":
        yield _Shape(cover, left, top, right, foot, "gable")
        yield _Shape(wall, left + 3, top + 3, right - 3, foot, "gable")
        yield _Shape("molding", middle - 4, foot - 8, middle + 4, foot, "oval")
        yield _Shape("window", middle - 3, foot - 7, middle + 3, foot - 1, "oval")
        return
    if kind == "hip":
        for chimney in rng.integers(left + 8, right - 12, size=int(rng.integers(3))):
            yield _Shape("brick", chimney, top - 3, chimney + 4, foot)
        yield _Shape(cover, left, top, right, foot, "hip")
        for x in (left + 6, middle - 3, right - 13)[: int(rng.integers(4))]:
            yield _Shape("molding", x, foot - 7, x + 7, foot)
            yield _Shape("window", x + 1, foot - 6, x + 6, foot)
    yield _Shape("cornice", left, foot - 1, right, foot + 1)


def _painted(indices: NDArray[np.uint8]) -> Pixels:
    """The picture of a label map of indices into LABELS."""
    unit = indices.shape[1] / UNITS
    top, above = _run(indices)
    bottom = _run(indices[::-1])[0][::-1]
    left, right = _run(indices.T)[0].T, _run(indices.T[::-1])[0][::-1].T
    planes = np.stack([*np.indices(indices.shape, np.float32)[::-1], left, right, top, bottom])
    shadow = 0.45 * np.clip(1.3 - 0.6 * top / unit, 0, 1)[..., None] * _CASTS_SHADOW[above, None]
    out = np.empty((*indices.shape, 3), np.float32)
    for index, (_, paint) in enumerate(_ELEMENTS.values()):
        chosen = indices == index
        if chosen.any():
            place = _Place(1 / unit, *((planes[:, chosen] + 0.5) / unit))
            out[chosen] = paint(place) * (1 - shadow[chosen])
    return np.clip(out + 0.5, 0, 255).astype(np.uint8)


def _run(indices: NDArray[np.uint8]) -> tuple[_Floats, NDArray[np.uint8]]:
    """Along the first axis: pixels since the label last changed, and the label before that (its own at the border)."""
    rows = np.arange(len(indices), dtype=np.int32)[:, None]
    starts = np.zeros(indices.shape, np.int32)
    starts[1:] = np.where(indices[1:] != indices[:-1], rows[1:], 0)
    starts = np.maximum.accumulate(starts, axis=0)
    before = np.take_along_axis(indices, np.maximum(starts - 1, 0), axis=0)
    return (rows - starts).astype(np.float32), before


class _Place:
    """Where the pixels of one label are, each a float32 (n,), in units: pixel centres, and distances to the edges."""

    def __init__(self, pixel: float, *planes: _Floats) -> None:
        self.pixel = pixel
        self.x, self.y, self.left, self.right, self.top, self.bottom = planes
        self.grain = 1 if pixel > 0.5 else 0.5  # textures are finer where there are pixels for it
        self.row = self.y / (4 * self.grain)  # rows of blocks, tiles or boards
        self.odd = self.row // 1 % 2
        self.down = self.top / (self.top + self.bottom)
        self.middle = self.line(self.left - self.right, 1.4)
        self.side = np.minimum(self.left, self.right)
        self.frame = self.band(np.minimum(self.side, np.minimum(self.top, self.bottom)), 0.8)
        self.grid = np.maximum(self.frame, self.lines(self.x, 4 * self.grain, 1.2 * self.grain))
        # Walls are brighter above, and darker in the corners that they form with what stands out.
        self.daylight = ((1.1 - 0.0035 * self.y) * (1 - 0.16 * self.band(self.side, 1)))[:, None]

    def line(self, distance: _Floats, width: float) -> _Floats:
        """How much of each pixel a line of that width covers, in [0, 1], at a distance from the line's middle."""
        covered = np.clip((width + self.pixel) / 2 - np.abs(distance), 0, min(self.pixel, width))
        return np.asarray(covered / self.pixel)

    def lines(self, along: _Floats, period: float, width: float = 0.8) -> _Floats:
        """The same of lines at every multiple of `period`."""
        return self.line((along + period / 2) % period - period / 2, width)

    def band(self, distance: _Floats, width: float) -> _Floats:
        """How much of each pixel lies within `width` of an edge."""
        return np.clip((width - distance) / self.pixel + 0.5, 0, 1)


def _mix(first: object, second: object, amount: NDArray[Any]) -> _Floats:
    """Blend two colours, each (3,) or (n, 3), by `amount` (n,), cut off at 0 and 1."""
    a, b = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return np.asarray(a + (b - a) * np.clip(amount, 0, 1)[:, None], np.float32)


def _laid(at: _Place, first: object, second: object, amount: _Floats, joint: object, length: float = 4) -> _Floats:
    """Rows of blocks or tiles with joints, each row shifted by half a block."""
    upright = at.lines(at.x + at.odd * length * at.grain / 2, length * at.grain, 0.8 * at.grain)
    joints = np.maximum(at.lines(at.y - at.pixel / 2, 4 * at.grain, 0.8 * at.grain), 0.8 * upright)
    return _mix(_mix(first, second, amount), joint, joints)


def _window(at: _Place) -> _Floats:
    bars = np.maximum(at.middle, at.line(at.top - 2.5, 0.9) * (at.top + at.bottom > 5.5))
    return _mix(_mix((186, 214, 232), (52, 72, 98), at.top / 8), (246, 242, 232), np.maximum(bars, at.frame))


def _door(at: _Place) -> _Floats:
    panels = _mix((44, 92, 76), (98, 158, 130), np.abs(at.bottom % 4 - 2) < 1.1)
    return _mix(_mix(panels, (240, 208, 130), at.top < 3), (26, 56, 48), np.maximum(at.frame, at.middle))


_ELEMENTS: dict[str, tuple[tuple[int, int, int], Callable[[_Place], _Floats]]] = {
    "sky": ((0, 0, 170), lambda at: _mix((92, 148, 214), (226, 234, 238), at.y / 50)),
    "wall": ((0, 0, 255), lambda at: _mix((232, 202, 146), (205, 166, 106), at.lines(at.y - 0.5, 8)) * at.daylight),
    "window": ((0, 85, 255), _window),
    "door": ((0, 170, 255), _door),
    "cornice": ((0, 255, 255), lambda at: _mix((250, 244, 230), (176, 164, 146), at.down * 1.4 - 0.4)),
    "sill": ((85, 255, 170), lambda at: _mix((250, 244, 230), (176, 164, 146), at.down * 1.4 - 0.4)),
    "balcony": ((170, 255, 85), lambda at: _mix((138, 130, 126), (40, 42, 50), at.grid)),
    "shutter": ((255, 255, 0), lambda at: _mix((74, 128, 96), (38, 82, 62), at.lines(at.top - 0.5, 3 * at.grain))),
    "awning": ((255, 170, 0), lambda at: _mix((206, 62, 54), (250, 240, 226), at.lines(at.x, 4, 2))),
    "molding": ((255, 85, 0), lambda at: _mix((236, 228, 210), (206, 196, 176), at.frame)),
    "pillar": ((255, 0, 0), lambda at: _mix((226, 214, 192), (166, 150, 128), at.lines(at.y - 0.5, 4))),
    "shop": ((170, 0, 0), lambda at: _mix(_mix((255, 218, 140), (120, 84, 58), at.top / 8), (56, 44, 44), at.grid)),
    "brick": ((85, 0, 255), lambda at: _laid(at, (166, 82, 60), (186, 100, 72), at.odd, (216, 186, 160), 8)),
    "stone": ((85, 85, 255), lambda at: _laid(at, (188, 182, 172), (212, 206, 194), at.odd, (122, 116, 110), 16)),
    "boards": ((0, 85, 170), lambda at: _mix((146, 178, 176), (92, 124, 126), at.row % 1) * at.daylight),
    "tiles": ((170, 0, 170), lambda at: _laid(at, (214, 112, 74), (150, 62, 44), at.row % 1, (128, 50, 38))),
    "slate": ((85, 0, 85), lambda at: _laid(at, (126, 134, 154), (76, 82, 104), at.row % 1, (62, 66, 86))),
    "plant": ((0, 170, 0), lambda at: _mix((132, 176, 76), (34, 84, 48), at.down)),
    "pavement": ((85, 85, 85), lambda at: _mix((172, 166, 160), (92, 90, 96), at.lines(at.x, 8) / 2)),
}

LABELS = {name: colour for name, (colour, _) in _ELEMENTS.items()}
"""Name and colour of each label. The first twelve are the colours of the CMP facade data set, in which sky is the
background and awning the decoration."""

_COLOURS = np.array(list(LABELS.values()), np.uint8)
_CASTS_SHADOW = np.isin(list(LABELS), ["cornice", "sill", "balcony", "awning", "molding", "tiles", "slate"])
