"""Numbers of pictures to those of networks and back: nothing is lost, in any type, range and number of channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from treadle.errors import UsageError
from treadle.gans.values import Values
from treadle.images.pixels import to_pixels, to_tensor, with_channels

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 7))


@settings(deadline=None, max_examples=50)
@given(SHAPES.flatmap(lambda shape: st.sampled_from(["uint8", "uint16"]).flatmap(lambda d: arrays.arrays(d, shape))))
def test_whole_numbers_come_back_to_the_last_bit(picture):
    values = Values(channels=picture.shape[2], dtype=str(picture.dtype))
    tensor = values.encode(picture)
    assert tensor.shape == (picture.shape[2], *picture.shape[:2]) and tensor.dtype == torch.float32
    assert tensor.min() >= -1 and tensor.max() <= 1
    back = values.decode(tensor)
    assert back.dtype == picture.dtype
    np.testing.assert_array_equal(back, picture)
    np.testing.assert_array_equal(values.decode(tensor[None, None]), picture[None, None])


def test_every_one_of_65536_values_comes_back():
    picture = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    values = Values(channels=1, dtype="uint16")
    tensor = values.encode(picture)
    assert (tensor.min(), tensor.max()) == (-1, 1) and len(tensor.unique()) == 65536
    np.testing.assert_array_equal(values.decode(tensor), picture)


@settings(deadline=None, max_examples=50)
@given(
    st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), arrays.arrays(np.float32, (3, 4, 2), elements=st.floats(0, 1, width=32))
)
def test_floats_come_back_within_a_trifle_of_their_range(low, width, shares):
    values = Values(channels=2, dtype="float32", range=(low, low + width))
    picture = (low + shares.astype(np.float64) * width).astype(np.float32)
    back = values.decode(values.encode(picture))
    assert back.dtype == np.float32
    rounding = np.spacing(np.float32(max(abs(low), abs(low + width))))  # of float32 itself, at numbers so large
    assert np.abs(back.astype(np.float64) - picture).max() <= width * 2**-23 + rounding


def test_what_8_bits_hold_is_encoded_as_ever():
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert torch.equal(Values().encode(picture), to_tensor(picture))
    made = torch.randn(2, 3, 4, 5)
    np.testing.assert_array_equal(Values().decode(made), to_pixels(made))
    np.testing.assert_array_equal(Values().shown(made), to_pixels(made))


def test_a_range_of_ones_own_is_what_the_network_sees_and_the_rest_is_cut_off():
    values = Values(channels=1, dtype="uint16", range=(100, 4196))
    picture = np.array([[[0], [100], [2148], [4196], [65535]]], np.uint16)
    assert values.encode(picture).flatten().tolist() == [-1, -1, 0, 1, 1]
    assert values.decode(torch.tensor([[[-3.0, 0.0, 1.0, float("nan")]]])).flatten().tolist() == [100, 2148, 4196, 100]
    assert values.describe() == "uint16 from 100 to 4196, 1 channel"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "float32"}, "floats have no range"),
        ({"dtype": "int8"}, "dtype is 'int8': expected 'uint8', 'uint16' or 'float32'"),
        ({"range": (5, 5)}, r"range is \[5, 5\]"),
        ({"range": (0, float("inf"))}, "range is"),
        ({"channels": 0}, "channels is 0"),
    ],
)
def test_what_is_no_range_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Values(**settings)


def test_another_type_or_number_of_channels_is_refused_and_conform_makes_it_fit():
    values = Values(channels=3, dtype="uint16")
    gray = np.array([[[0], [128], [255]]], np.uint8)
    with pytest.raises(UsageError, match=r"the picture is uint8 of shape \(1, 3, 1\): expected uint16 \(H, W, 3\)"):
        values.encode(gray)
    fitted = values.conform(gray)
    assert fitted.dtype == np.uint16 and fitted[0, :, 2].tolist() == [0, 128 * 257, 65535]
    np.testing.assert_array_equal(Values(channels=1).conform(fitted), gray)
    assert values.conform(fitted) is fitted
    floats = Values(channels=1, dtype="float32", range=(0, 9))
    assert floats.conform(np.array([[[7]]], np.uint16)).tolist() == [[[7.0]]]
    assert values.conform(np.full((1, 1, 3), 0.5, np.float32)).tolist() == [[[32768] * 3]]
    with pytest.raises(UsageError, match=r"floats from 0 to 1\.5 cannot be uint16"):
        values.conform(np.array([[[0.0], [1.5]]], np.float32))
    with pytest.raises(UsageError, match="the picture has 5 channels, not 3"):
        values.conform(np.zeros((1, 1, 5), np.uint16))


@settings(deadline=None, max_examples=50)
@given(arrays.arrays(np.uint8, (3, 4, 4)), st.sampled_from([1, 3, 4]), st.sampled_from([1, 3, 4]))
def test_deep_channels_become_one_another_as_those_of_8_bits_do(picture, given, wanted):
    picture = picture[:, :, :given]
    expected = with_channels(picture, wanted).astype(float)
    deep = with_channels(picture.astype(np.uint16) * 257, wanted)
    assert deep.dtype == np.uint16 and deep.shape == expected.shape
    assert np.abs(deep / 257 - expected).max() <= 1.01  # 8 bits round twice
    floats = with_channels(picture.astype(np.float32) / 255, wanted)
    assert floats.dtype == np.float32 and np.abs(floats * 255 - expected).max() <= 1.01


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 12])
def test_any_number_of_channels_can_be_looked_at(channels):
    values = Values(channels=channels, dtype="uint16", range=(0, 1000))
    equal = values.shown(values.encode(np.full((2, 2, channels), 500, np.uint16)))
    assert equal.shape[2] in (1, 3, 4) and equal.dtype == np.uint8 and set(np.unique(equal)) == {128}
    for changed in range(channels):
        picture = np.zeros((1, 1, channels), np.uint16)
        picture[..., changed] = 1000
        assert values.shown(values.encode(picture)).max() >= 255 // channels  # none is invisible
    if channels > 4:
        first, last = (np.zeros((1, 1, channels), np.uint16) for _ in range(2))
        first[..., 0], last[..., -1] = 1000, 1000
        red, blue = (values.shown(values.encode(each))[0, 0].tolist() for each in (first, last))
        assert red[0] > 0 == red[2] and blue[2] > 0 == blue[0]
