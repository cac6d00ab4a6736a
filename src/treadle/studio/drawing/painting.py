"""A picture of a view on the way: drawn in tiles, so that whoever waits for the run never waits long."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError
from treadle.images.display import to_uint8
from treadle.reports.views import LiveView, Window, tile

TILE = 0.025
"""Seconds that a tile is to take: with twice as much it still ends within 50 ms."""
PREPARING = 0.2
"""Seconds of preparing after which a picture shows what there is, where that is not all."""
FIRST = 512
"""Pixels of the first tile, when nothing is known of what they cost."""
SMALLEST = 24
"""Pixels along the shorter side of a coarse picture, at least."""
QUALITY = 75
"""Of JPEG."""

Pixels = NDArray[np.uint8]


class Pace:
    """What tiles of a view cost, as far as it is known: something for each, and something for each pixel."""

    def __init__(self) -> None:
        self.pixels = FIRST
        """How many the next tile should have."""
        self.known = False
        """Whether anything was drawn yet."""
        self._each = self._pixel = 0.0
        self._last = (0, 0.0)

    def took(self, pixels: int, seconds: float) -> None:
        """So many pixels took so long. Costs differ within a picture: they are followed, with caution."""
        seconds = max(seconds, 1e-6)
        before, last = self._last
        if not self.known:
            self._pixel = seconds / pixels
        elif max(pixels, before) >= 2 * min(pixels, before):  # two sizes tell what belongs to each tile and what not
            pixel = (seconds - last) / (pixels - before)
            self._pixel = min(max(pixel, 0.01 * seconds / pixels), seconds / pixels)
            self._each = seconds - self._pixel * pixels
        else:
            change = 0.5 + 0.5 * seconds / self.cost(pixels)
            self._each, self._pixel = self._each * change, self._pixel * change
        self.known, self._last = True, (pixels, seconds)
        # Tiles that are hardly more than what each of them costs would make a picture late, and no tile short.
        room = max(TILE, 2 * self._each) - self._each
        self.pixels = int(min(max(room / self._pixel, self.pixels / 4, 1), self.pixels * 4))

    def cost(self, pixels: int) -> float:
        """Seconds that so many take at once; infinite where nothing is known."""
        return self._each + self._pixel * pixels if self.known else math.inf

    def total(self, pixels: int) -> float:
        """Seconds that so many take in tiles."""
        return self.cost(pixels) + self._each * (max(1.0, pixels / self.pixels) - 1)

    def coarse(self, width: int, height: int) -> tuple[int, int]:
        """The size of a picture that can be drawn at once, of the shape of a larger one; that itself where it can."""
        # Twice a tile is what it should come to; no more than that, as long as little is known.
        scale = (2 * self.pixels / (width * height)) ** 0.5 if self.known else 0.25
        scale = min(1.0, max(scale, SMALLEST / min(width, height)))
        return max(1, round(width * scale)), max(1, round(height * scale))


class Painting:
    """One picture: what of it is drawn, and what that took. All but the encoding happens where the view may be asked.

    Args:
        view: what is drawn.
        window: all of the picture; its `box` is not looked at.
        pace: what pixels cost; kept from picture to picture.
        at_once: whether it is small enough to be drawn as one tile.
    """

    def __init__(self, view: LiveView, window: Window, pace: Pace, *, at_once: bool = False) -> None:
        self.view, self.window, self.pace = view, window, pace
        self.at_once = at_once or view.whole
        self.ready = False
        """Whether the view had all that it needs (see `LiveView.prepare`)."""
        self.seconds = 0.0
        self.first_step = self.last_step = 0
        """After which steps its first and its last tile were drawn."""
        self.figures: dict[str, float] = {}
        self._canvas: Pixels | None = None
        self._done = 0
        self._prepared = self._judged = False

    @property
    def whole(self) -> bool:
        """Whether nothing is left to be done."""
        return self._judged

    def go_on(self, step: int) -> None:
        """Do the next piece: prepare, draw a tile or find the figures. `step` is what the run has come to."""
        began = perf_counter()
        if not self._prepared:
            if self.seconds == 0:
                self.first_step = step
            self.ready = self.view.prepare(self.window)
            # Several pieces for one picture: to draw and send it for each would take most of the time.
            late = self.seconds + perf_counter() - began >= PREPARING
            self._prepared = self.ready or late or self.at_once or self.window.moving
        elif self._canvas is None or self._done < self.window.width * self.window.height:
            self._draw()
            self.last_step = step
        else:
            if not self.window.moving:
                self.figures = {name: float(value) for name, value in self.view.figures(self.window).items()}
            self._judged = True
        self.seconds += perf_counter() - began

    @property
    def picture(self) -> Pixels:
        """What there is of it: (H, W) or (H, W, C) uint8."""
        assert self._canvas is not None
        return self._canvas

    def _draw(self) -> None:
        width, height = self.window.width, self.window.height
        box = (0, 0, width, height) if self.at_once else tile(width, height, self._done, self.pace.pixels)
        began = perf_counter()
        drawn = to_uint8(_array(self.view.draw(replace(self.window, box=box))))
        left, top, right, bottom = box
        size = (bottom - top, right - left)
        if not self.view.whole:
            if drawn.shape[:2] != size:
                raise UsageError(f"draw(window) gave {drawn.shape[1]} x {drawn.shape[0]} pixels for a box of {size[1]} "
                                 f"x {size[0]}: draw what window.box asks for, or set whole = True")  # fmt: skip
            self.pace.took(size[0] * size[1], perf_counter() - began)
        if self.view.whole or size == (height, width):
            self._canvas, self._done = drawn, width * height
            return
        if self._canvas is None:
            self._canvas = np.zeros((height, width, drawn.shape[2]), np.uint8)
        self._canvas[top:bottom, left:right] = drawn
        self._done += size[0] * size[1]


def _array(picture: Any) -> Any:
    """A tensor of any device as an array; anything else as it is."""
    if hasattr(picture, "detach"):
        picture = picture.detach().cpu()
        return (picture.float() if picture.is_floating_point() else picture).numpy()
    return picture


def encoded(picture: Pixels, *, lossless: bool) -> tuple[Literal["jpeg", "png"], bytes]:
    """A picture as the bytes of a file: JPEG, or where no value may change or it is transparent, PNG."""
    from PIL import Image

    image = Image.fromarray(picture[:, :, 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture)
    buffer = io.BytesIO()
    if lossless or image.mode == "RGBA":
        image.save(buffer, "PNG", compress_level=1)
        return "png", buffer.getvalue()
    image.save(buffer, "JPEG", quality=QUALITY)
    return "jpeg", buffer.getvalue()
