"""Panels: a fit, its target and the error, side by side with captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.fields.images import Picture, displayed

ERROR_GAIN = 10
"""What errors are multiplied by to be seen."""

LONGEST = 1024
"""Longest side of a picture in a panel, in pixels; larger ones are scaled down."""

_MARGIN, _CAPTION = 8, 28


def comparison(fit: Picture, target: Picture, psnr: float) -> NDArray[np.uint8]:
    """A panel (H, W, 3) for the eye: fit, target, |error| (of what is shown, colours averaged) times `ERROR_GAIN`."""
    seen, wanted = (displayed(picture.values, linear=picture.linear) for picture in (fit, target))
    error = np.abs(seen - wanted).mean(axis=2, keepdims=True).repeat(3, axis=2) * ERROR_GAIN
    return _side_by_side(
        [
            (f"fit, {psnr:.2f} dB", seen),
            (f"target: {Path(target.name).name}", wanted),
            (f"|error| x {ERROR_GAIN}", error),
        ]
    )


def _side_by_side(parts: list[tuple[str, NDArray[Any]]]) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw, ImageFont

    height, width = parts[0][1].shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    canvas = Image.new("RGB", (len(parts) * (width + _MARGIN) + _MARGIN, height + _CAPTION + _MARGIN), (255, 255, 255))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(16)
    for place, (caption, values) in enumerate(parts):
        image = Image.fromarray((values.clip(0, 1) * 255 + 0.5).astype(np.uint8))
        left = _MARGIN + place * (width + _MARGIN)
        canvas.paste(image.resize((width, height)) if scale < 1 else image, (left, _CAPTION))
        while caption and draw.textlength(caption, font) > width:
            caption = caption[:-1]
        draw.text((left, 5), caption, fill=(30, 30, 30), font=font)
    return np.asarray(canvas)
