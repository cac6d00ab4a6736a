"""Ragged lines in a few padded blocks, and back: torch is far faster on those than on packed sequences.

Lines fall into buckets by their lengths, as many as are worth the padding that they save. Two layouts follow from that.
`stretches` cuts time where a bucket ends: the first block holds all lines up to the length of the shortest bucket, the
next one goes on with those that are longer, so that a recurrent net runs through every point once, with as many lines
side by side as there are. `groups` makes a block of each bucket's whole lines, for attention, which must see a line at
once.

Cells past the end of a line repeat its last point. What a causal model says there reaches no other cell, and `gather`
leaves it out, so it has no gradient either: outputs and gradients are those of the lines alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

WORTH = 80
"""The cells that a block costs beside its own: layers of 100 to 500 numbers take as long for them as a call besides."""

CHOICES = 24
"""The most lengths that are tried as the ends of buckets."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """Where each point of packed lines lies in padded blocks."""

    shapes: tuple[tuple[int, int], ...]
    """(steps, lines) of each block, or (lines, steps), as its maker says."""
    rows: Tensor
    """(cells,) int64: the row that each cell holds, one block after the other."""
    cells: Tensor
    """(p,) int64: the cell of each row."""

    def spread(self, values: Tensor) -> list[Tensor]:
        """Rows (p, f) as blocks (a, b, f), one for each of `shapes`; one gather for all."""
        flat = values.index_select(0, self.rows)
        parts = flat.split([a * b for a, b in self.shapes])
        return [part.view(a, b, -1) for part, (a, b) in zip(parts, self.shapes, strict=True)]

    def gather(self, blocks: Sequence[Tensor]) -> Tensor:
        """Blocks (a, b, f) as rows (p, f); padding is left out."""
        return torch.cat([block.flatten(0, 1) for block in blocks]).index_select(0, self.cells)


def stretches(offsets: Tensor, device: torch.device | None = None, worth: float = WORTH) -> Blocks:
    """Lines side by side, cut in time: blocks (steps, lines), each going on with the first lines of the one before.

    Lines stand in the order of falling length, equal ones in their own order. No block is empty; there are no blocks
    where there are no points.

    Args:
        offsets: (n + 1,) int64, on the CPU: line k has the rows `offsets[k]:offsets[k + 1]`.
        device: where the indices are to be.
        worth: the cells that a block costs beside its own.
    """
    lengths, order = offsets.diff().sort(descending=True, stable=True)
    starts, blocks, begin = offsets[:-1][order], [], 0
    for end in _bounds(lengths, worth):
        lines = int((lengths > begin).sum())
        steps = torch.arange(begin, end)[:, None].expand(-1, lines)
        blocks.append((steps, starts[:lines], lengths[:lines]))
        begin = end
    return _blocks(blocks, int(offsets[-1]), device)


def groups(offsets: Tensor, device: torch.device | None = None, worth: float = WORTH) -> Blocks:
    """Whole lines of similar length: blocks (lines, steps), the shortest lines first. Arguments as of `stretches`."""
    lengths, order = offsets.diff().sort(stable=True)
    starts, blocks, begin = offsets[:-1][order], [], 0
    for end in _bounds(lengths.flip(0), worth):
        those = (lengths > begin) & (lengths <= end)
        steps = torch.arange(end).expand(int(those.sum()), -1)
        blocks.append((steps, starts[those, None], lengths[those, None]))
        begin = end
    return _blocks(blocks, int(offsets[-1]), device)


def positions(offsets: Tensor) -> Tensor:
    """(p,) int64, on the CPU: how many points of its own line come before each point."""
    return torch.arange(int(offsets[-1])) - offsets[:-1].repeat_interleave(offsets.diff())


def _bounds(falling: Tensor, worth: float) -> list[int]:
    """The length of the longest line in each bucket, rising, from all lengths in falling order.

    Of all ways to choose from some of the lengths, the one with the fewest cells, where each block counts `worth` more.
    Both layouts have equally many: a stretch from a to b holds b - a cells for each line longer than a, and by parts
    that is the sum of what each line has in its group.
    """
    lengths = falling[falling > 0].tolist()
    ranks = range(0, len(lengths), max(1, -(-len(lengths) // CHOICES)))
    ends = [0, *sorted({lengths[rank] for rank in ranks})]
    beyond = [int((falling > end).sum()) for end in ends]
    costs, before = [0.0], [0]
    for last in range(1, len(ends)):
        cost, first = min(
            (costs[first] + (ends[last] - ends[first]) * beyond[first] + worth, first) for first in range(last)
        )
        costs.append(cost)
        before.append(first)
    found, at = [], len(ends) - 1
    while at:
        found.append(ends[at])
        at = before[at]
    return found[::-1]


def _blocks(blocks: list[tuple[Tensor, Tensor, Tensor]], points: int, device: torch.device | None) -> Blocks:
    """From each block's steps (a, b), and the first rows and lengths of its lines, which broadcast against them."""
    cells, rows, base = torch.empty(points, dtype=torch.int64), [torch.empty(0, dtype=torch.int64)], 0
    for steps, starts, lengths in blocks:
        held = (starts + torch.minimum(steps, lengths - 1)).reshape(-1)
        real = (steps < lengths).reshape(-1).nonzero()[:, 0]
        cells[held[real]] = base + real
        rows.append(held)
        base += len(held)
    shapes = tuple((steps.shape[0], steps.shape[1]) for steps, _, _ in blocks)
    return Blocks(shapes, torch.cat(rows).to(device), cells.to(device))
