"""Pictures side by side in a window: laid out as large as they fit, drawn part by part, and asked for exact numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.images.display import to_display, to_uint8
from treadle.images.reading import Pixels
from treadle.reports.views import LiveView, Option, Window, values_at, zooming

PAPER = (24, 25, 29)
"""The colour between pictures."""
_INK = (205, 207, 213)
_CAPTION, _FONT, _GAP = 20, 13, 6
_LEAST = 3 * _CAPTION
"""Captions are left out of cells that are lower than this, in pixels."""

Numbers = Mapping[str, float | str]


@dataclass(frozen=True, eq=False)
class Cell:
    """A picture of a sheet.

    Attributes:
        name: what stands above it.
        picture: for the eye: (H, W) or (H, W, C), C = 1 to 4; uint8, bool, or floats from 0 to 1.
        numbers: of the pixel at a column and a row; the picture's own values where it is None.
    """

    name: str
    picture: NDArray[Any]
    numbers: Callable[[int, int], Numbers] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.picture.shape[1], self.picture.shape[0]

    def under(self, column: int, row: int) -> Numbers:
        """The numbers of a pixel."""
        return values_at(self.picture, column, row) if self.numbers is None else self.numbers(column, row)


class Sheet:
    """Cells in a grid that fills a window.

    Args:
        cells: one at least.
        width, height: of the window, in pixels.
        exact: take the nearest pixel where a picture is scaled down, in place of a mean: no colour appears that is not
            in it. Pictures are enlarged by their nearest pixels in any case.
    """

    def __init__(self, cells: Sequence[Cell], width: int, height: int, *, exact: bool = False) -> None:
        self.cells, self.width, self.height, self.exact = cells, width, height, exact
        widest, highest = (max(cell.size[axis] for cell in cells) for axis in (0, 1))

        def scale(across: int) -> float:
            down = math.ceil(len(cells) / across)
            room = height / down - _GAP - self._caption(across, down)
            return max(min((width / across - _GAP) / widest, room / highest), 1 / max(widest, highest))

        self.across = max(range(1, len(cells) + 1), key=lambda across: (scale(across), -across))
        self.down = math.ceil(len(cells) / self.across)
        self.caption = self._caption(self.across, self.down)
        self._cell = widest * scale(self.across), highest * scale(self.across)
        self._left = (width - self.across * (self._cell[0] + _GAP) + _GAP) / 2
        self._top = (height - self.down * (self._cell[1] + _GAP + self.caption) + _GAP) / 2
        self._captions = [_written(cell.name, int(self._cell[0]), self.caption) for cell in cells]
        self._pixels = [to_uint8(to_display(_shares(cell.picture))) for cell in cells]
        self._smaller: dict[tuple[int, int, int], Pixels] = {}

    def _caption(self, across: int, down: int) -> int:
        """The height of captions, where there is room for them and anything to be told apart."""
        low = self.height / down < _LEAST or self.width / across < _LEAST
        return 0 if low or not any(cell.name for cell in self.cells) else _CAPTION

    def place(self, number: int) -> tuple[int, int, int, int]:
        """Left, top, width and height of a cell's picture in the window that is not zoomed, in pixels."""
        width, height = self.cells[number].size
        across, down = self._cell
        scale = min(across / width, down / height)
        shown_width, shown_height = max(1, int(width * scale + 1e-6)), max(1, int(height * scale + 1e-6))
        column, row = number % self.across, number // self.across
        left = self._left + column * (across + _GAP) + (across - shown_width) / 2
        top = self._top + row * (down + _GAP + self.caption) + self.caption + (down - shown_height) / 2
        return int(left), int(top), shown_width, shown_height

    def part(self, window: Window) -> Pixels:
        """What is in the window's box, zoomed as its options say: (h, w, 3) uint8."""
        x, y = self._places(window)
        found = np.full((len(y), len(x), 3), PAPER, np.uint8)
        zoom = float(window.options.get("zoom", 1.0))
        for number in range(len(self.cells)):
            place = left, top, width, height = self.place(number)
            _paste(found, self._as_large(number, width * zoom, height * zoom), place, x, y)
            if self.caption:
                text = self._captions[number]
                middle = left + (width - text.shape[1]) // 2
                _paste(found, text, (middle, top - self.caption, text.shape[1], self.caption), x, y)
        return found

    def under(self, window: Window, x: int, y: int) -> tuple[int, int, int] | None:
        """Which cell, and which column and row of its picture, is at a pixel of the window; None beside all of them."""
        (across,), (down,) = self._places(replace(window, box=(x, y, x + 1, y + 1)))
        for number, cell in enumerate(self.cells):
            left, top, width, height = self.place(number)
            if left <= across < left + width and top <= down < top + height:
                return number, int((across - left) / width * cell.size[0]), int((down - top) / height * cell.size[1])
        return None

    def _places(self, window: Window) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where the columns and rows of the window's box are in the window that is not zoomed, in pixels."""
        x, y = window.places()
        return x * self.width, y * self.height

    def _as_large(self, number: int, width: float, height: float) -> Pixels:
        """A cell's pixels, at most as large as they are shown: smaller ones are means of what they cover."""
        pixels = self._pixels[number]
        size = min(math.ceil(width), pixels.shape[1]), min(math.ceil(height), pixels.shape[0])
        if self.exact or size == pixels.shape[1::-1]:
            return pixels
        if (number, *size) not in self._smaller:
            from PIL import Image

            if len(self._smaller) >= len(self.cells):  # of another zoom
                self._smaller.clear()
            self._smaller[number, *size] = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
        return self._smaller[number, *size]


def _paste(
    paper: Pixels,
    pixels: Pixels,
    place: tuple[int, int, int, int],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> None:
    """Put the nearest pixels where columns `x` and rows `y` of the paper are within left, top, width and height."""
    left, top, width, height = place
    columns, rows = (x - left) / width, (y - top) / height
    across, down = np.flatnonzero((columns >= 0) & (columns < 1)), np.flatnonzero((rows >= 0) & (rows < 1))
    if len(across) and len(down):
        nearest = (rows[down] * pixels.shape[0]).astype(np.int64), (columns[across] * pixels.shape[1]).astype(np.int64)
        paper[np.ix_(down, across)] = pixels[np.ix_(*nearest)]


def _written(text: str, width: int, height: int) -> Pixels:
    """A caption, (height, at most width, 3), cut where it is too long."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT)
    sheet = Image.new("RGB", (max(1, width), max(1, height)), PAPER)
    pen = ImageDraw.Draw(sheet)
    while text and pen.textlength(text, font) > width:
        text = text[:-1]
    pen.text((width / 2, height - 5), text, fill=_INK, font=font, anchor="ms")
    return np.asarray(sheet)


def _shares(picture: NDArray[Any]) -> NDArray[Any]:
    """A picture as `to_display` takes it."""
    if picture.dtype == np.bool_:
        return picture.astype(np.uint8) * np.uint8(255)
    return picture if picture.dtype == np.uint8 else np.nan_to_num(picture, nan=0.0, posinf=1.0, neginf=0.0)


class SheetView(LiveView):
    """A flat view of pictures side by side: override `cells`, and no tile or scale has to be thought of.

    Attributes:
        aligned: whether a pixel of one picture is the same place in all others, so that its numbers are told together.
    """

    aligned: bool = False

    def __init__(self, standing: Callable[[], Hashable]) -> None:
        """`standing` says which state the run is in (see `standing_of`): while it is the same, cells are kept."""
        self._standing = standing
        self._kept: tuple[Hashable, Sequence[Cell]] | None = None
        self._sheet: tuple[Hashable, Sheet] | None = None

    def options(self) -> Sequence[Option]:
        """What of the sheet is shown; add these to your own."""
        return zooming()

    def cells(self, window: Window) -> Sequence[Cell]:
        """The pictures under the window's options, one at least. Size, box and camera are nothing to them."""
        raise NotImplementedError

    def asked(self, window: Window) -> Hashable:
        """What of a window the cells depend on: by default its options, but for what of the sheet is shown."""
        return tuple(sorted(item for item in window.options.items() if item[0] not in ("zoom", "x", "y")))

    def shown(self, window: Window) -> Sequence[Cell]:
        """`cells`, made once for each state and what is `asked`."""
        key = (self._standing(), self.asked(window))
        if self._kept is None or self._kept[0] != key:
            self._kept = key, list(self.cells(window))
        return self._kept[1]

    def sheet(self, window: Window) -> Sheet:
        """The sheet of a window."""
        cells = self.shown(window)
        key = (id(cells), window.width, window.height)
        if self._sheet is None or self._sheet[0] != key:
            self._sheet = key, Sheet(cells, window.width, window.height, exact=self.lossless)
        return self._sheet[1]

    def prepare(self, window: Window) -> bool:
        """Make the cells, so that what they cost is not taken for what a pixel costs."""
        self.sheet(window)
        return True

    def draw(self, window: Window) -> Pixels:
        """The part of the sheet in the window's box."""
        return self.sheet(window).part(window)

    def inspect(self, window: Window, x: int, y: int) -> Numbers:
        """Picture, column, row and numbers of what lies there; of all pictures where they are aligned."""
        found = self.sheet(window).under(window, x, y)
        if found is None:
            return {}
        number, column, row = found
        cells = self.shown(window)
        told: dict[str, float | str] = {"picture": cells[number].name, "column": column, "row": row}
        if not self.aligned:
            return told | dict(cells[number].under(column, row))
        alike = [cell for cell in cells if cell.size == cells[number].size]
        return told | {
            f"{cell.name}: {name}": value for cell in alike for name, value in cell.under(column, row).items()
        }
