"""The tree that sums go by: every process's stretch of it, and the same bits for each way to share the parts."""

from __future__ import annotations

from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.parallel.together import together
from treadle.parallel import this_world
from treadle.parallel.tree import TreeSum, add_up, nodes


@given(st.integers(1, 40), st.data())
def test_nodes_cover_a_stretch_in_order(count: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    found = [part for low, high in nodes(start, stop, count) for part in range(low, high)]
    assert found == list(range(start, stop))


def test_a_process_with_a_power_of_two_of_as_many_has_one_node() -> None:
    assert [nodes(rank * 2, rank * 2 + 2, 8) for rank in range(4)] == [[(0, 2)], [(2, 4)], [(4, 6)], [(6, 8)]]


def sum_of_parts(count: int) -> list[float]:
    world = this_world()
    values = torch.randn(count, 11, generator=torch.Generator().manual_seed(3)) * 1e3
    here = count // world.size
    tree, total = TreeSum(count), torch.empty(11)
    for part in range(world.rank * here, (world.rank + 1) * here):
        tree.put((part, part + 1), [values[part].clone()])
    add_up(world, tree, count, into=[total])
    assert torch.allclose(total, values.sum(0), rtol=1e-4)
    return [float(value) for value in total]


def test_the_sum_is_the_same_bits_however_parts_are_shared(tmp_path: Path) -> None:
    (alone,) = together(1, tmp_path, sum_of_parts, 12)
    for size in (2, 3, 4):
        assert together(size, tmp_path, sum_of_parts, 12) == [alone] * size
