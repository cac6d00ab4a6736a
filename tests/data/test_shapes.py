"""Batches of one shape: every sample once per epoch, a pure function of (seed, epoch)."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.data import ShapeBuckets
from treadle.errors import UsageError

SHAPES = st.lists(st.sampled_from([(4, 8), (8, 4), (4, 4)]), min_size=1, max_size=40)


@settings(deadline=None)
@given(SHAPES, st.integers(1, 6), st.booleans(), st.integers(0, 2**40), st.integers(0, 9))
def test_each_sample_comes_once_and_a_batch_has_one_shape(shapes, batch_size, shuffle, seed, epoch):
    buckets = ShapeBuckets(shapes, batch_size, shuffle=shuffle)
    batches = [batch.tolist() for batch in buckets.epoch(seed, epoch)]
    assert [batch.tolist() for batch in buckets.epoch(seed, epoch)] == batches
    assert len(batches) == len(buckets) and buckets.samples == len(shapes)
    assert sorted(chain(*batches)) == list(range(len(shapes)))
    assert all(1 <= len(batch) <= batch_size and len({shapes[i] for i in batch}) == 1 for batch in batches)
    if shuffle:
        assert len(batches) == sum(-(-shapes.count(shape) // batch_size) for shape in set(shapes))
    else:
        assert list(chain(*batches)) == list(range(len(shapes)))


def test_orders_differ_from_epoch_to_epoch_and_shapes_are_mixed():
    buckets = ShapeBuckets([(1, 2)] * 20 + [(2, 1)] * 20, 2)
    epochs = [[batch.tolist() for batch in buckets.epoch(0, epoch)] for epoch in range(3)]
    assert epochs[0] != epochs[1] != epochs[2] and {*map(len, epochs)} == {20}
    first = [batch[0] < 20 for batch in epochs[0]]
    assert first not in (sorted(first), sorted(first, reverse=True))


def test_dropped_short_batches_leave_no_shape_out():
    batches = ShapeBuckets("aaaaabbb", 2, drop_last=True).epoch(0, 0)
    assert [len(batch) for batch in batches] == [2, 2, 2]
    with pytest.raises(UsageError, match="only 1 samples have the shape b, fewer than one batch of 2, and drop_last"):
        ShapeBuckets("aaab", 2, drop_last=True)
    with pytest.raises(UsageError, match="no 2 samples in a row have one shape"):
        ShapeBuckets("abab", 2, drop_last=True, shuffle=False)
    with pytest.raises(UsageError, match="batch_size is 0"):
        ShapeBuckets("ab", 0)
    with pytest.raises(UsageError, match="empty"):
        ShapeBuckets([], 1)
