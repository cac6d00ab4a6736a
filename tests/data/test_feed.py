"""The door for loops of one's own: `for batch in feed.epoch(n)`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from treadle.data.dataset import DatasetFeed
from treadle.data.feed import Feed
from treadle.data.stream import StreamFeed
from treadle.data.tensors import TensorFeed
from treadle.errors import UsageError


def numbers(epoch: int) -> Iterator[int]:
    yield from range(100 * epoch, 100 * epoch + 11)


def feeds() -> list[Feed]:
    return [
        TensorFeed(torch.arange(11), 3, seed=4),
        DatasetFeed([torch.tensor(k) for k in range(11)], 3, seed=4),
        StreamFeed(numbers, 3),
    ]


@pytest.mark.parametrize("feed", feeds(), ids=lambda feed: type(feed).__name__)
def test_an_epoch_is_iterated_by_its_number_and_goes_on_in_its_middle(feed: Feed) -> None:
    batches = [batch.tolist() for batch in feed.epoch(3)]
    assert batches == [batch.tolist() for batch in feed.iterate(3)]
    assert [batch.tolist() for batch in feed.epoch(3, start=2)] == batches[2:]
    assert [batch.tolist() for batch in feed.epoch(3, start=4)] == [], "an epoch that is over"
    assert [batch.tolist() for batch in feed.epoch(2)] != batches


@pytest.mark.parametrize("feed", feeds(), ids=lambda feed: type(feed).__name__)
def test_a_feed_without_its_epoch_is_refused_by_name(feed: Feed) -> None:
    with pytest.raises(UsageError, match=rf"{type(feed).__name__} has another order .* in feed\.epoch\(n\)"):
        list(feed)


@pytest.mark.parametrize(("epoch", "start"), [(-1, 0), (0, -1), (1.0, 0), (True, 0), (0, None)])
def test_numbers_that_count_nothing_are_refused(epoch: Any, start: Any) -> None:
    with pytest.raises(UsageError, match="expected a whole number from 0 on"):
        feeds()[0].epoch(epoch, start)


def test_a_position_that_the_data_cannot_have_is_refused() -> None:
    """As where a loop goes on with other data, or another batch size: it would be over without a word."""
    with pytest.raises(UsageError, match="TensorFeed has 4 batches an epoch, but 5 of epoch 2 are said to be done"):
        feeds()[0].epoch(2, start=5)
