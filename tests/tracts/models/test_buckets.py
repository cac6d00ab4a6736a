from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from treadle.tracts.models.buckets import groups, positions, stretches

LENGTHS = st.lists(st.integers(0, 12), max_size=40)


@given(LENGTHS, st.integers(1, 10))
def test_every_point_has_one_cell_and_comes_back(lengths: list[int], buckets: int) -> None:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    values = torch.arange(2.0 * int(offsets[-1])).view(-1, 2)
    for layout in (stretches(offsets, buckets=buckets), groups(offsets, buckets=buckets)):
        blocks = layout.spread(values)
        assert len(blocks) == len(layout.shapes) <= buckets
        assert all(block.numel() for block in blocks)
        if blocks:
            assert torch.equal(layout.gather(blocks), values)


@given(LENGTHS, st.integers(1, 10))
def test_a_stretch_goes_on_with_the_first_lines_of_the_one_before(lengths: list[int], buckets: int) -> None:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    line = torch.arange(len(lengths)).repeat_interleave(offsets.diff())
    told = torch.stack([line, positions(offsets)], dim=1)
    begin, before = 0, None
    for block in stretches(offsets, buckets=buckets).spread(told):
        steps, count, _ = block.shape
        assert (block[:, :, 0] == block[0, :, 0]).all(), "one line from step to step"
        if before is not None:
            assert torch.equal(block[0, :, 0], before[:count])
        size = torch.tensor(lengths)[block[0, :, 0]]
        assert torch.equal(block[:, :, 1], torch.minimum(torch.arange(begin, begin + steps)[:, None], size - 1))
        begin, before = begin + steps, block[0, :, 0]
    assert begin == max(lengths, default=0)


@given(LENGTHS, st.integers(1, 10))
def test_a_group_holds_whole_lines(lengths: list[int], buckets: int) -> None:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    line = torch.arange(len(lengths)).repeat_interleave(offsets.diff())
    told = torch.stack([line, positions(offsets)], dim=1)
    seen: list[int] = []
    for block in groups(offsets, buckets=buckets).spread(told):
        assert (block[:, :, 0] == block[:, :1, 0]).all()
        size = torch.tensor(lengths)[block[:, :1, 0]]
        assert torch.equal(block[:, :, 1], torch.minimum(torch.arange(block.shape[1]), size - 1))
        assert int(size.max()) == block.shape[1], "no block is longer than its longest line"
        seen += block[:, 0, 0].tolist()
    assert sorted(seen) == [number for number, length in enumerate(lengths) if length]


def test_a_hundred_lines_have_little_padding() -> None:
    lengths = torch.randint(30, 101, (100,), generator=torch.Generator().manual_seed(0))
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    for layout in (stretches(offsets), groups(offsets)):
        assert len(layout.shapes) <= 8 and len(layout.rows) < 1.07 * int(offsets[-1])


def test_positions_count_from_the_start_of_each_line() -> None:
    assert positions(torch.tensor([0, 3, 3, 4, 6])).tolist() == [0, 1, 2, 0, 0, 1]
