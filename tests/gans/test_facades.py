"""House fronts: pure, the same house at every size, the picture a function of the labels, learnable from near by."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import UsageError
from treadle.gans.facades import LABELS, facade, facades, render

KNOWN = {tuple(colour) for colour in LABELS.values()}
seeds = st.integers(0, 2**63 - 1)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(0, 10**6), st.integers(32, 130))
def test_a_facade_is_a_pure_function_of_its_arguments_and_the_picture_one_of_the_labels(seed, index, size):
    labels, picture = facade(seed, index, size)
    again, _ = facade(seed, index, size)
    assert labels.shape == picture.shape == (size, size, 3)
    assert labels.dtype == picture.dtype == np.uint8
    assert np.array_equal(labels, again)
    assert np.array_equal(render(labels), picture)
    assert {tuple(colour) for colour in np.unique(labels.reshape(-1, 3), axis=0)} <= KNOWN


def test_facades_are_the_first_ones_and_all_different():
    labels, pictures = facades(3, 40, 32)
    assert labels.shape == pictures.shape == (40, 32, 32, 3)
    for index in (0, 7, 39):
        assert np.array_equal(labels[index], facade(3, index, 32)[0])
        assert np.array_equal(pictures[index], facade(3, index, 32)[1])
    assert len({one.tobytes() for one in labels}) == 40
    assert not np.array_equal(labels, facades(4, 40, 32)[0])


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(0, 1000))
def test_a_house_is_the_same_house_at_every_size(seed, index):
    small = facade(seed, index, 64)[0]
    for factor in (2, 4):
        large = facade(seed, index, 64 * factor)[0].reshape(64, factor, 64, factor, 3)
        agreeing = (large == small[:, None, :, None]).all(axis=4)
        assert agreeing.mean() > 0.97  # all but the slanted and round edges


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(0, 1000), st.sampled_from([32, 64, 96, 128, 200]))
def test_the_picture_of_the_mirror_image_is_the_mirror_image_of_the_picture(seed, index, size):
    """Flips, which training adds, ask for nothing that cannot be known from the labels."""
    labels, picture = facade(seed, index, size)
    difference = render(labels[:, ::-1]).astype(int) - picture[:, ::-1]
    assert (np.abs(difference) <= 1).all(axis=2).mean() > 0.995


def test_the_data_set_stays_the_same():
    labels, _ = facades(0, 8, 64)
    assert hashlib.sha256(labels.tobytes()).hexdigest()[:16] == "9ed2a0c128773e92"


def test_every_label_occurs_and_has_its_own_colour():
    labels, _ = facades(0, 150, 64)
    assert {tuple(colour) for colour in np.unique(labels.reshape(-1, 3), axis=0)} == KNOWN
    assert len(KNOWN) == len(LABELS)


def test_a_picture_depends_on_labels_near_by_only():
    """Changing the labels in a corner leaves the picture elsewhere as it was, but for the elements that are cut."""
    labels, picture = facade(5, 3, 64)
    changed = labels.copy()
    changed[:12, :12] = LABELS["brick"]
    differs = (render(changed) != picture).any(axis=2)
    assert differs[:12, :12].any()
    assert not differs[44:, 44:].any()


@pytest.mark.parametrize("noise", [0, 20])
def test_label_maps_with_noise_such_as_jpegs_are_read_as_their_nearest_labels(noise):
    labels, picture = facade(1, 2, 64)
    noisy = labels.astype(int) + np.random.default_rng(0).integers(-noise, noise + 1, labels.shape)
    assert np.array_equal(render(noisy.clip(0, 255).astype(np.uint8)), picture)


@pytest.mark.parametrize("size", [0, 31, 513, 64.0])
def test_a_size_that_makes_no_house_is_refused(size):
    with pytest.raises(UsageError, match=r"expected a whole number of pixels from 32 to 512"):
        facade(0, 0, size)
