from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.tracts.feeds.augment import Parts, augmented_parts, plain_parts, target_noise, turn_rows


def make(sizes, seed=0):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    return rng.normal(size=(offsets[-1], 3)).cumsum(axis=0), offsets


def augment(points, offsets, lines=None, **given_):
    what = {"seed": 1, "epoch": 0, "split": 0.0, "reverse": 0.0, "noise": 0.0} | given_
    return augmented_parts(points, offsets, np.arange(len(offsets) - 1) if lines is None else lines, **what)


def parts_of(parts: Parts, line: int):
    """The parts of a line: rows, whether its end counts, and clean points."""
    found = []
    for k in np.flatnonzero(parts.lines == line):
        rows = slice(parts.offsets[k], parts.offsets[k + 1])
        found.append((parts.rows[rows].tolist(), bool(parts.whole[k]), parts.clean[rows], parts.seen[rows]))
    return found


SIZES = st.lists(st.integers(2, 9), min_size=1, max_size=12)


@given(SIZES, st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_no_point_and_no_segment_is_lost(sizes, seed):
    points, offsets = make(sizes)
    parts = augment(points, offsets, seed=seed, split=0.7, reverse=0.5)
    for line, size in enumerate(sizes):
        segments, ends = [], []
        for rows, whole, clean, seen in parts_of(parts, line):
            np.testing.assert_array_equal(clean, points[offsets[line] + np.array(rows)])
            np.testing.assert_array_equal(clean, seen)
            assert np.unique(np.diff(rows)).tolist() in ([1], [-1])
            segments += [tuple(sorted(pair)) for pair in zip(rows[1:], rows[:-1], strict=True)]
            ends.append((rows[-1], whole))
        assert sorted(segments) == [(k, k + 1) for k in range(size - 1)]
        # What counts as an end is one: the line's first or last point, never a cut.
        assert all(whole == (row in (0, size - 1)) for row, whole in ends)


def test_short_lines_are_cut_too_and_shares_are_kept():
    points, offsets = make([3] * 1000 + [2] * 1000 + [12] * 2000)
    parts = augment(points, offsets, split=0.25, reverse=0.4)
    found = [parts_of(parts, line) for line in range(4000)]
    cut = np.array([len(each) == 2 for each in found])
    assert not cut[1000:2000].any()
    assert abs(cut[:1000].mean() - 0.25) < 0.05 and abs(cut[2000:].mean() - 0.25) < 0.04
    turned = np.array([rows[0] > rows[-1] for each in found for rows, *_ in each])
    assert abs(turned.mean() - 0.4) < 0.03
    # Both parts of a line are turned independently, and any inner point may be the cut.
    both = np.array([[rows[0] > rows[-1] for rows, *_ in each] for each in found if len(each) == 2])
    assert abs(np.corrcoef(both.T)[0, 1]) < 0.15
    cuts = {max(min(rows) for rows, *_ in each) for each in found[2000:] if len(each) == 2}
    assert cuts == set(range(1, 11))


@given(SIZES, st.floats(0.01, 5))
@settings(max_examples=40, deadline=None)
def test_noise_stays_within_its_bounds(sizes, noise):
    points, offsets = make(sizes)
    parts = augment(points, offsets, noise=noise)
    moved = parts.seen - parts.clean
    assert np.abs(moved).max() <= 2 * noise * (1 + 1e-9)
    for line in range(len(sizes)):
        own = slice(offsets[line], offsets[line + 1])
        steps = np.linalg.norm(np.diff(points[own], axis=0), axis=1)
        nearer = np.minimum([np.inf, *steps], [*steps, np.inf])
        assert (np.linalg.norm(moved[own], axis=1) <= nearer / 2 * (1 + 1e-9)).all()
    targets = np.diff(points, axis=0, append=points[-1:])
    shaken = target_noise(parts, targets, noise)
    assert np.abs(shaken).max() <= 2 * noise * (1 + 1e-9)
    assert (np.linalg.norm(shaken, axis=1) <= np.linalg.norm(targets, axis=1) / 2 * (1 + 1e-9)).all()


def test_noise_has_the_size_that_is_asked_for_where_there_is_room():
    points, offsets = make([50] * 60)
    parts = augment(points * 1000, offsets, noise=0.3)
    for shift in (parts.seen - parts.clean, target_noise(parts, np.full_like(parts.clean, 1e3), 0.3)):
        # A normal number cut to two standard deviations (and not drawn again) has .9594 of one.
        np.testing.assert_allclose(shift.std(axis=0), 0.9594 * 0.3, rtol=0.03)
        assert np.abs(shift.mean(axis=0)).max() < 0.02
        assert np.isclose(np.abs(shift), 0.6).mean() == pytest.approx(0.0455, abs=0.01)


def test_a_cut_point_has_the_same_noise_in_both_parts():
    points, offsets = make([9] * 40)
    parts = augment(points, offsets, split=1, reverse=0.5, noise=0.1)
    for line in range(40):
        (rows, _, _, seen), (others, _, _, also) = parts_of(parts, line)
        (shared,) = set(rows) & set(others)
        np.testing.assert_array_equal(seen[rows.index(shared)], also[others.index(shared)])


def test_what_happens_to_a_line_does_not_depend_on_the_others():
    points, offsets = make([5, 8, 6, 9, 4])
    chosen = {"split": 0.5, "reverse": 0.5, "noise": 0.2}
    whole = augment(points, offsets, np.arange(10, 15), **chosen)
    for line in range(5):
        own = points[offsets[line] : offsets[line + 1]]
        alone = augment(own, np.array([0, len(own)]), np.array([10 + line]), **chosen)
        found, expected = parts_of(alone, 10 + line), parts_of(whole, 10 + line)
        assert [each[:2] for each in found] == [each[:2] for each in expected]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one[3], other[3])
    for other in ({"epoch": 1}, {"seed": 2}):
        assert not np.array_equal(augment(points, offsets, np.arange(10, 15), **chosen, **other).seen, whole.seen)


def test_plain_lines_stay_as_they_are():
    points, offsets = make([5, 8])
    parts = plain_parts(points, offsets, np.array([3, 4]))
    assert np.array_equal(parts.seen, points) and parts.whole.all() and parts.lines.tolist() == [3, 4]
    assert parts.rows.tolist() == [*range(5), *range(8)]


def test_rows_are_turned_by_their_lines_matrix():
    rng = np.random.default_rng(0)
    values, matrices = (rng.normal(size=size).astype(np.float32) for size in ((7, 3, 6), (2, 6, 6)))
    out = np.empty_like(values)
    turn_rows(values, matrices, np.array([0, 4, 7]), out)
    expected = np.concatenate([values[:4] @ matrices[0].T, values[4:] @ matrices[1].T])
    np.testing.assert_allclose(out, expected, atol=1e-5)
