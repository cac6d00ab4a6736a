"""Magnitudes as colours, with a scale that says which is which."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.images.reading import Pixels

BLACK_BODY = np.array([[0, 0, 0], [72, 18, 10], [178, 34, 34], [227, 105, 5], [238, 210, 33], [255, 255, 255]]) / 255
"""From low to high, as Moreland's black-body colours run: steps that look alike, and told apart without colour."""

_BAR, _HEIGHT, _GAP, _FONT = 120, 18, 6, 12
_PAPER, _INK = (24, 25, 29), (225, 227, 232)


def heat(shares: NDArray[Any]) -> NDArray[np.float64]:
    """Shares of a scale (...), clipped to 0 to 1, as colours (..., 3) from 0 to 1: from black over red to white."""
    places = np.linspace(0, 1, len(BLACK_BODY))
    return np.stack([np.interp(shares, places, BLACK_BODY[:, channel]) for channel in range(3)], -1)


def scale_bar(low: str, high: str, first: float = 0.0, last: float = 1.0) -> Pixels:
    """The colours between two ends, between these as text: (18, w, 3) uint8.

    `first` and `last` are the shares whose colours its ends have.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT)
    widths = [int(font.getlength(text)) for text in (low, high)]
    left = _GAP + widths[0] + _GAP
    sheet = Image.new("RGB", (left + _BAR + _GAP + widths[1] + _GAP, _HEIGHT), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP, _HEIGHT / 2), low, fill=_INK, font=font, anchor="lm")
    pen.text((left + _BAR + _GAP, _HEIGHT / 2), high, fill=_INK, font=font, anchor="lm")
    found = np.array(sheet)
    found[4 : _HEIGHT - 4, left : left + _BAR] = (heat(np.linspace(first, last, _BAR)) * 255 + 0.5).astype(np.uint8)
    return found


def stamped(part: Pixels, box: tuple[int, int, int, int], height: int, stamp: Pixels) -> Pixels:
    """A part of a picture with a stamp at the lower left corner of the whole, as far as the part has it.

    Args:
        part: (h, w, 3).
        box: left, top, right, bottom of the part in the whole picture.
        height: of the whole picture, in pixels.
        stamp: (sh, sw, 3); it is left out where the picture is not three times as high.
    """
    left, top, right, bottom = box
    first = height - stamp.shape[0]
    if height < 3 * stamp.shape[0] or bottom <= first or left >= stamp.shape[1]:
        return part
    found = part.copy()
    rows, columns = slice(max(top, first), bottom), slice(left, min(right, stamp.shape[1]))
    found[rows.start - top : rows.stop - top, : columns.stop - left] = stamp[rows.start - first :, columns][
        : rows.stop - rows.start
    ]
    return found
