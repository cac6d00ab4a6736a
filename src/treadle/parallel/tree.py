"""Sums over the parts of a batch in one binary tree: the same bits, whichever process has which of the parts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from treadle.parallel.world import World

Node = tuple[int, int]
"""The parts from the first number to before the second, which the tree adds up by themselves."""


def nodes(start: int, stop: int, count: int) -> list[Node]:
    """The largest subtrees over parts `start` to before `stop` in the tree over `count` parts, from left to right."""

    def within(low: int, high: int) -> list[Node]:
        if start <= low and high <= stop:
            return [(low, high)]
        if high <= start or stop <= low:
            return []
        middle = (low + high) // 2
        return within(low, middle) + within(middle, high)

    return within(0, count) if start < stop else []


class TreeSum:
    """Adds up flat tensors that are put in from left to right, each as soon as its neighbour in the tree is there.

    Args:
        count: the parts of the whole tree.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self.rows: list[tuple[Node, list[Tensor]]] = []
        """What has no neighbour yet: as many as the tree is deep at most, where parts are put in from the first on."""

    def put(self, node: Node, tensors: list[Tensor]) -> None:
        """Add the sums of the parts of `node`; they are changed in place."""
        self.rows.append((node, tensors))
        while len(self.rows) > 1:
            (left, middle), (also, right) = self.rows[-2][0], self.rows[-1][0]
            if middle != also or nodes(left, right, self._count) != [(left, right)]:
                return
            _, last = self.rows.pop()
            torch._foreach_add_(self.rows[-1][1], last)
            self.rows[-1] = (left, right), self.rows[-1][1]


def add_up(world: World, tree: TreeSum, count: int, *, into: Sequence[Tensor]) -> None:
    """The sums over all `count` parts, those of the other processes too, into flat tensors, one for each put in.

    Each process adds up one stretch of the entries, all parts of it; what it sends and gets is what a ring would be.
    """
    share = count // world.size
    theirs = [nodes(rank * share, (rank + 1) * share, count) for rank in range(world.size)]
    most = max(map(len, theirs))
    for index, whole in enumerate(into):
        if world.size == 1:
            whole.copy_(tree.rows[0][1][index])
            continue
        length = -(-whole.numel() // world.size)
        sent = whole.new_zeros(world.size, most, length)
        padded = whole.new_zeros(world.size * length)
        for place, (_, tensors) in enumerate(tree.rows):
            padded[: whole.numel()] = tensors[index]
            sent[:, place] = padded.view(world.size, length)
        came = world.deal(sent)
        stretch = TreeSum(count)
        for rank, some in enumerate(theirs):
            for place, node in enumerate(some):
                stretch.put(node, [came[rank, place]])
        whole.copy_(world.collect(stretch.rows[0][1][0].contiguous()).view(-1)[: whole.numel()])
