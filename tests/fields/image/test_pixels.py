from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import UsageError
from treadle.fields.hash_field import pixel_centres
from treadle.fields.image.pixels import PixelFeed, z_order


def feed_of(height, width, batch_size, seed=None):
    values = torch.arange(float(height * width))[:, None]
    return PixelFeed(pixel_centres(height, width), values, height, width, batch_size, seed=seed)


def epoch_of(feed, epoch, start=0):
    return [values[:, 0].tolist() for _, values in feed.iterate(epoch, start)]


def test_z_order_keeps_neighbours_together():
    assert z_order(4, 4)[:8].tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    assert sorted(z_order(5, 9)) == list(range(45))
    steps = np.diff(np.array(np.divmod(z_order(64, 64), 64)), axis=1)
    assert np.abs(steps).mean() < 1.2


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 17), st.integers(1, 17), st.integers(1, 400), st.integers(0, 5))
def test_every_epoch_takes_each_pixel_once_in_batches_of_one_size(height, width, batch_size, epoch):
    feed = feed_of(height, width, batch_size)
    batches = epoch_of(feed, epoch)
    assert sorted(pixel for batch in batches for pixel in batch) == list(range(height * width))
    assert len(batches) == feed.batches
    assert max(map(len, batches)) <= batch_size
    assert max(map(len, batches)) - min(map(len, batches)) <= 1
    assert feed.samples == height * width


def test_points_and_values_belong_together():
    feed = feed_of(6, 5, 7)
    places = pixel_centres(6, 5)
    for points, values in feed.iterate(0):
        assert torch.equal(points, places[values[:, 0].long()])


def test_a_batch_is_spread_over_the_picture():
    for points, _ in feed_of(32, 32, 64).iterate(0):
        cells = ((points + 1) * 4).long()  # 8 x 8 cells of 4 x 4 pixels: a run of 16 pixels is one of them
        assert len({tuple(cell) for cell in cells.tolist()}) == 64


def test_order_is_a_function_of_seed_and_epoch():
    feed = feed_of(8, 8, 10)
    feed.bind(3, "cpu")
    again = feed_of(8, 8, 10)
    again.bind(3, "cpu")
    assert epoch_of(feed, 1) == epoch_of(again, 1)
    assert epoch_of(feed, 1) != epoch_of(feed, 0)
    again.bind(4, "cpu")
    assert epoch_of(feed, 1) != epoch_of(again, 1)
    own = feed_of(8, 8, 10, seed=9)
    own.bind(3, "cpu")
    assert own.seed == 9


def test_it_goes_on_from_any_batch_and_knows_its_end():
    feed = feed_of(9, 7, 10)
    whole = epoch_of(feed, 2)
    for start in range(feed.batches + 1):
        assert epoch_of(feed, 2, start) == whole[start:]
    batches = feed.iterate(0, feed.batches - 1)
    assert not batches.exhausted
    next(batches)
    assert batches.exhausted
    with pytest.raises(StopIteration):
        next(batches)


def test_the_fingerprint_is_that_of_the_pixels():
    feed = feed_of(6, 6, 5)
    assert feed.fingerprint() == feed_of(6, 6, 9).fingerprint()
    feed.values[3] += 1
    assert feed.fingerprint() != feed_of(6, 6, 5).fingerprint()


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    epoch_of(feed_of(6, 6, 5), 0)
    assert torch.equal(before, torch.get_rng_state())


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="4 x 4 pixels need points"):
        PixelFeed(torch.zeros(15, 2), torch.zeros(16, 3), 4, 4, 8)
    with pytest.raises(UsageError, match="batch_size is 0"):
        feed_of(4, 4, 0)
