from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.data.sampler import FixedBatches, derive_seed, epoch_order, fixed_batches
from treadle.errors import UsageError

SEEDS = st.integers(0, 2**63 - 1)


def test_derived_seeds_never_change() -> None:
    assert derive_seed(0) == 6450899586159507901
    assert derive_seed(7, "order", 3) == 301709372215405121


@given(SEEDS, SEEDS)
def test_derived_seeds_are_63_bit_and_tell_parts_apart(seed: int, part: int) -> None:
    assert 0 <= derive_seed(seed, part) < 2**63
    kinds = [derive_seed(seed, part), derive_seed(seed, str(part)), derive_seed(seed), derive_seed(seed, part, part)]
    assert len(set(kinds)) == 4
    assert derive_seed(seed, "a", "b") != derive_seed(seed, "a|s1:b")


@given(st.integers(1, 300), SEEDS, st.integers(0, 50))
def test_order_is_a_permutation_decided_by_seed_and_epoch(n: int, seed: int, epoch: int) -> None:
    order = epoch_order(n, seed, epoch)
    assert sorted(order.tolist()) == list(range(n))
    assert np.array_equal(order, epoch_order(n, seed, epoch))


def test_order_changes_with_seed_and_epoch() -> None:
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@given(st.integers(1, 200), st.integers(1, 64), st.booleans(), st.booleans(), SEEDS)
def test_fixed_batches_hold_each_sample_once(n: int, size: int, shuffle: bool, drop: bool, seed: int) -> None:
    if drop and n < size:
        with pytest.raises(UsageError, match="fewer than one batch"):
            FixedBatches(n, size, shuffle=shuffle, drop_last=drop)
        return
    batching = FixedBatches(n, size, shuffle=shuffle, drop_last=drop)
    batches = batching.epoch(seed, 2)
    seen = [int(index) for batch in batches for index in batch]
    assert len(batches) == len(batching) and len(seen) == batching.samples == len(set(seen))
    assert all(len(batch) == size for batch in batches[:-1])
    assert len(batches[-1]) == (size if drop or n % size == 0 else n % size)
    if not drop:
        assert set(seen) == set(range(n))
    if not shuffle:
        assert seen == list(range(len(seen)))


def test_fixed_batches_is_a_sequence() -> None:
    batches = fixed_batches(np.arange(10), 4)
    assert [len(b) for b in batches] == [4, 4, 2]
    assert batches[-1].tolist() == [8, 9] and [b.tolist() for b in batches[1:]] == [[4, 5, 6, 7], [8, 9]]
    with pytest.raises(IndexError):
        batches[3]


@pytest.mark.parametrize("size", [0, -1, True, 2.0])
def test_batch_size_out_of_range(size: object) -> None:
    with pytest.raises(UsageError, match="batch_size"):
        FixedBatches(10, size)  # type: ignore[arg-type]
