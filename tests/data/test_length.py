from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from treadle.data.length import LengthBuckets, pad_collate
from treadle.errors import UsageError

LENGTHS = st.lists(st.integers(0, 200), min_size=1, max_size=80)
LIMITS = st.one_of(
    st.tuples(st.integers(1, 12), st.none()),
    st.tuples(st.none(), st.integers(1, 900)),
    st.tuples(st.integers(1, 12), st.integers(1, 900)),
)


@given(LENGTHS, LIMITS, st.floats(0.02, 0.9), st.integers(0, 2**63 - 1), st.booleans())
def test_every_sample_once_within_the_limits(
    lengths: list[int], limits: tuple[int | None, int | None], padding: float, seed: int, shuffle: bool
) -> None:
    size, budget = limits
    buckets = LengthBuckets(lengths, size, max_elements=budget, max_padding=padding, shuffle=shuffle)
    for epoch in range(3):
        batches = buckets.epoch(seed, epoch)
        assert sorted(int(i) for batch in batches for i in batch) == list(range(len(lengths)))
        assert len(batches) == len(buckets)  # the same number in every epoch
        for batch in batches:
            assert len(batch) >= 1
            assert size is None or len(batch) <= size
            longest = max(lengths[i] for i in batch)
            # Over the budget only alone; below it with all padding.
            assert budget is None or len(batch) == 1 or len(batch) * longest <= budget


@given(LENGTHS, st.integers(0, 2**63 - 1), st.integers(0, 9))
def test_order_is_decided_by_seed_and_epoch(lengths: list[int], seed: int, epoch: int) -> None:
    buckets = LengthBuckets(lengths, 4)
    first, second = buckets.epoch(seed, epoch), LengthBuckets(lengths, 4).epoch(seed, epoch)
    assert [b.tolist() for b in first] == [b.tolist() for b in second]


def test_epochs_mix_members_and_order() -> None:
    lengths = np.random.Generator(np.random.PCG64(0)).integers(30, 100, size=400)
    buckets = LengthBuckets(lengths, max_elements=2000)
    epochs = [buckets.epoch(0, e) for e in range(2)]
    assert {tuple(sorted(b)) for b in epochs[0]} != {tuple(sorted(b)) for b in epochs[1]}
    longest = [int(lengths[b].max()) for b in epochs[0]]
    assert longest != sorted(longest)
    still = LengthBuckets(lengths, 8, shuffle=False)
    assert [b.tolist() for b in still.epoch(0, 0)] == [b.tolist() for b in still.epoch(5, 3)]


def test_little_padding_and_well_filled() -> None:
    lengths = np.random.Generator(np.random.PCG64(0)).integers(30, 101, size=3000)
    buckets = LengthBuckets(lengths, 100)
    batches = buckets.epoch(0, 0)
    padded = sum(len(b) * lengths[b].max() for b in batches)
    assert 1 - lengths.sum() / padded < 0.1
    assert len(batches) <= 30 + 12
    budget = LengthBuckets(lengths, max_elements=6000)
    assert len(budget) <= 1.15 * lengths.sum() / 6000 + 1


def test_over_long_samples_stand_alone() -> None:
    batches = LengthBuckets([5, 500, 5, 700, 5], max_elements=100).epoch(0, 0)
    assert sorted(tuple(sorted(b.tolist())) for b in batches) == [(0, 2, 4), (1,), (3,)]


@pytest.mark.parametrize(
    ("lengths", "settings", "says"),
    [
        ([], {"batch_size": 2}, "at least one"),
        ([3, -1], {"batch_size": 2}, ">= 0"),
        ([1.5], {"batch_size": 2}, "whole numbers"),
        ([3], {}, "needs a batch_size or max_elements"),
        ([3], {"batch_size": 0}, "batch_size"),
        ([3], {"max_elements": 0}, "max_elements"),
        ([3], {"batch_size": 2, "max_padding": 1.0}, "max_padding"),
    ],
)
def test_bad_settings(lengths: list[Any], settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        LengthBuckets(lengths, **settings)


def test_pad_collate_pads_marks_and_counts() -> None:
    padded = pad_collate([torch.ones(2, 3), torch.ones(4, 3), torch.ones(0, 3)])
    assert padded.values.shape == (3, 4, 3) and padded.values.sum() == 18
    assert padded.lengths.tolist() == [2, 4, 0] and padded.mask.sum(1).tolist() == [2, 4, 0]
    assert padded.elements == 6


def test_pad_collate_keeps_the_structure_of_samples() -> None:
    collate = partial(pad_collate, value=-1.0)
    samples = [(torch.zeros(n, 2), torch.zeros(n, dtype=torch.int64), n, torch.zeros(5)) for n in (1, 3)]
    points, labels, label, fixed = collate(samples).values
    assert points.shape == (2, 3, 2) and points[0, 1:].eq(-1).all()
    assert labels.dtype == torch.int64 and labels[0].tolist() == [0, -1, -1]
    assert label.tolist() == [1, 3] and fixed.shape == (2, 5)
    named = pad_collate([{"x": np.ones(2), "name": "a"}, {"x": np.ones(1), "name": "b"}]).values
    assert named["x"].shape == (2, 2) and named["name"] == ["a", "b"]


def test_pad_collate_refuses_what_it_cannot_pad() -> None:
    with pytest.raises(UsageError, match="begins with str"):
        pad_collate(["text"])
    with pytest.raises(UsageError, match="first dimension only"):
        pad_collate([torch.ones(2, 3), torch.ones(2, 4)])
