"""The first batches of an epoch."""

from __future__ import annotations

import torch

from treadle.data.limit import batch_count, iterate
from treadle.data.stream import StreamFeed
from treadle.data.tensors import TensorFeed

FEED = TensorFeed(torch.arange(10), 3, shuffle=False)


def test_it_ends_at_the_limit_or_with_the_data() -> None:
    assert [len(batch) for batch in iterate(FEED, 0, limit=2)] == [3, 3]
    assert [len(batch) for batch in iterate(FEED, 0, 1, limit=2)] == [3]
    assert [len(batch) for batch in iterate(FEED, 0, limit=9)] == [3, 3, 3, 1] == [len(b) for b in iterate(FEED, 0)]
    assert list(iterate(FEED, 0, 2, limit=2)) == []


def test_it_is_exhausted_with_its_last_batch() -> None:
    for limit, taken in ((2, 2), (4, 4), (9, 4)):
        batches = iterate(FEED, 0, limit=limit)
        for k in range(taken):
            assert not batches.exhausted, k
            next(batches)
        assert batches.exhausted


def test_how_many_batches_that_are() -> None:
    assert [batch_count(FEED, limit) for limit in (None, 2, 9)] == [4, 2, 4]
    assert batch_count(StreamFeed(lambda epoch: range(4), 2), 1) is None
