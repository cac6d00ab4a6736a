from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import UsageError
from treadle.images import panels
from treadle.images.panels import panel

pytest.importorskip("PIL")


def flat(colour, size=(128, 128)):
    """A picture of one colour, a tuple of as many channels."""
    return np.broadcast_to(np.array(colour, np.uint8), (*size, len(colour))).copy()


RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def where(sheet, colour):
    """Top, bottom, left and right of a colour in a panel."""
    rows, columns = np.nonzero((sheet == colour).all(axis=2))
    assert len(rows), f"{colour} is not there"
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def test_input_output_and_target_stand_in_a_row_in_full():
    sheet = panel([(flat(RED), flat(GREEN), flat(BLUE))])
    assert sheet.dtype == np.uint8
    places = [where(sheet, colour) for colour in (RED, GREEN, BLUE)]
    for top, bottom, left, right in places:
        assert (bottom - top, right - left) == (128, 128)
    assert len({place[:2] for place in places}) == 1
    assert places[0][3] < places[1][2] < places[1][3] < places[2][2]
    assert sheet.shape[1] - places[2][3] == places[0][2]  # the same margin left and right


def test_captions_stand_above():
    plain = panel([(flat(RED), flat(GREEN), flat(BLUE))])
    sheet = panel([(flat(RED), flat(GREEN), flat(BLUE))], ("labels", "", "photo"))
    changed = (sheet != plain).any(axis=2)
    top = where(sheet, RED)[0]
    assert not changed[top:].any()
    for colour, written in ((RED, True), (GREEN, False), (BLUE, True)):
        _, _, left, right = where(sheet, colour)
        assert changed[:top, left:right].any() == written


def test_two_pictures_of_each_sample():
    sheet = panel([(flat(RED), flat(GREEN))])
    assert sheet.shape[1] < panel([(flat(RED), flat(GREEN), flat(BLUE))]).shape[1]
    assert where(sheet, RED)[3] < where(sheet, GREEN)[2]


def test_samples_stand_below_one_another_and_many_in_columns():
    colours = [(10 * index, 255, 0) for index in range(12)]
    pictures = [flat(colour) for colour in colours]
    few = panel([(picture,) * 3 for picture in pictures[:3]])
    tops = [where(few, colour)[0] for colour in colours[:3]]
    assert tops == sorted(set(tops))
    many = panel([(picture,) * 3 for picture in pictures])
    assert 0.7 < many.shape[1] / many.shape[0] < 2.8
    places = [where(many, colour) for colour in colours]
    assert len({place[:2] for place in places}) < 12
    assert [place[0] for place in places] == sorted(place[0] for place in places)  # read in rows


def test_small_pictures_are_enlarged_by_whole_factors():
    rng = np.random.default_rng(0)
    small = rng.integers(1, 200, (30, 20, 3), dtype=np.uint8)
    sheet = panel([(flat(RED, (30, 20)), small, flat(BLUE, (30, 20)))])
    top, bottom, _, left = where(sheet, RED)
    right = where(sheet, BLUE)[2]
    part = sheet[top:bottom, left + 4 : right - 4]
    np.testing.assert_array_equal(part, small.repeat(5, axis=0).repeat(5, axis=1))


def test_large_and_many_pictures_are_scaled_down(monkeypatch):
    large = flat(RED, (1000, 500))
    top, bottom, left, right = where(panel([(large, large * 0)]), RED)
    assert (bottom - top, right - left) == (384, 192)
    top, bottom, left, right = where(panel([(large, large * 0)], largest=600), RED)
    assert (bottom - top, right - left) == (600, 300)
    assert max(panel([(large, large)] * 8).shape) > 1200
    monkeypatch.setattr(panels, "LONGEST", 1000)
    assert max(panel([(large, large)] * 8).shape) < 1200


def test_sizes_may_differ():
    sheet = panel([(flat(RED, (64, 128)), flat(GREEN, (128, 128)), flat(BLUE, (300, 200)))])
    heights = [where(sheet, colour) for colour in (RED, GREEN, BLUE)]
    assert [bottom - top for top, bottom, _, _ in heights] == [64 * 1, 128 * 1, 300]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4)), min_size=3, max_size=3),
)
def test_any_shapes(count, shapes):
    sheet = panel([[np.full(shape, 9, np.uint8) for shape in shapes]] * count)
    assert sheet.ndim == 3
    assert sheet.shape[2] == 3
    assert sheet.shape[0] > 24


def test_floats_and_eight_bits_look_the_same():
    sheet = panel([(flat(RED), flat(RED) / 255)])
    middle = sheet.shape[1] // 2
    np.testing.assert_array_equal(sheet[30:140, middle - 60 : middle - 10], sheet[30:140, middle + 10 : middle + 60])


def test_a_caption_that_is_too_long_is_cut():
    sheet = panel([(flat(RED), flat(GREEN))], ("a very long caption " * 9, ""))
    left = where(sheet, GREEN)[2]
    assert (sheet[:20, left - 4 :] == 255).all()
    assert (sheet[:20, : left - 4] < 255).any()


def test_refusals():
    with pytest.raises(UsageError, match="each of as many pictures, not none"):
        panel([])
    with pytest.raises(UsageError, match=r"not \[0\]"):
        panel([()])
    with pytest.raises(UsageError, match=r"not \[1, 2\]"):
        panel([[flat(RED)], [flat(RED)] * 2])
    with pytest.raises(UsageError, match=r"shape \(3,\) and type uint8"):
        panel([[flat(RED)[0, 0]]])
    with pytest.raises(UsageError, match="type int64"):
        panel([[flat(RED).astype(np.int64)]])
