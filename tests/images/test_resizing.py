"""Resizing: Pillow's own bits for 8-bit pictures, and the same picture in more bits or channels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from treadle.images.resizing import resize

SIDES = st.integers(1, 20)


def noise(height, width, channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@settings(deadline=None, max_examples=50)
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([1, 3, 4]), st.booleans())
def test_8_bits_are_what_pillow_makes_of_them(height, width, rows, columns, channels, nearest):
    picture = noise(height, width, channels)
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    image = Image.fromarray(picture[:, :, 0] if channels == 1 else picture)
    expected = np.asarray(image.resize((columns, rows), method)).reshape(rows, columns, channels)
    np.testing.assert_array_equal(resize(picture, (rows, columns), nearest=nearest), expected)


@settings(deadline=None, max_examples=50)
@given(SIDES, SIDES, SIDES, SIDES, st.integers(1, 6))
def test_more_bits_and_channels_are_the_same_picture_only_finer(height, width, rows, columns, channels):
    picture = noise(height, width, channels) // 4 + 96  # so that nothing overshoots: 8 bits are cut after each pass
    coarse = np.concatenate(
        [resize(picture[:, :, c : c + 1], (rows, columns)) for c in range(channels)], axis=2
    ).astype(float)
    deep = resize(picture.astype(np.uint16) * 257, (rows, columns))
    floats = resize(picture.astype(np.float32) / 255, (rows, columns))
    many = resize(picture, (rows, columns)) if channels not in (3, 4) else coarse
    assert (deep.dtype, floats.dtype) == (np.uint16, np.float32)
    assert deep.shape == floats.shape == (rows, columns, channels)
    for found in (deep / 257, floats.clip(0, 1) * 255, many):
        assert np.abs(found - coarse).max() <= 2  # and rounded


@settings(deadline=None, max_examples=50)
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([np.uint8, np.uint16, np.float32]), st.integers(1, 5))
def test_nearest_invents_no_number(height, width, rows, columns, kind, channels):
    picture = (noise(height, width, channels).astype(kind) * kind(100)).astype(kind)
    found = resize(picture, (rows, columns), nearest=True)
    assert found.dtype == kind
    pixels = {tuple(pixel) for pixel in picture.reshape(-1, channels).tolist()}
    assert {tuple(pixel) for pixel in found.reshape(-1, channels).tolist()} <= pixels


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_what_fits_is_given_back(kind):
    picture = noise(4, 5, 2).astype(kind)
    assert resize(picture, (4, 5)) is picture


def test_whole_numbers_stay_within_their_type():
    edge = np.zeros((16, 16, 1), np.uint16)
    edge[:, 8:] = 65535
    found = resize(edge, (16, 64))  # bicubic overshoots on both sides of an edge
    assert found.min() == 0 and found.max() == 65535
    assert (np.diff(found[0, :, 0].astype(int)) > -3000).all()  # nothing wrapped around
