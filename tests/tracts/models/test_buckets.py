from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from treadle.tracts.models.buckets import groups, positions, stretches

LENGTHS = st.lists(st.integers(0, 12), max_size=40)


@given(LENGTHS, st.sampled_from([0, 1, 4, 80]))
def test_every_point_has_one_cell_and_comes_back(lengths: list[int], worth: int) -> None:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    values = torch.arange(2.0 * int(offsets[-1])).view(-1, 2)
    for layout in (stretches(offsets, worth=worth), groups(offsets, worth=worth)):
        blocks = layout.spread(values)
        assert len(blocks) == len(layout.shapes)
        assert all(block.numel() for block in blocks)
        if blocks:
            assert torch.equal(layout.gather(blocks), values)


@given(LENGTHS, st.sampled_from([0, 1, 4, 80]))
def test_a_stretch_goes_on_with_the_first_lines_of_the_one_before(lengths: list[int], worth: int) -> None:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    line = torch.arange(len(lengths)).repeat_interleave(offsets.diff())
    told = torch.stack([line, positions(offsets)], dim=1)
    begin, before = 0, None
    for block in stretches(offsets, worth=worth).spread(told):
        steps, count, _ = block.shape
        assert (block[:, :, 0] == block[0, :, 0]).all(), "one line from step to step"
        if before is not None:
            assert torch.equal(block[0, :, 0], before[:count])
        size = torch.tensor(lengths)[block[0, :, 0]]
        assert torch.equal(block[:, :, 1], torch.minimum(torch.arange(begin, begin + steps)[:, None], size - 1))
        begin, before = begin + steps, block[0, :, 0]
    assert begin == max(lengths, default=0)


@given(LENGTHS, st.sampled_from([0, 1, 4, 80]))
def test_a_group_holds_whole_lines(lengths: list[int], worth: int) -> None:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    line = torch.arange(len(lengths)).repeat_interleave(offsets.diff())
    told = torch.stack([line, positions(offsets)], dim=1)
    seen: list[int] = []
    for block in groups(offsets, worth=worth).spread(told):
        assert (block[:, :, 0] == block[:, :1, 0]).all()
        size = torch.tensor(lengths)[block[:, :1, 0]]
        assert torch.equal(block[:, :, 1], torch.minimum(torch.arange(block.shape[1]), size - 1))
        assert int(size.max()) == block.shape[1], "no block is longer than its longest line"
        seen += block[:, 0, 0].tolist()
    assert sorted(seen) == [number for number, length in enumerate(lengths) if length]


@given(st.lists(st.integers(0, 7), max_size=12), st.sampled_from([0, 1, 4, 80]))
def test_no_other_buckets_cost_less(lengths: list[int], worth: int) -> None:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    known = sorted(set(lengths) - {0})
    costs = []
    for count in range(len(known)):
        for chosen in itertools.combinations(known[:-1], count):
            ends = [*chosen, known[-1]]
            costs.append(
                sum(min(end for end in ends if end >= length) for length in lengths if length) + worth * len(ends)
            )
    for layout in (stretches(offsets, worth=worth), groups(offsets, worth=worth)):
        assert len(layout.rows) + worth * len(layout.shapes) == min(costs, default=0)


def test_a_hundred_lines_have_little_padding_in_few_blocks() -> None:
    lengths = torch.randint(30, 101, (100,), generator=torch.Generator().manual_seed(0))
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    for layout in (stretches(offsets), groups(offsets)):
        assert len(layout.shapes) <= 8 and len(layout.rows) < 1.1 * int(offsets[-1])
    many = offsets[1:].diff().repeat(50)
    assert len(stretches(torch.cat([torch.zeros(1, dtype=torch.int64), many.cumsum(0)])).shapes) <= 24


def test_positions_count_from_the_start_of_each_line() -> None:
    assert positions(torch.tensor([0, 3, 3, 4, 6])).tolist() == [0, 1, 2, 0, 0, 1]
