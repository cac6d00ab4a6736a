from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from treadle.errors import UsageError
from treadle.reports.views import LiveView, Window
from treadle.studio.drawing.painting import FIRST, PREPARING, TILE, Pace, Painting, encoded


def shade(window: Window) -> Any:
    left, top, right, bottom = window.box
    rows, columns = np.mgrid[top:bottom, left:right]
    return np.stack([rows, columns, rows ^ columns], 2).astype(np.uint8)


class Clock:
    """Goes on by what things cost, and not by what else the machine does."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("treadle.studio.drawing.painting.perf_counter", clock)
    return clock


class Shade(LiveView):
    """A pattern that costs so many of a clock's seconds a pixel."""

    def __init__(self, clock: Clock | None = None, cost: float = 0.0) -> None:
        self.clock, self.cost, self.boxes = clock or Clock(), cost, []

    def draw(self, window: Window) -> Any:
        self.boxes.append(window.box)
        self.clock.now += self.cost * window.size[0] * window.size[1]
        return shade(window)

    def figures(self, window: Window) -> dict[str, float]:
        return {"psnr": 30.0}


def finish(painting: Painting, step: int = 0) -> Painting:
    while not painting.whole:
        painting.go_on(step)
        step += 1
    return painting


def whole(width: int, height: int, **more: Any) -> Window:
    return Window(width, height, (0, 0, width, height), **more)


def test_a_picture_in_tiles_is_the_picture(clock: Clock) -> None:
    view, window, pace = Shade(clock, 5e-5), whole(61, 43), Pace()
    painting = finish(Painting(view, window, pace))
    assert np.array_equal(painting.picture, shade(window)) and len(view.boxes) > 3
    assert painting.ready and painting.figures == {"psnr": 30.0}
    assert painting.seconds == pytest.approx(61 * 43 * 5e-5)
    assert (painting.first_step, painting.last_step) == (0, len(view.boxes))


@pytest.mark.parametrize(("each", "pixel"), [(0.0, 2e-4), (0.0, 1e-6), (0.012, 2e-5), (0.012, 5e-6)])
def test_tiles_come_to_take_as_long_as_they_should(each: float, pixel: float) -> None:
    pace, took = Pace(), []
    assert not pace.known and pace.pixels == FIRST and pace.cost(1) == math.inf
    for _ in range(8):
        pixels = min(pace.pixels, 20_000)
        took.append(each + pixel * pixels)
        pace.took(pixels, took[-1])
    assert pace.cost(1000) == pytest.approx(each + 1000 * pixel, rel=0.5)
    if pixel * 20_000 > TILE:
        assert took[-1] == pytest.approx(max(TILE, 2 * each), rel=0.5)
    else:
        assert pixels == 20_000
    assert max(took[1:]) < 4 * TILE


def test_tiles_follow_a_view_that_becomes_dearer_and_cheaper() -> None:
    pace = Pace()
    for pixel in (1e-6, 1e-4, 1e-5):
        for _ in range(12):
            pace.took(pace.pixels, 0.002 + pixel * pace.pixels)
        assert pace.cost(pace.pixels) == pytest.approx(TILE, rel=0.4)


def test_the_first_tile_is_a_small_one() -> None:
    view = Shade()
    painting = Painting(view, whole(200, 40), Pace())
    painting.go_on(0)
    painting.go_on(0)
    assert view.boxes == [(0, 0, 200, FIRST // 200)]


def test_a_coarse_picture_can_be_drawn_at_once() -> None:
    pace = Pace()
    for _ in range(10):
        pace.took(pace.pixels, pace.pixels * 1e-5)
    width, height = pace.coarse(1000, 500)
    assert width == pytest.approx(2 * height, abs=1) and pace.cost(width * height) == pytest.approx(2 * TILE, rel=0.2)
    for _ in range(10):
        pace.took(pace.pixels, pace.pixels * 1e-9)
    assert pace.coarse(1000, 500) == (1000, 500)
    assert Pace().coarse(1000, 500) == (250, 125)


def test_a_view_that_is_not_ready_says_so(clock: Clock) -> None:
    class Late(Shade):
        left = 5

        def prepare(self, window: Window) -> bool:
            self.left -= 1
            clock.now += 0.6 * PREPARING
            return self.left == 0

    view = Late()
    assert [finish(Painting(view, whole(8, 8), Pace())).ready for _ in range(3)] == [False, False, True]


def test_who_drags_a_picture_waits_for_one_piece_of_what_takes_long() -> None:
    class Late(Shade):
        pieces = 0

        def prepare(self, window: Window) -> bool:
            self.pieces += 1
            return self.pieces == 4

    dragged, still = Late(), Late()
    assert not finish(Painting(dragged, whole(8, 8, moving=True), Pace())).ready and dragged.pieces == 1
    assert finish(Painting(still, whole(8, 8), Pace())).ready and still.pieces == 4


def test_a_moving_picture_has_no_figures() -> None:
    assert finish(Painting(Shade(), whole(8, 8, moving=True), Pace())).figures == {}


def test_a_view_that_gives_another_size_is_told_what_to_do() -> None:
    class Wrong(LiveView):
        def draw(self, window: Window) -> Any:
            return np.zeros((3, 4, 3), np.uint8)

    with pytest.raises(UsageError, match=r"gave 4 x 3 pixels for a box of 8 x 8: draw what window\.box asks for"):
        finish(Painting(Wrong(), whole(8, 8), Pace()))
    Wrong.whole = True
    assert finish(Painting(Wrong(), whole(8, 8), Pace())).picture.shape == (3, 4, 3)


def test_tensors_are_pictures_too() -> None:
    class Tensors(LiveView):
        def draw(self, window: Window) -> Any:
            width, height = window.size
            return torch.full((height, width), 0.5, dtype=torch.bfloat16, requires_grad=True)

    assert (finish(Painting(Tensors(), whole(4, 4), Pace())).picture == 128).all()


def test_pictures_travel_as_jpeg_and_exact_ones_as_png() -> None:
    labels = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    kind, data = encoded(labels, lossless=True)
    assert kind == "png" and np.array_equal(np.asarray(Image.open(io.BytesIO(data))), labels[:, :, 0])
    kind, data = encoded(np.full((8, 8, 3), 90, np.uint8), lossless=False)
    assert (
        kind == "jpeg"
        and data[:2] == b"\xff\xd8"
        and abs(int(np.asarray(Image.open(io.BytesIO(data))).mean()) - 90) < 2
    )
    assert encoded(np.zeros((8, 8, 4), np.uint8), lossless=False)[0] == "png"
