"""Panels: input, output and target of a few samples, side by side with captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]

CAPTIONS = ("input", "output", "target")
SMALLEST, LARGEST = 128, 384
"""The width of a picture in a panel, in pixels: smaller ones are enlarged by whole factors, larger ones scaled down."""
LONGEST = 4096
"""About the longest side of a panel: with many samples its pictures become smaller."""

_MARGIN, _GAP, _APART, _CAPTION, _FONT = 8, 4, 20, 24, 14
_PAPER, _INK = (255, 255, 255), (40, 40, 40)
_ASPECT = 1.4  # width by height that a panel comes near to


def triplets(
    inputs: Sequence[Pixels],
    outputs: Sequence[Pixels],
    targets: Sequence[Pixels] | None = None,
    captions: Sequence[str] = CAPTIONS,
) -> Pixels:
    """A panel, uint8 (H, W, 3): for each sample its input, output and target in a row; many samples in several columns.

    Args:
        inputs, outputs, targets: as many pictures each, uint8 (H, W, C) of any sizes: gray, gray and alpha, RGB or
            RGBA; what alpha leaves open shows a light checkerboard. No targets where there are none.
        captions: what stands above them.

    Raises:
        UsageError: no pictures, unequal numbers of them, or a picture of another shape or type.
    """
    from PIL import Image, ImageDraw, ImageFont

    columns = [inputs, outputs] if targets is None else [inputs, outputs, targets]
    if len(inputs) == 0 or {len(column) for column in columns} != {len(inputs)}:
        counts = ", ".join(str(len(column)) for column in columns)
        raise UsageError(f"a panel shows one or more samples, as many inputs as outputs and targets, not {counts}")
    samples = [[shown(picture) for picture in sample] for sample in zip(*columns, strict=True)]
    height, width = _cell(samples)
    across = _across(len(samples), height, width * len(columns))
    down = math.ceil(len(samples) / across)
    shrink = min(1.0, LONGEST / (across * len(columns) * width), LONGEST / (down * height))
    height, width = max(1, int(height * shrink)), max(1, int(width * shrink))

    sample_width = len(columns) * (width + _GAP) - _GAP
    size = (2 * _MARGIN + across * (sample_width + _APART) - _APART, _CAPTION + down * (height + _GAP) - _GAP + _MARGIN)
    panel = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(panel), ImageFont.load_default(_FONT)
    for index, sample in enumerate(samples):
        left = _MARGIN + (index % across) * (sample_width + _APART)
        top = _CAPTION + (index // across) * (height + _GAP)
        for picture, caption in zip(sample, captions, strict=False):
            fitted = _fitted(Image.fromarray(picture), width, height)
            panel.paste(fitted, (left + (width - fitted.width) // 2, top + (height - fitted.height) // 2))
            if index < across and draw.textlength(caption, font) <= width:
                draw.text((left, _CAPTION - 4), caption, fill=_INK, font=font, anchor="ls")
            left += width + _GAP
    return np.asarray(panel)


def shown(picture: Pixels) -> Pixels:
    """A picture (H, W, 1 to 4 channels) as RGB (H, W, 3): gray is repeated, alpha shows a light checkerboard.

    Raises UsageError for another shape or type.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 2, 3, 4) or picture.size == 0:
        raise UsageError(
            f"a picture of shape {picture.shape} and type {picture.dtype} cannot be shown: expected uint8 (H, W, C), "
            "1 to 4 channels"
        )
    channels = picture.shape[2]
    colours = picture[:, :, :1].repeat(3, axis=2) if channels < 3 else picture[:, :, :3]
    if channels in (2, 4):
        rows, columns = np.indices(picture.shape[:2]) // 8
        board = np.where((rows + columns) % 2, 190, 230)[:, :, None]
        alpha = picture[:, :, -1:].astype(np.float32) / 255
        colours = (colours * alpha + board * (1 - alpha)).round().astype(np.uint8)
    return colours


def _cell(samples: list[list[Pixels]]) -> tuple[int, int]:
    """Height and width that the largest picture is given."""
    height = max(picture.shape[0] for sample in samples for picture in sample)
    width = max(picture.shape[1] for sample in samples for picture in sample)
    longest = max(height, width)
    scale: float = math.ceil(SMALLEST / longest) if longest < SMALLEST else min(1.0, LARGEST / longest)
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
