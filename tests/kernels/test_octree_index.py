from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import UsageError
from treadle.kernels.octree_index import OctreeIndex, cells_of, morton

FEW = st.lists(st.tuples(*[st.integers(0, 7)] * 3), min_size=1, max_size=20)


def octree(cells, base=1, levels=3, graded=False):
    return OctreeIndex.of(torch.unique(morton(torch.tensor(cells))), base, levels, graded)


def cells_by_level(cells, graded):
    """Those of levels 1 to 3, by hand."""
    found = [set(cells)]
    for level in (2, 1):
        there = {tuple(c >> 1 for c in cell) for cell in found[0]}
        if graded:
            everywhere = itertools.product(range(2**level), repeat=3)
            near = {
                c for c in everywhere if any(max(abs(a - b) for a, b in zip(c, d, strict=True)) <= 1 for d in there)
            }
            there = near if level > 1 else set(itertools.product(range(2), repeat=3))
        found.insert(0, there)
    return found


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 1023)] * 3), min_size=1, max_size=50))
def test_codes_interleave_the_bits_and_are_undone(cells):
    cells = torch.tensor(cells)
    for (x, y, z), code in zip(cells.tolist(), morton(cells).tolist(), strict=True):
        assert code == sum(
            (x >> k & 1) << 3 * k | (y >> k & 1) << 3 * k + 1 | (z >> k & 1) << 3 * k + 2 for k in range(10)
        )
    assert torch.equal(cells_of(morton(cells)), cells)


def test_corners_up_to_the_border_of_the_finest_level_have_codes_of_their_own():
    values = [0, 1, 1023, 1024]
    corners = torch.tensor(list(itertools.product(values, values, values)))
    assert len(set(morton(corners).tolist())) == 64


@settings(max_examples=30, deadline=None)
@given(FEW, st.booleans())
def test_records_say_where_children_and_corners_are(cells, graded):
    index = octree(cells, graded=graded)
    levels = cells_by_level(cells, graded)
    rows: dict[tuple[int, ...], int] = {}
    seen = 0
    for level in range(3):
        corners = set()
        for cell in levels[level]:
            number = index.roots[cell[0] >> level | (cell[1] >> level) << 1 | (cell[2] >> level) << 2].item()
            for up in range(level - 1, -1, -1):
                octant = sum((cell[axis] >> up & 1) << axis for axis in range(3))
                number = index.records[number, octant].item()
            assert number >= 0
            seen += 1
            for corner in range(8):
                place = tuple(cell[axis] + (corner >> axis & 1) for axis in range(3))
                corners.add(place)
                row = index.records[number, 8 + corner].item()
                assert rows.setdefault((level, *place), row) == row  # one row for a corner, whoever asks
                assert index.first_row[level] <= row < index.first_row[level + 1]
        assert index.first_row[level + 1] - index.first_row[level] == len(corners)
    assert seen == len(index.records) and len(set(rows.values())) == len(rows) == index.rows
    assert (index.records[-len(set(cells)) :, :8] == -1).all()  # the finest cells have no children
    assert int((index.roots >= 0).sum()) == len(levels[0])
    children = int((index.records[:, :8] >= 0).sum())
    assert children == len(levels[1]) + len(levels[2])  # no child that is none


@settings(max_examples=40, deadline=None)
@given(FEW, st.booleans(), st.data())
def test_the_rows_kept_are_those_of_the_corners_that_are_left(cells, graded, data):
    fewer = data.draw(st.lists(st.sampled_from(cells), min_size=1))
    before, after = octree(cells, graded=graded), octree(fewer, graded=graded)
    mask = before.rows_kept(after)
    assert mask.shape == (before.rows,) and torch.equal(before.corners[mask], after.corners)


def test_what_is_not_pruned_is_refused():
    with pytest.raises(UsageError, match="only takes cells away"):
        octree([(0, 0, 0)]).rows_kept(octree([(0, 0, 0), (7, 7, 7)]))
    with pytest.raises(UsageError, match="has levels 1 to 2, not 1 to 3"):
        octree([(0, 0, 0)]).rows_kept(octree([(0, 0, 0)], levels=2))


@pytest.mark.parametrize(
    ("codes", "base", "levels", "message"),
    [
        (torch.arange(1), 8, 1, "base is 8"),
        (torch.arange(1), -1, 3, "base is -1"),
        (torch.arange(1), 3, 0, "levels 0"),
        (torch.arange(1), 7, 5, "levels 5"),
        (torch.arange(0), 1, 2, "one cell at least"),
        (torch.zeros(1, 3).long(), 1, 2, "one cell at least"),
        (torch.tensor([1, 0]), 1, 2, "must rise"),
        (torch.tensor([1, 1]), 1, 2, "must rise"),
        (torch.tensor([-1]), 1, 2, "must rise"),
        (torch.tensor([64]), 1, 2, "below 2\\^6"),
    ],
)
def test_what_is_no_octree_is_refused(codes, base, levels, message):
    with pytest.raises(UsageError, match=message):
        OctreeIndex.of(codes, base, levels)
