"""House fronts without a download: a small split grammar that draws label maps, and the one right picture of each.

The grammar works as in Wonka et al., "Instant Architecture" (2003): a street is split into pavement and lots, a house
into floors and a roof, a floor into bays, a bay into a window and what surrounds it. Everything lies on a plan of
64 x 64 units, so a house is the same house at every size. `render` in `facade_textures` paints it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treadle.data import derive_seed
from treadle.errors import UsageError
from treadle.gans.facade_textures import LABELS, colours_of, render
from treadle.images.reading import Pixels

__all__ = ["LABELS", "facade", "facades", "render"]

UNITS = 64
"""Width and height of the plan; an element of one unit is one pixel at 64 px."""

SIZES = range(32, 513)

_INDEX = {name: index for index, name in enumerate(LABELS)}
_WALLS = ("wall", "brick", "stone", "boards")


def facade(seed: int, index: int, size: int = 64) -> tuple[Pixels, Pixels]:
    """House front number `index` of the data set `seed`: (label map, picture), both uint8 (size, size, 3).

    A pure function of its arguments, and the picture one of the label map alone: it is `render(labels)`. Raises
    UsageError for a size outside 32..512.
    """
    if not isinstance(size, int) or size not in SIZES:
        raise UsageError(f"facades of size {size!r}: expected a whole number of pixels from 32 to 512")
    plan = _Plan(size)
    _street(plan, np.random.default_rng(derive_seed(seed, "facade", index)))
    labels = colours_of(plan.labels)
    return labels, render(labels)


def facades(seed: int, count: int, size: int = 64) -> tuple[Pixels, Pixels]:
    """The first `count` house fronts of the data set `seed`: two arrays, uint8 (count, size, size, 3)."""
    labels = np.empty((count, size, size, 3), np.uint8)
    pictures = np.empty_like(labels)
    for index in range(count):
        labels[index], pictures[index] = facade(seed, index, size)
    return labels, pictures


class _Plan:
    """A label map (indices into LABELS, uint8 (size, size)) on which shapes are drawn in units of the plan."""

    def __init__(self, size: int) -> None:
        self.labels: NDArray[np.uint8] = np.full((size, size), _INDEX["sky"], np.uint8)
        self.unit = size / UNITS

    def _pixels(self, start: float, end: float) -> slice:
        """Pixels whose centres lie between two coordinates: at least one, so that nothing thin is lost."""
        first = max(0, int(start * self.unit + 0.5))
        return slice(first, max(first + 1, int(end * self.unit + 0.5)))

    def box(self, label: str, left: float, top: float, right: float, bottom: float) -> None:
        self.labels[self._pixels(top, bottom), self._pixels(left, right)] = _INDEX[label]

    def slope(self, label: str, left: float, top: float, right: float, bottom: float, inset: float) -> None:
        """A trapezoid, narrower at the top by `inset` on either side: gables, roofs, pediments."""
        rows, columns = self._pixels(top, bottom), self._pixels(left, right)
        y, x = self._centres(rows, columns)
        shrink = inset * (bottom - y) / (bottom - top)
        self.labels[rows, columns][(x > left + shrink) & (x < right - shrink)] = _INDEX[label]

    def oval(
        self, label: str, left: float, top: float, right: float, bottom: float, *, above: float | None = None
    ) -> None:
        """An ellipse in its box, or what of it lies above a line."""
        rows, columns = self._pixels(top, bottom if above is None else above), self._pixels(left, right)
        y, x = self._centres(rows, columns)
        across = (2 * x - left - right) / (right - left)
        down = (2 * y - top - bottom) / (bottom - top)
        self.labels[rows, columns][across**2 + down**2 < 1] = _INDEX[label]

    def _centres(self, rows: slice, columns: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        height, width = self.labels.shape
        y = np.arange(rows.start, min(rows.stop, height))[:, None] + 0.5
        x = np.arange(columns.start, min(columns.stop, width))[None] + 0.5
        return y / self.unit, x / self.unit


@dataclass(frozen=True)
class _Style:
    """What the parts of one house have in common."""

    wall: str
    gap: int  # units between a bay's edge and its window
    head: int  # units between a floor's ceiling and its windows
    foot: int
    arched: bool
    trim: bool
    shutters: bool
    pediment: bool


def _chance(rng: np.random.Generator, probability: float) -> bool:
    return bool(rng.random() < probability)


def _between(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def _one_of(rng: np.random.Generator, *names: str) -> str:
    return names[int(rng.integers(len(names)))]


def _street(plan: _Plan, rng: np.random.Generator) -> None:
    ground = UNITS - 2 * _between(rng, 2, 4)
    plan.box("pavement", 0, ground, UNITS, UNITS)
    left, right = (4 * max(0, _between(rng, -2, 4)) for _ in range(2))
    wall = _one_of(rng, *_WALLS)
    for start, end in ((0, left), (UNITS - right, UNITS)):
        if end > start:
            _lot(plan, rng, start, ground, end, wall)
    _house(plan, rng, left, ground, UNITS - right, wall)
    for start, end in ((0, left), (UNITS - right, UNITS)):
        if end - start >= 8 and _chance(rng, 0.4):
            height = _between(rng, 10, 26)
            plan.oval("plant", start - 1, ground - height, end + 1, ground + 2)
    if _chance(rng, 0.3):
        for left in range(_between(rng, 0, 4), UNITS, 8):
            if _chance(rng, 0.4):
                plan.oval("plant", left, ground - _between(rng, 2, 4), left + 7, ground + 3)


def _lot(plan: _Plan, rng: np.random.Generator, left: int, ground: int, right: int, wall: str) -> None:
    """What stands beside the house: sky, or a neighbour of another material, of which one sees a strip."""
    if _chance(rng, 0.35):
        return
    top = 4 * _between(rng, 3, 9)
    plan.box(_one_of(rng, *(other for other in _WALLS if other != wall)), left, top, right, ground)
    if _chance(rng, 0.6):
        plan.box(_one_of(rng, "tiles", "slate"), left, top - _between(rng, 3, 7), right, top)
    else:
        plan.box("cornice", left, top - 1, right, top + 1)
    for y in range(top + 4, ground - 8, 12):
        if right - left >= 8:
            plan.box("window", left + 2, y, right - 2, y + 6)
            plan.box("sill", left + 1, y + 6, right - 1, y + 7)


def _house(plan: _Plan, rng: np.random.Generator, left: int, ground: int, right: int, wall: str) -> None:
    """Split a house into roof and floors, and each floor into bays."""
    width = right - left
    roof = _one_of(rng, "flat", "flat", "gable", "hip", "hip", "mansard")
    roof_height = _between(rng, 7, 12) if roof != "gable" else min(18, width // 2)
    storey = _between(rng, 9, 14)
    most = (ground - 4 - (roof_height if roof != "flat" else 0)) // storey
    floors = max(1, most - _between(rng, 0, 4) // 2)
    head = _between(rng, 2, 3)
    foot = _between(rng, 2, storey - 7)
    bay = _between(rng, 8, 14)
    narrow = (bay - storey + head + foot + 1) // 2  # windows are at most as wide as high
    gap = min(max(_between(rng, 1, 4), narrow), (bay - 4) // 2)
    style = _Style(
        wall=wall,
        gap=gap,
        head=head,
        foot=foot,
        arched=_chance(rng, 0.3),
        trim=_chance(rng, 0.5),
        shutters=gap >= 3 and _chance(rng, 0.6),
        pediment=_chance(rng, 0.25),
    )
    top = ground - floors * storey
    plan.box(wall, left, top, right, ground)
    _roof(plan, rng, roof, left, top - roof_height, right, top, style)

    bays = max(1, (width - 2) // bay)
    margin = (width - bays * bay) // 2
    edges = [left + margin + bay * number for number in range(bays)]
    balconies = _one_of(rng, "none", "none", "single", "long")
    ledges = _chance(rng, 0.5)
    for floor in range(1, floors):
        ceiling = ground - (floor + 1) * storey
        for edge in edges:
            _bay(plan, style, edge, ceiling, edge + bay, ceiling + storey, balcony=balconies == "single")
        if balconies == "long" and (floor == 1 or floor == floors - 1):
            plan.box("balcony", edges[0], ceiling + storey - 4, edges[-1] + bay, ceiling + storey)
        elif ledges:
            plan.box("cornice", left, ceiling + storey - 1, right, ceiling + storey)
    if margin >= 2 and _chance(rng, 0.5):
        thickness = min(3, margin)
        plan.box("pillar", left, top, left + thickness, ground)
        plan.box("pillar", right - thickness, top, right, ground)
    _ground_floor(plan, rng, style, left, ground - storey, right, ground, edges, bay)


def _ground_floor(
    plan: _Plan,
    rng: np.random.Generator,
    style: _Style,
    left: int,
    top: int,
    right: int,
    ground: int,
    edges: list[int],
    bay: int,
) -> None:
    """One bay takes the door, the others windows or shop fronts."""
    shop = _chance(rng, 0.3)
    entrance = _between(rng, 0, len(edges) - 1)
    if not shop and style.wall != "stone" and _chance(rng, 0.3):
        plan.box("stone", left, top, right, ground)
    if shop or _chance(rng, 0.3):
        plan.box("cornice", left, top, right, top + 1)
    for number, edge in enumerate(edges):
        if number == entrance:
            _door(plan, rng, style, edge, top, edge + bay, ground)
        elif shop:
            plan.box("shop", edge + 1, top + 4, edge + bay - 1, ground - 1)
            plan.box("awning", edge, top + 2, edge + bay, top + 5)
        else:
            _bay(plan, style, edge, top, edge + bay, ground, balcony=False)


def _bay(plan: _Plan, style: _Style, left: int, top: int, right: int, bottom: int, *, balcony: bool) -> None:
    """A window in the middle of its bay, with what surrounds it."""
    left, top, right = left + style.gap, top + style.head, right - style.gap
    bottom -= 1 if balcony else style.foot
    if style.shutters:
        plan.box("shutter", left - 2, top, right + 2, bottom)
    elif style.trim:
        _opening(plan, "molding", left - 1, top - 1, right + 1, bottom, arched=style.arched)
    if style.pediment and not style.arched:
        plan.slope("molding", left - 1, top - 2, right + 1, top, (right - left) / 2)
    _opening(plan, "window", left, top, right, bottom, arched=style.arched and not style.shutters)
    if balcony:
        plan.box("balcony", left - 1, bottom - 3, right + 1, bottom + 1)
    else:
        plan.box("sill", left - 1, bottom, right + 1, bottom + 1)


def _opening(plan: _Plan, label: str, left: int, top: int, right: int, bottom: int, *, arched: bool) -> None:
    if not arched:
        plan.box(label, left, top, right, bottom)
        return
    spring = min(top + (right - left) / 2, bottom - 2)
    plan.oval(label, left, top, right, 2 * spring - top, above=spring)
    plan.box(label, left, spring, right, bottom)


def _door(plan: _Plan, rng: np.random.Generator, style: _Style, left: int, top: int, right: int, ground: int) -> None:
    width = min(right - left - 2, ground - top - 5, _between(rng, 4, 7))
    left += (right - left - width) // 2
    right = left + width
    top += _between(rng, 2, 3)
    if _chance(rng, 0.6):
        _opening(plan, "molding", left - 1, top - 1, right + 1, ground, arched=style.arched)
    _opening(plan, "door", left, top, right, ground - 1, arched=style.arched)
    plan.box("sill", left - 1, ground - 1, right + 1, ground + 1)


def _roof(
    plan: _Plan, rng: np.random.Generator, kind: str, left: int, top: int, right: int, bottom: int, style: _Style
) -> None:
    cover = "slate" if kind == "mansard" else _one_of(rng, "tiles", "tiles", "slate")
    middle = (left + right) / 2
    if kind == "flat":
        plan.box("cornice", left, bottom - 2, right, bottom + 1)
        return
    for _ in range(_between(rng, 0, 2)):
        chimney = _between(rng, left + 2, right - 6)
        plan.box("brick", chimney, top - 3, chimney + 4, bottom)
        plan.box("cornice", chimney, top - 3, chimney + 4, top - 2)
    if kind == "gable":
        plan.slope(cover, left, top, right, bottom, middle - left)
        plan.slope(style.wall, left + 3, top + 3, right - 3, bottom, middle - left - 3)
        if bottom - top >= 14:
            plan.oval("molding", middle - 4, bottom - 8, middle + 4, bottom)
            plan.oval("window", middle - 3, bottom - 7, middle + 3, bottom - 1)
        return
    plan.slope(cover, left, top, right, bottom, 3 if kind == "mansard" else _between(rng, 0, 12))
    plan.box("cornice", left, bottom - 1, right, bottom + 1)
    if bottom - top >= 9:
        for number in range(_between(rng, 0, 3)):
            x = left + (2 * number + 1) * (right - left) // 6 - 3
            plan.box("molding", x, bottom - 7, x + 7, bottom - 1)
            plan.slope("molding", x - 1, bottom - 9, x + 8, bottom - 7, 4)
            plan.box("window", x + 1, bottom - 6, x + 6, bottom - 1)
