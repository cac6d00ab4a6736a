from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from treadle.data.convert import as_feed
from treadle.data.feed import Feed
from treadle.data.tensors import TensorFeed
from treadle.errors import StateError, UsageError

X = torch.arange(22.0).reshape(11, 2)
Y = torch.arange(11)


def drain(feed: Feed, epoch: int = 0, start: int = 0) -> list[Any]:
    return list(feed.iterate(epoch, start))


@given(st.integers(1, 40), st.integers(1, 12), st.booleans(), st.integers(0, 3), st.data())
def test_continues_anywhere(n: int, size: int, shuffle: bool, epoch: int, data: st.DataObject) -> None:
    feed = TensorFeed(torch.arange(n), size, shuffle=shuffle, seed=5)
    whole = drain(feed, epoch)
    assert len(whole) == feed.batches
    assert sorted(torch.cat(whole).tolist()) == list(range(n))
    start = data.draw(st.integers(0, len(whole)))
    rest = drain(feed, epoch, start)
    assert [b.tolist() for b in rest] == [b.tolist() for b in whole[start:]]


def test_more_batches_than_a_block() -> None:
    feed = TensorFeed(torch.arange(1001), 2, seed=1)
    whole = drain(feed, 3)
    assert len(whole) == 501 and sorted(torch.cat(whole).tolist()) == list(range(1001))
    assert torch.equal(torch.cat(drain(feed, 3, 300)), torch.cat(whole[300:]))


def test_exhausted_tells_the_last_batch() -> None:
    batches = TensorFeed(X, 4).iterate(0)
    flags = [batches.exhausted] + [batches.exhausted for _ in batches]
    assert flags == [False, False, False, True]
    assert TensorFeed(X, 4).iterate(0, 3).exhausted
    single = TensorFeed(X, 100).iterate(0)
    assert next(single).shape == (11, 2) and single.exhausted


def test_rows_stay_together_in_every_structure() -> None:
    pair = namedtuple("pair", "x y")
    for data in ((X, Y), {"x": X, "y": Y}, pair(X, Y), (X.numpy(), Y.numpy())):
        for batch in drain(TensorFeed(data, 4, seed=2)):
            assert type(batch) is type(data)
            x, y = batch.values() if isinstance(batch, dict) else batch
            assert torch.equal(x[:, 0], 2.0 * y)
    assert isinstance(drain(TensorFeed(X, 4))[0], torch.Tensor)


def test_seed_and_epoch_decide_the_order() -> None:
    orders = {tuple(torch.cat(drain(TensorFeed(Y, 4, seed=s), e)).tolist()) for s in (0, 1) for e in (0, 1)}
    assert len(orders) == 4
    assert torch.cat(drain(TensorFeed(Y, 4, shuffle=False), 9)).tolist() == list(range(11))


def test_drop_last() -> None:
    feed = TensorFeed(X, 4, drop_last=True)
    assert [len(b) for b in drain(feed)] == [4, 4] and feed.batches == 2 and feed.samples == 8


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_are_copies(shuffle: bool) -> None:
    x = torch.zeros(8, 2)
    for batch in drain(TensorFeed(x, 4, shuffle=shuffle)):
        batch.add_(1)
    assert not x.any()


def test_bind_keeps_an_explicit_seed() -> None:
    own, bound = TensorFeed(Y, 4, seed=3), TensorFeed(Y, 4)
    own.bind(7, "cpu")
    bound.bind(7, "cpu")
    assert (own.seed, bound.seed) == (3, 7)


def test_fingerprint_sees_every_byte_shape_and_dtype() -> None:
    x = torch.arange(21000.0).reshape(3000, 7)
    changed = x.clone()
    changed[-1, -1] += 1
    prints = [TensorFeed(t, 4).fingerprint() for t in (x, changed, x.reshape(7000, 3), x.view(torch.int32), x.double())]
    assert len(set(prints)) == 5
    assert TensorFeed(x.t().contiguous().t(), 8, seed=3).fingerprint() == prints[0]
    assert TensorFeed({"a": x}, 4).fingerprint() != TensorFeed({"b": x}, 4).fingerprint()


def test_read_only_and_reversed_arrays(recwarn: pytest.WarningsRecorder) -> None:
    array = np.arange(8.0)
    array.flags.writeable = False
    assert torch.cat(drain(TensorFeed(array, 4, shuffle=False))).tolist() == list(range(8))
    assert torch.cat(drain(TensorFeed(np.arange(8)[::-1], 4, shuffle=False))).tolist() == list(range(7, -1, -1))
    assert not recwarn.list


@pytest.mark.parametrize(
    ("data", "settings", "says"),
    [
        (torch.ones(0, 3), {}, "empty"),
        ((), {}, "no tensors"),
        ({"x": X, "y": Y[:5]}, {}, r"data\[y\] has 5 rows but data\[x\] has 11"),
        ((X, "text"), {}, r"data\[1\] is a str"),
        (torch.ones(()), {}, "no dimension"),
        (np.array(["a", "b"]), {}, "no type for"),
        (X, {"batch_size": 0}, "batch_size"),
        (X, {"batch_size": 12, "drop_last": True}, "set batch_size to at most 11"),
        (X, {"workers": -1}, "workers"),
        ([X, X], {}, "columns or samples"),
        ([], {}, "empty"),
        ("file.png", {}, "expected tensors"),
        (3, {}, "data is a int"),
    ],
)
def test_bad_data_is_refused_in_one_line(data: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        as_feed(data, **settings)
    assert "\n" not in str(caught.value)


def test_as_feed_takes_a_tensor_dataset_whole() -> None:
    feed = as_feed(torch.utils.data.TensorDataset(X, Y), batch_size=4)
    assert isinstance(feed, TensorFeed) and len(drain(feed)[0]) == 2
    assert as_feed(feed, batch_size=9) is feed


def test_state_it_cannot_have_is_refused() -> None:
    feed = TensorFeed(X, 4)
    feed.load_state_dict(feed.state_dict())
    with pytest.raises(StateError, match="position"):
        feed.load_state_dict({"position": 3})
