"""Pictures side by side: as large as they fit, smaller ones as means or exact, captions, what is under a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from treadle.reports.cropping import EDGES, crop_of, crop_options
from treadle.reports.sheets import Cell, Sheet, SheetView
from treadle.reports.views import Window, chosen

rng = np.random.default_rng(0)
BINARY = (rng.random((64, 48)) > 0.5).astype(np.uint8) * np.uint8(255)


def window(width: int, height: int, **options: Any) -> Window:
    return Window(width, height, (0, 0, width, height), None, options)


def test_the_grid_is_that_in_which_pictures_are_largest() -> None:
    cells = [Cell("", BINARY) for _ in range(4)]  # 48 wide, 64 high
    assert [Sheet(cells, *size).across for size in ((900, 300), (500, 500), (100, 900))] == [4, 2, 1]
    sheet = Sheet(cells, 400, 533)
    places = [sheet.place(number) for number in range(4)]
    assert len({place[2:] for place in places}) == 1 and abs(places[0][2] / places[0][3] - 48 / 64) < 0.01
    for first, (left, top, width, height) in enumerate(places):
        assert min(left, top) >= 0 and left + width <= 400 and top + height <= 533
        for other_left, other_top, *_ in places[first + 1 :]:
            assert other_left >= left + width or other_top >= top + height  # none overlaps another


def test_pictures_that_are_scaled_down_are_means_or_exact() -> None:
    means = Sheet([Cell("", BINARY)], 24 + 6, 32 + 6).part(window(30, 38))[3:-3, 3:-3, 0]
    wanted = BINARY.reshape(32, 2, 24, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(means, wanted, atol=1)
    exact = Sheet([Cell("", BINARY)], 24 + 6, 32 + 6, exact=True).part(window(30, 38))[3:-3, 3:-3]
    assert set(np.unique(exact)) == {0, 255}


def test_zoomed_in_every_pixel_is_one_of_the_picture() -> None:
    sheet, asked = Sheet([Cell("", BINARY)], 24 + 6, 32 + 6), window(30, 38, zoom=8.0, x=0.4, y=0.6)
    part = sheet.part(asked)
    for x in range(0, 30, 7):
        for y in range(0, 38, 7):
            number, column, row = sheet.under(asked, x, y)
            assert number == 0 and part[y, x, 0] == BINARY[row, column]


def test_captions_are_cut_to_fit_and_left_out_where_there_is_no_room() -> None:
    cells = [Cell("a" * 99, BINARY), Cell("short", BINARY)]
    large, small = Sheet(cells, 300, 200), Sheet(cells, 90, 50)
    assert large.caption > 0 and small.caption == 0
    top = large.place(0)[1]
    strip = large.part(window(300, 200))[top - large.caption : top]
    assert (strip != 24).any() and (strip[:, [0, -1]] == (24, 25, 29)).all()
    assert Sheet([Cell("", BINARY)], 300, 200).caption == 0


class Two(SheetView):
    aligned = True

    def cells(self, window: Window) -> Sequence[Cell]:
        deep = BINARY.astype(np.uint16) * 257
        return [Cell("x", BINARY), Cell("y", BINARY, lambda column, row: {"depth": int(deep[row, column])})]


def test_aligned_pictures_tell_their_numbers_together() -> None:
    view = Two(lambda: 0)
    asked = window(400, 250, **chosen(Two(lambda: 0).options(), {}))
    left, top, width, height = view.sheet(asked).place(1)
    x, y = left + width // 3, top + height // 4
    found = view.inspect(asked, x, y)
    value = int(BINARY[found["row"], found["column"]])
    assert found == {"picture": "y", "column": 16, "row": 16, "x: value": value, "y: depth": value * 257}


def test_a_crop_box_cuts_only_where_a_side_was_moved() -> None:
    options = crop_options([-1.0, -2.0, -3.0], [1.0, 2.0, 3.0], "mm")
    assert [option.name for option in options] == list(EDGES) and options[4].label == "Crop y to, mm"
    values = {option.name: option.default for option in options}
    assert np.isinf(crop_of(values, options)).all()
    found = crop_of(values | {"x_low": 0.25, "z_high": 2.0}, options)
    assert found.tolist() == [[0.25, -np.inf, -np.inf], [np.inf, np.inf, 2.0]]
