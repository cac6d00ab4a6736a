"""Panels: pictures of a few samples side by side with captions, such as input, output and target."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError
from treadle.images.display import to_display, to_uint8
from treadle.images.reading import Pixels

if TYPE_CHECKING:
    from PIL import Image

SMALLEST, LARGEST = 128, 384
"""The longest side of a picture in a panel, in pixels: smaller ones are enlarged by whole factors, larger ones scaled
down."""
LONGEST = 4096
"""About the longest side of a panel: with many samples its pictures become smaller."""

_MARGIN, _GAP, _APART, _CAPTION, _FONT = 8, 4, 20, 24, 14
_PAPER, _INK = (255, 255, 255), (40, 40, 40)
_ASPECT = 1.4  # width by height that a panel comes near to


def panel(samples: Sequence[Sequence[NDArray[Any]]], captions: Sequence[str] = (), *, largest: int = LARGEST) -> Pixels:
    """A panel, uint8 (H, W, 3): the pictures of each sample in a row; many samples in several columns.

    Args:
        samples: as many pictures of each sample; of any sizes, as `to_display` takes them.
        captions: what stands above the pictures of a sample, cut where it is too long.
        largest: the longest side of a picture in the panel, in pixels.

    Raises:
        UsageError: no pictures, samples of unequal length, or a picture of another shape or type.
    """
    from PIL import Image, ImageDraw, ImageFont

    counts = sorted({len(sample) for sample in samples})
    if len(counts) != 1 or counts[0] == 0:
        raise UsageError(f"a panel shows one or more samples, each of as many pictures, not {counts or 'none'}")
    shown = [[to_uint8(to_display(picture)) for picture in sample] for sample in samples]
    columns = counts[0]
    height, width = _cell(shown, largest)
    across = _across(len(shown), height, width * columns)
    down = math.ceil(len(shown) / across)
    shrink = min(1.0, LONGEST / (across * columns * width), LONGEST / (down * height))
    height, width = max(1, int(height * shrink)), max(1, int(width * shrink))

    sample_width = columns * (width + _GAP) - _GAP
    size = (2 * _MARGIN + across * (sample_width + _APART) - _APART, _CAPTION + down * (height + _GAP) - _GAP + _MARGIN)
    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT)
    fitting = [_cut(caption, lambda text: draw.textlength(text, font) <= width) for caption in captions]
    for index, sample in enumerate(shown):
        left = _MARGIN + (index % across) * (sample_width + _APART)
        top = _CAPTION + (index // across) * (height + _GAP)
        for place, picture in enumerate(sample):
            fitted = _fitted(Image.fromarray(picture), width, height)
            sheet.paste(fitted, (left + (width - fitted.width) // 2, top + (height - fitted.height) // 2))
            if index < across and place < len(fitting):
                draw.text((left, _CAPTION - 4), fitting[place], fill=_INK, font=font, anchor="ls")
            left += width + _GAP
    return np.asarray(sheet)


def _cut(caption: str, fits: Callable[[str], bool]) -> str:
    """As much of a caption as fits."""
    while caption and not fits(caption):
        caption = caption[:-1]
    return caption


def _cell(samples: list[list[Pixels]], largest: int) -> tuple[int, int]:
    """Height and width that the largest picture is given."""
    height = max(picture.shape[0] for sample in samples for picture in sample)
    width = max(picture.shape[1] for sample in samples for picture in sample)
    longest = max(height, width)
    scale: float = math.ceil(SMALLEST / longest) if longest < SMALLEST else min(1.0, largest / longest)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _across(samples: int, height: int, width: int) -> int:
    """How many samples (of this height and width) stand beside one another."""

    def oddness(across: int) -> float:
        return abs(math.log(across * width / (math.ceil(samples / across) * height) / _ASPECT))

    return min(range(1, samples + 1), key=oddness)


def _fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    """The picture as large as the cell allows: enlarged by a whole factor, its pixels as squares, or scaled down."""
    from PIL import Image

    scale = min(width / image.width, height / image.height)
    if scale >= 1:
        return image.resize((image.width * int(scale), image.height * int(scale)), Image.Resampling.NEAREST)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)
