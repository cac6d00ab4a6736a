from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import UsageError
from treadle.gans.panels import LONGEST, shown, triplets

pytest.importorskip("PIL")


def flat(colour, size=(128, 128)):
    """A picture of one colour, a tuple of as many channels."""
    return np.broadcast_to(np.array(colour, np.uint8), (*size, len(colour))).copy()


RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def where(panel, colour):
    """Top, bottom, left and right of a colour in a panel."""
    rows, columns = np.nonzero((panel == colour).all(axis=2))
    assert len(rows), f"{colour} is not there"
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def test_input_output_and_target_stand_in_a_row_in_full():
    panel = triplets([flat(RED)], [flat(GREEN)], [flat(BLUE)])
    assert panel.dtype == np.uint8
    places = [where(panel, colour) for colour in (RED, GREEN, BLUE)]
    for top, bottom, left, right in places:
        assert (bottom - top, right - left) == (128, 128)
    assert len({place[:2] for place in places}) == 1
    assert places[0][3] < places[1][2] < places[1][3] < places[2][2]
    assert panel.shape[1] - places[2][3] == places[0][2]  # the same margin left and right


def test_captions_stand_above():
    plain = triplets([flat(RED)], [flat(GREEN)], [flat(BLUE)], captions=("", "", ""))
    panel = triplets([flat(RED)], [flat(GREEN)], [flat(BLUE)], captions=("labels", "", "photo"))
    changed = (panel != plain).any(axis=2)
    top = where(panel, RED)[0]
    assert not changed[top:].any()
    for colour, written in ((RED, True), (GREEN, False), (BLUE, True)):
        _, _, left, right = where(panel, colour)
        assert changed[:top, left:right].any() == written


def test_without_targets():
    panel = triplets([flat(RED)], [flat(GREEN)])
    assert panel.shape[1] < triplets([flat(RED)], [flat(GREEN)], [flat(BLUE)]).shape[1]
    assert where(panel, RED)[3] < where(panel, GREEN)[2]


def test_samples_stand_below_one_another_and_many_in_columns():
    colours = [(10 * index, 255, 0) for index in range(12)]
    pictures = [flat(colour) for colour in colours]
    few = triplets(pictures[:3], pictures[:3], pictures[:3])
    tops = [where(few, colour)[0] for colour in colours[:3]]
    assert tops == sorted(set(tops))
    many = triplets(pictures, pictures, pictures)
    assert 0.7 < many.shape[1] / many.shape[0] < 2.8
    places = [where(many, colour) for colour in colours]
    assert len({place[:2] for place in places}) < 12
    assert [place[0] for place in places] == sorted(place[0] for place in places)  # read in rows


def test_small_pictures_are_enlarged_by_whole_factors():
    rng = np.random.default_rng(0)
    small = rng.integers(1, 200, (30, 20, 3), dtype=np.uint8)
    panel = triplets([flat(RED, (30, 20))], [small], [flat(BLUE, (30, 20))])
    top, bottom, _, left = where(panel, RED)
    right = where(panel, BLUE)[2]
    part = panel[top:bottom, left + 4 : right - 4]
    np.testing.assert_array_equal(part, small.repeat(5, axis=0).repeat(5, axis=1))


def test_large_and_many_pictures_are_scaled_down():
    large = flat(RED, (1000, 500))
    top, bottom, left, right = where(triplets([large], [large * 0]), RED)
    assert (bottom - top, right - left) == (384, 192)
    assert max(triplets([large] * 120, [large] * 120).shape) < 1.2 * LONGEST


def test_sizes_may_differ():
    panel = triplets([flat(RED, (64, 128))], [flat(GREEN, (128, 128))], [flat(BLUE, (300, 200))])
    heights = [where(panel, colour) for colour in (RED, GREEN, BLUE)]
    assert [bottom - top for top, bottom, _, _ in heights] == [64 * 1, 128 * 1, 300]


def test_shown():
    assert shown(flat((7,)))[0, 0].tolist() == [7, 7, 7]
    assert shown(flat(RED))[0, 0].tolist() == list(RED)
    assert shown(flat((*RED, 255)))[0, 0].tolist() == list(RED)
    assert shown(flat((7, 255)))[0, 0].tolist() == [7, 7, 7]
    for colours in (flat((*RED, 0)), flat((7, 0))):
        board = shown(colours)
        assert {tuple(colour) for colour in board.reshape(-1, 3)} == {(190,) * 3, (230,) * 3}
    assert shown(flat((0, 0, 0, 128)))[0, 0].tolist() == [115, 115, 115]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4)), min_size=3, max_size=3),
)
def test_any_shapes(count, shapes):
    columns = [[np.full(shape, 9, np.uint8)] * count for shape in shapes]
    panel = triplets(*columns)
    assert panel.ndim == 3
    assert panel.shape[2] == 3
    assert panel.shape[0] > 24


def test_refusals():
    with pytest.raises(UsageError, match="as many inputs as outputs and targets, not 0, 0, 0"):
        triplets([], [], [])
    with pytest.raises(UsageError, match="not 1, 2"):
        triplets([flat(RED)], [flat(RED)] * 2)
    with pytest.raises(UsageError, match=r"shape \(3, 128\) and type uint8"):
        triplets([flat(RED)[:, :, 0][:3]], [flat(RED)])
    with pytest.raises(UsageError, match="type float32"):
        triplets([flat(RED).astype(np.float32)], [flat(RED)])
