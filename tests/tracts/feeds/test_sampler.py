from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import UsageError
from treadle.tracts.feeds.sampler import LineBatches


@st.composite
def cases(draw):
    counts = draw(st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any))
    subjects = np.repeat(np.arange(len(counts)), counts)
    by_cost = draw(st.booleans())
    costs = np.array(draw(st.lists(st.floats(0, 60), min_size=len(subjects), max_size=len(subjects))))
    return {
        "subjects": subjects,
        "costs": costs if by_cost else None,
        "budget": draw(st.floats(0.5, 80)) if by_cost else draw(st.integers(1, 20)),
        "subjects_per_batch": draw(st.none() | st.integers(1, 4)),
        "cycles": draw(st.integers(1, 3)),
        "shuffle": draw(st.booleans()),
    }


SEEDS = st.integers(0, 2**40)


@given(cases(), SEEDS, st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_every_line_comes_once_and_budgets_are_kept(case, seed, epoch):
    sampler = LineBatches(**case)
    batches = sampler.epoch(seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(case["subjects"])))
    for batch in batches:
        assert (np.diff(batch) > 0).all()
        cost = len(batch) if case["costs"] is None else case["costs"][batch].sum()
        assert cost <= case["budget"] * (1 + 1e-12) or len(batch) == 1
        assert len(np.unique(case["subjects"][batch])) <= (case["subjects_per_batch"] or 99)
    assert sampler.count in (None, len(batches)) and 1 <= len(sampler) <= len(batches)
    assert sampler.samples == len(case["subjects"])


@given(cases(), SEEDS, st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_the_order_is_a_pure_function_of_seed_and_epoch(case, seed, epoch):
    one, other = LineBatches(**case), LineBatches(**case)
    other.epoch(seed, epoch + 1)
    for ours, theirs in zip(one.epoch(seed, epoch), other.epoch(seed, epoch), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(cases(), SEEDS, st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_an_epoch_may_be_cut(case, seed, most):
    whole, cut = LineBatches(**case).epoch(seed, 0), LineBatches(**case, most=most)
    found = cut.epoch(seed, 0)
    assert len(found) == min(most, len(whole)) and cut.count in (None, len(found))
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(found, whole, strict=False))
    assert 1 <= len(cut) <= len(found)


def test_orders_differ_between_seeds_and_epochs_and_never_without_shuffling():
    subjects = np.repeat([0, 1], 50)
    sampler = LineBatches(subjects, None, 10)
    orders = {tuple(np.concatenate(sampler.epoch(seed, epoch))) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4
    fixed = LineBatches(subjects, None, 10, shuffle=False)
    assert len({tuple(np.concatenate(fixed.epoch(seed, epoch))) for seed in (0, 1) for epoch in (0, 1)}) == 1
    # Not the first lines first: a validation that is cut sees all subjects.
    assert len(np.unique(subjects[fixed.epoch(0, 0)[0]])) == 2


def test_the_budget_is_of_the_batch_and_not_of_each_subject():
    sampler = LineBatches(np.repeat(np.arange(40), 5), None, 10)
    batches = sampler.epoch(0, 0)
    assert sampler.count == 20 == len(batches) and {len(batch) for batch in batches} == {10}


def test_subjects_are_drawn_as_likely_as_they_have_lines_left():
    subjects = np.repeat([0, 1], [90, 10])
    sampler = LineBatches(subjects, None, 5, subjects_per_batch=1)
    first = [subjects[sampler.epoch(seed, 0)[0]][0] for seed in range(600)]
    assert abs(np.mean(first) - 0.1) < 0.05
    mixed = LineBatches(subjects, None, 20)
    share = [subjects[mixed.epoch(seed, 0)[0]].mean() for seed in range(300)]
    assert abs(np.mean(share) - 0.1) < 0.015


@pytest.mark.parametrize("costs", [None, np.ones(60)])
def test_every_line_is_as_likely_in_every_place(costs):
    sampler = LineBatches(np.repeat([0, 1, 2], [30, 20, 10]), costs, 6)
    places = np.zeros((60, 10))
    for seed in range(400):
        for place, batch in enumerate(sampler.epoch(seed, 0)):
            places[batch, place] += 1
    expected = 400 / 10
    assert ((places - expected) ** 2 / expected).sum() < 540 + 5 * math.sqrt(2 * 540)


def test_subjects_serve_several_batches():
    subjects = np.repeat(np.arange(6), 20)
    batches = LineBatches(subjects, None, 5, subjects_per_batch=1, cycles=4).epoch(3, 0)
    own = [int(subjects[batch][0]) for batch in batches]
    assert [len(set(own[k : k + 4])) for k in range(0, 24, 4)] == [1] * 6


def test_a_line_longer_than_the_budget_is_alone_anywhere_in_the_epoch():
    costs = np.full(101, 1.0)
    costs[50] = 99
    sampler = LineBatches(np.zeros(101, int), costs, 10)
    at = []
    for seed in range(60):
        batches = sampler.epoch(seed, 0)
        assert len(batches) == 11 and {len(batch) for batch in batches} == {1, 10}
        at.append(next(k for k, batch in enumerate(batches) if 50 in batch))
    assert len(set(at)) > 5


def test_batches_by_length_are_nearly_full():
    costs = np.random.default_rng(0).uniform(10, 30, 1000)
    batches = LineBatches(np.repeat([0, 1], 500), costs, 400).epoch(0, 0)
    sums = np.array([costs[batch].sum() for batch in batches])
    assert (sums[:-1] > 370).all()


def test_many_short_lines_beside_few_long_ones_fill_a_batch_and_no_more():
    costs = np.array([1.0] * 2000 + [290.0] * 20)
    sums = [costs[batch].sum() for batch in LineBatches(np.zeros(2020, int), costs, 300).epoch(0, 0)]
    assert max(sums) <= 300
    # The long ones come one to a batch; among short ones alone no batch ends early.
    assert sum(total > 280 for total in sums) >= len(sums) - 21


def test_a_fixed_count_is_told_where_it_is_one():
    subjects = np.repeat([0, 1], 50)
    assert LineBatches(subjects, None, 7).count == 15
    assert LineBatches(subjects, None, 7, subjects_per_batch=1).count is None
    assert LineBatches(subjects, None, 7, subjects_per_batch=1, most=15).count == 15
    assert LineBatches(subjects, None, 7, subjects_per_batch=1, most=16).count is None
    assert LineBatches(subjects, np.ones(100), 7).count is None
    assert LineBatches(subjects, np.ones(100), 7, most=10).count == 10
    assert LineBatches(subjects, np.ones(100), 7, shuffle=False).count == 15


def test_some_lines_may_stay_away_but_not_all():
    sampler = LineBatches(np.repeat([0, 1], 5), None, 2, lines=np.array([1, 4, 9]))
    assert sorted(np.concatenate(sampler.epoch(0, 0)).tolist()) == [1, 4, 9]
    with pytest.raises(UsageError, match="no streamlines"):
        LineBatches(np.zeros(5, int), None, 2, lines=np.zeros(0, int))
