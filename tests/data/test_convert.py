"""What people have, and the feed that it becomes."""

from __future__ import annotations

import pytest
import torch

from treadle.data.convert import as_feed
from treadle.errors import UsageError


def ready(count=5):
    return [(torch.full((3, 2), float(k)), torch.full((3,), k)) for k in range(count)]


class Loader:
    """Not torch's, but it says how large its batches are."""

    batch_size = 3

    def __iter__(self):
        return iter(ready())


@pytest.mark.parametrize("data", [ready(), lambda epoch: ready(), Loader()], ids=["list", "function", "loader"])
def test_ready_batches_are_not_joined_a_second_time(data) -> None:
    feed = as_feed(data, batch_size=None, shuffle=False)
    batches = list(feed.iterate(0))
    assert [(x.shape, int(y[0])) for x, y in batches] == [((3, 2), k) for k in range(5)]
    assert [int(y[0]) for _, y in feed.iterate(1, 3)] == [3, 4]


def test_a_list_of_ready_batches_is_shuffled_and_lent_to_nobody() -> None:
    data = ready()
    feed = as_feed(data, batch_size=None, seed=3)
    order = [int(y[0]) for _, y in feed.iterate(0)]
    assert sorted(order) == [0, 1, 2, 3, 4] != order and feed.batches == 5
    for x, y in feed.iterate(0):
        x.zero_()
        y.zero_()
    assert [int(y[0]) for _, y in feed.iterate(0)] == order


def test_a_list_of_tensors_may_be_ready_batches_too() -> None:
    feed = as_feed([torch.zeros(2), torch.ones(3)], batch_size=None, shuffle=False)
    assert [len(batch) for batch in feed.iterate(0)] == [2, 3]


def test_what_seems_to_give_batches_is_not_joined_unasked() -> None:
    with pytest.raises(UsageError, match=r"data is a Loader with a batch_size of its own.*say batch_size=None"):
        as_feed(Loader(), batch_size=3)


def test_tensors_have_samples_and_no_ready_batches() -> None:
    with pytest.raises(UsageError, match="no ready batches: give a batch_size"):
        as_feed(torch.ones(4), batch_size=None)
