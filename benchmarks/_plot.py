"""Curves as a PNG, drawn with Pillow alone: what a benchmark's page shows beside its tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIZE, LEFT, RIGHT, TOP, BOTTOM = (960, 560), 90, 30, 50, 70
COLORS = [(31, 92, 153), (203, 75, 22), (44, 132, 76), (120, 70, 150), (90, 90, 90)]


def plot(path: Path, curves: Mapping[str, Sequence[tuple[float, float]]], title: str, across: str, up: str) -> None:
    """Write curves, each a list of (x, y), with axes from 0 along x and around the values along y."""
    picture = Image.new("RGB", SIZE, "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(16)
    points = [point for curve in curves.values() for point in curve]
    right = max(x for x, _ in points)
    x_step, y_step = nice(right / 8), nice((max(y for _, y in points) - min(y for _, y in points) or 1) / 6)
    low = math.floor(min(y for _, y in points) / y_step) * y_step
    high = math.ceil(max(y for _, y in points) / y_step) * y_step

    def place(x: float, y: float) -> tuple[float, float]:
        share = (y - low) / (high - low)
        return LEFT + x / right * (SIZE[0] - LEFT - RIGHT), SIZE[1] - BOTTOM - share * (SIZE[1] - TOP - BOTTOM)

    for number in range(int(right / x_step) + 1):
        x, y = place(number * x_step, low)
        draw.line([(x, y), (x, TOP)], (225, 225, 225))
        draw.text((x, y + 8), f"{number * x_step:g}", "black", font, anchor="mt")
    for number in range(round((high - low) / y_step) + 1):
        x, y = place(0, low + number * y_step)
        draw.line([(x, y), (SIZE[0] - RIGHT, y)], (225, 225, 225))
        draw.text((x - 8, y), f"{low + number * y_step:g}", "black", font, anchor="rm")
    for (name, curve), color in zip(curves.items(), COLORS, strict=False):
        draw.line([place(*point) for point in curve], color, 3)
        for point in curve:
            x, y = place(*point)
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), color)
        x, y = place(*curve[-1])
        draw.text((x - 6, y - 14), name, color, font, anchor="rb")
    draw.text((LEFT, 16), title, "black", font)
    draw.text((SIZE[0] / 2, SIZE[1] - 14), across, "black", font, anchor="mb")
    draw.text((10, TOP - 14), up, "black", font, anchor="lm")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)


def nice(step: float) -> float:
    """The next larger of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)
