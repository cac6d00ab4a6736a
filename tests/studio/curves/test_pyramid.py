"""Curves in few points: aligned buckets, no spike that vanishes, what is no number as a mark, smoothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from treadle.errors import UsageError
from treadle.studio.curves.buckets import Points
from treadle.studio.curves.columns import Column, place
from treadle.studio.curves.pyramid import Pyramid
from treadle.studio.curves.rows import Rows
from treadle.studio.curves.smoothing import Smoothed


def buckets_hold(points: Points, steps: NDArray[Any], values: NDArray[Any], low: float, high: float) -> None:
    """Every value in the range is within the least and greatest of just one point, and each of those is a value."""
    finite = np.isfinite(values)
    inside = finite & (steps >= low) & (steps <= high)
    ends = points.steps
    assert np.all(np.diff(ends) >= 0)
    at = np.searchsorted(ends, steps)
    for value, index, there in zip(values.tolist(), at.tolist(), inside.tolist(), strict=True):
        if there:
            assert points.low[index] <= value <= points.high[index]
    known = set(values[finite].tolist())
    assert known.issuperset(points.low.tolist()) and known.issuperset(points.high.tolist())
    last = dict(zip(steps[finite].tolist(), values[finite].tolist(), strict=True))
    assert [last[step] for step in ends.tolist()] == points.last.tolist()


def curve(count: int, seed: int = 0, *, gap: int = 3) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    draw = np.random.default_rng(seed)
    return np.cumsum(draw.integers(1, gap + 1, count)), draw.normal(size=count)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.floats(allow_nan=True, allow_infinity=True, width=32)), min_size=1, max_size=300
    ),
    st.integers(2, 40),
    st.floats(-10, 800),
    st.floats(0, 800),
    st.integers(0, 5),
)
def test_no_spike_vanishes(pairs: list[tuple[int, float]], most: int, low: float, width: float, cut: int) -> None:
    steps = np.cumsum([gap for gap, _ in pairs])
    values = np.array([value for _, value in pairs])
    pyramid = Pyramid.of(steps[:cut], values[:cut])
    pyramid.rows.steps.extend(steps[cut:])
    pyramid.extend(values[cut:])
    points = pyramid.points(low, low + width, most)
    assert len(points) <= most
    if not points.exact or len(set(steps.tolist())) == len(steps):
        buckets_hold(points, steps, values, low, low + width)
    marked = {(step, kind) for step, kind in points.marks.tolist()}
    assert all(not np.isfinite(values[steps == step]).all() for step, _ in marked)
    odd = ~np.isfinite(values) & (steps >= low) & (steps <= low + width)
    assert bool(marked) or not odd.any()


@pytest.mark.parametrize("gap", [1, 3, 400])
def test_of_many_values_every_range_is_right(gap: int) -> None:
    steps, values = curve(30_000, gap=gap)
    values[7777], values[20_000], values[20_001:20_400] = 1e6, -1e6, math.nan
    pyramid = Pyramid.of(steps, values)
    for low, high, most in [(0, steps[-1], 500), (steps[7000], steps[29_000], 77), (steps[100], steps[9000], 4000)]:
        points = pyramid.points(low, high, most)
        assert len(points) <= most and not points.exact
        buckets_hold(points, steps, values, low, high)
    assert pyramid.points(None, None, 500).high.max() == 1e6 and pyramid.points(None, None, 500).low.min() == -1e6
    near = pyramid.points(steps[20_010], steps[20_300], 100)
    assert len(near) <= 2 and {kind for _, kind in near.marks.tolist()} == {0}


def test_what_grew_value_by_value_is_what_came_at_once() -> None:
    steps, values = curve(12_000)
    values[100:300] = math.inf
    whole, grown = Pyramid.of(steps, values), Pyramid(Rows())
    for start in range(0, 12_000, 517):
        grown.rows.steps.extend(steps[start : start + 517])
        grown.extend(values[start : start + 517])
        grown.points(None, None, 300)  # levels are made meanwhile
    for most in (40, 300, 4000):
        first, second = whole.points(None, None, most), grown.points(None, None, most)
        for name in ("steps", "low", "high", "last", "marks"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_buckets_stay_where_they_are_while_values_arrive_and_the_view_moves() -> None:
    steps, values = curve(20_000, gap=1)
    pyramid = Pyramid.of(steps[:15_000], values[:15_000])
    before = pyramid.points(2000, 12_000, 500)
    pyramid.rows.steps.extend(steps[15_000:])
    pyramid.extend(values[15_000:])
    after, moved = pyramid.points(2000, 12_000, 500), pyramid.points(2100, 12_100, 500)
    np.testing.assert_array_equal(before.steps, after.steps)
    np.testing.assert_array_equal(before.high, after.high)
    shared = np.intersect1d(after.steps, moved.steps)
    assert len(shared) > len(after) - 20
    np.testing.assert_array_equal(after.high[np.isin(after.steps, shared)], moved.high[np.isin(moved.steps, shared)])
    closer = pyramid.points(2000, 7000, 500)  # each bucket is one half of one before
    inside = after.steps[(after.steps > closer.steps[0]) & (after.steps < closer.steps[-1])]
    assert np.isin(inside, closer.steps).all()


def test_few_values_are_points_of_their_own_with_one_on_either_side() -> None:
    pyramid = Pyramid.of(np.arange(0, 1000, 10), np.arange(100.0))
    points = pyramid.points(95, 205, 100)
    assert points.exact and points.steps.tolist() == list(range(90, 211, 10))
    assert points.low.tolist() == points.high.tolist() == points.last.tolist()
    assert len(pyramid.points(95, 205, 2)) == 2
    assert pyramid.points(5000, 6000, 100).steps.tolist() == [990]


def test_an_empty_curve_and_ranges_beyond_it() -> None:
    pyramid = Pyramid.of([], [])
    assert len(pyramid.points(0, 10, 100)) == 0
    one = Pyramid.of([5], [math.nan])
    assert len(one.points()) == 0 and one.points().marks.tolist() == [[5, 0]]
    steps, values = curve(9000)
    long = Pyramid.of(steps, values)
    for low, high in [(1e300, 1e301), (-1e300, -1e299), (9, 3)]:
        assert len(long.points(low, high, 100)) <= 2
    assert len(long.points(-1e300, 1e300, 100)) > 40
    with pytest.raises(UsageError, match="give a finite number"):
        long.points(math.nan, 3)


def test_infinities_and_nan_are_marks_of_their_kind() -> None:
    values = np.array([1.0, math.nan, 2.0, math.inf, -math.inf, 3.0])
    points = Pyramid.of(np.arange(6), values).points(None, None, 100)
    assert points.steps.tolist() == [0, 2, 5] and points.marks.tolist() == [[1, 0], [3, 1], [4, -1]]


def test_a_curve_of_which_some_rows_have_no_value() -> None:
    rows = Rows()
    rows.steps.extend(np.arange(1, 10_001))
    rows.times.extend(np.arange(10_000.0))
    sparse = Pyramid(rows)
    sparse.extend(np.arange(5000.0), np.arange(0, 10_000, 2))
    points = sparse.points(None, None, 100)
    buckets_hold(points, np.arange(1, 10_001, 2), np.arange(5000.0), 1, 10_000)
    assert sparse.last_row_at(np.array([1, 2, 3, 10_000])).tolist() == [0, 0, 2, 9998]
    assert sparse.below_row(5) == 3


def test_cut() -> None:
    steps, values = curve(9000)
    values[8000] = math.nan
    pyramid = Pyramid.of(steps, values)
    pyramid.points(None, None, 100)
    pyramid.cut(6000)
    pyramid.rows.cut(6000)
    again = Pyramid.of(steps[:6000], values[:6000])
    np.testing.assert_array_equal(pyramid.points(None, None, 100).high, again.points(None, None, 100).high)
    assert len(pyramid.points(None, None, 100).marks) == 0


@pytest.mark.parametrize("count", [50, 20_000])
def test_buckets_between_given_edges(count: int) -> None:
    steps, values = curve(count)
    edges = np.unique(np.round(2.0 ** np.linspace(0, math.log2(steps[-1] + 1), 40)).astype(np.int64))
    points = Pyramid.of(steps, values).points(None, None, 40, edges)
    buckets_hold(points, steps, values, 1, steps[-1])
    assert len(points) <= 40
    alternating = np.cumsum(np.tile([1, 300], 90))
    points = Pyramid.of(steps, values).points(None, None, 10, alternating)
    buckets_hold(points, steps, values, 1, min(int(steps[-1]), 27_000))


@settings(max_examples=40)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99, 0.9999]),
    st.integers(0, 200),
)
def test_smoothing_is_the_debiased_average(values: list[float], share: float, hole: int) -> None:
    array = np.array(values)
    if hole < len(array):
        array[hole] = math.nan
    expected, total, weight = [], 0.0, 0.0
    for value in array:
        if math.isfinite(value):
            total, weight = share * total + value, share * weight + 1
        expected.append(total / weight if math.isfinite(value) else math.nan)
    found = Smoothed(Pyramid.of(np.arange(len(array)), array), share).values()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-6)


def test_smoothing_comes_before_fewer_points() -> None:
    steps, values = curve(30_000)
    values[500] = math.nan
    smooth = Smoothed(Pyramid.of(steps, values), 0.99)
    whole = smooth.values()
    np.testing.assert_allclose(smooth.values(12_345, 12_400), whole[12_345:12_400], rtol=1e-12)
    points = smooth.points(None, None, 200)
    buckets_hold(points, steps, np.asarray(whole), 0, steps[-1])
    assert points.high.max() < 0.7 < np.nanmax(values) / 4 and len(points) <= 200


def test_a_spike_in_huge_values_does_not_overflow_the_average() -> None:
    values = np.full(5000, 1e307)
    values[2500:] = 1e-300
    found = np.asarray(Smoothed(Pyramid.of(np.arange(5000), values), 0.9).values())
    assert np.isfinite(found).all() and found[2400] == pytest.approx(1e307)


def test_columns_are_exact_where_it_matters() -> None:
    column = Column(np.float32, np.float64, exact=4)
    column.extend(np.array([0.1, 0.2]))
    assert column.values.tolist() == [0.1, 0.2]
    column.extend(np.arange(4) + 0.3)
    assert column.values.dtype == np.float32 and column.values[0] == np.float32(0.1)
    column.extend(np.array([1e300]))
    assert column.values.dtype == np.float64 and column.values[-1] == 1e300
    counts = Column(np.float32, np.float64)
    counts.extend(np.array([2.0**24 + 1]))
    assert counts.values.tolist() == [2.0**24 + 1]
    whole = Column(np.int32, np.int64)
    whole.extend(np.array([1, 2]))
    assert whole.values.dtype == np.int32
    whole.extend(np.array([2**40]))
    assert whole.values.tolist() == [1, 2, 2**40]
    assert place(np.array([1, 5], np.int32), [0, 1, 2**40, -(2**40)], after=True).tolist() == [0, 1, 2, 0]


def test_a_million_values_take_little_memory() -> None:
    count = 1_000_000
    values = np.random.default_rng(0).normal(size=count)
    values[123_456] = 99.0
    pyramid = Pyramid.of(np.arange(count), values)
    points = pyramid.points(None, None, 1000)
    assert points.high.max() == 99.0 and len(points) <= 1000
    assert pyramid.nbytes < 5.2e6
