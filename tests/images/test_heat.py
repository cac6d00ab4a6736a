from __future__ import annotations

import numpy as np

from treadle.images.heat import BLACK_BODY, heat, scale_bar, stamped


def test_colours_rise_from_black_to_white() -> None:
    colors = heat(np.linspace(-0.5, 1.5, 50))
    assert np.array_equal(colors[0], BLACK_BODY[0]) and np.array_equal(colors[-1], BLACK_BODY[-1])
    assert (np.diff(colors @ (0.3, 0.59, 0.11)) >= -1e-9).all()


def test_a_scale_has_the_colours_between_its_ends() -> None:
    bar = scale_bar("0", "0.1 dB", first=1.0, last=0.5)
    middle = bar[bar.shape[0] // 2].astype(int)
    for share in (1.0, 0.5):
        wanted = (heat(np.array(share)) * 255 + 0.5).astype(int)
        assert (np.abs(middle - wanted).max(1) <= 1).any()
    assert not (np.abs(middle - [0, 0, 0]).max(1) == 0).any()


def test_a_stamp_comes_out_the_same_in_parts() -> None:
    picture, stamp = np.zeros((60, 200, 3), np.uint8), scale_bar("0", "1")
    whole = stamped(picture, (0, 0, 200, 60), 60, stamp)
    assert np.array_equal(whole[-stamp.shape[0] :, : stamp.shape[1]], stamp) and not whole[:-18].any()
    parts = picture.copy()
    for left, top, right, bottom in ((0, 0, 200, 45), (0, 45, 30, 46), (30, 45, 200, 46), (0, 46, 200, 60)):
        part = picture[top:bottom, left:right]
        parts[top:bottom, left:right] = stamped(part, (left, top, right, bottom), 60, stamp)
    assert np.array_equal(parts, whole) and not picture.any()
    assert stamped(picture[:50], (0, 0, 200, 50), 50, stamp) is not None
    assert not stamped(picture[:50], (0, 0, 200, 50), 50, stamp).any()  # too low for it
