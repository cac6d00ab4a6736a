"""Where the rows of a sparse octree of features lie: which cells there are, and which rows are at their corners.

The cells of the finest level are given; every coarser one that holds some of them is there too. A cell has one record
of 64 bytes, a cache line: the records of its eight children and the rows of its eight corners. A point goes down from
the base level by one look-up a level, and needs no search. Memory: 64 bytes a cell, 4 bytes for each of the 8^base
cells of the base level, occupied or not, and 8 bytes a row, which remember where it is for pruning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from treadle.errors import UsageError

MOST_BASE, FINEST = 7, 10
"""The base level's cells are all there, as 8^base numbers; coordinates of the finest fit into 30 bits of a code."""

_STEPS = ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249))


def morton(cells: Tensor) -> Tensor:
    """Codes (m,) int64 of cells (m, 3), coordinates below 2^10: bits of x, y and z in turn, x lowest.

    Corners have coordinates up to 2^10 itself; that bit is put above all others, and orders them as well as any.
    """
    x, y, z = (_spread(cells[:, axis].to(torch.int64), axis) for axis in range(3))
    return x | y | z


def _spread(value: Tensor, axis: int) -> Tensor:
    """The bits of coordinates where codes have those of this axis."""
    top, value = value >> FINEST, value & ((1 << FINEST) - 1)
    for shift, mask in _STEPS:
        value = (value | (value << shift)) & mask
    return (value << axis) | (top << (3 * FINEST + axis))


def cells_of(codes: Tensor) -> Tensor:
    """The cells (m, 3) int64 of their codes: the inverse of `morton`, for cells."""
    found = []
    for axis in range(3):
        value = (codes >> axis) & _STEPS[-1][1]
        for (shift, _), mask in zip(_STEPS[::-1], (*(m for _, m in _STEPS[-2::-1]), (1 << FINEST) - 1), strict=True):
            value = (value | (value >> shift)) & mask
        found.append(value)
    return torch.stack(found, dim=1)


@dataclass(frozen=True, eq=False)
class OctreeIndex:
    """Levels `base` to `base + levels - 1` of an octree over [-1, 1]^3; level l has 2^l cells per axis.

    Attributes:
        base, levels: see above.
        roots: (8^base,) int32, the record of each cell of the base level, x fastest; -1 where it is empty.
        records: (cells, 16) int32: eight children (octant x + 2 y + 4 z; -1 where there is none, and in the finest
            level), eight rows (corner x + 2 y + 4 z). Level by level, in each in Morton order.
        corners: (rows,) int64, the code of the corner that a row is for; rising within each level.
        first_cell, first_row: the first record and the first row of each level, and at the end how many there are.
    """

    base: int
    levels: int
    roots: Tensor
    records: Tensor
    corners: Tensor
    first_cell: tuple[int, ...]
    first_row: tuple[int, ...]

    @classmethod
    def of(cls, codes: Tensor, base: int, levels: int, graded: bool = False) -> OctreeIndex:
        """The octree with the cells of `codes` (`morton`), distinct and rising, in its finest level.

        Where it is `graded`, a coarser level has, beside the cells that hold finer ones, all their neighbours, and the
        base level all its cells: a point far from the finest cells still is in some of a size that fits the distance.

        Raises:
            UsageError: levels out of range, no cells, or codes that are none of this level's.
        """
        finest = base + levels - 1
        if not 0 <= base <= MOST_BASE or levels < 1 or finest > FINEST:
            raise UsageError(
                f"octree: base is {base} and levels {levels}: expected base 0 to {MOST_BASE}, "
                f"and base + levels from 1 to {FINEST + 1}"
            )
        if codes.dim() != 1 or codes.dtype != torch.int64 or len(codes) == 0:
            raise UsageError(f"octree: expected one cell at least, as codes (m,) int64, got {tuple(codes.shape)}")
        if bool((codes[1:] <= codes[:-1]).any()) or int(codes[0]) < 0 or int(codes[-1]) >> (3 * finest):
            raise UsageError(f"octree: the codes of cells must rise from 0 to below 2^{3 * finest}")
        coded = [codes]
        for level in range(finest - 1, base - 1, -1):
            parents = torch.unique_consecutive(coded[0] >> 3)
            coded.insert(0, _and_beside(parents, level) if graded else parents)
        if graded:
            coded[0] = torch.arange(8**base, device=codes.device)
        return cls.of_levels(coded, base)

    @classmethod
    def of_levels(cls, coded: Sequence[Tensor], base: int) -> OctreeIndex:
        """The octree with the cells of `coded`, by level from `base`; all but the first have their parents there."""
        levels, codes = len(coded), coded[-1]
        first_cell = [0, *accumulate(map(len, coded))]
        records = torch.full((first_cell[-1], 16), -1, dtype=torch.int32, device=codes.device)
        corners, first_row = [], [0]
        for level, here in enumerate(coded):
            own = records[first_cell[level] : first_cell[level + 1]]
            if level + 1 < levels:
                below = coded[level + 1]
                parent = torch.searchsorted(here, below >> 3)
                number = torch.arange(first_cell[level + 1], first_cell[level + 2], device=codes.device)
                own[parent, below & 7] = number.int()
            keys, place = _distinct(_corners(cells_of(here)), 8 ** (base + level + 1))
            own[:, 8:] = (place + first_row[-1]).reshape(-1, 8).int()
            corners.append(keys)
            first_row.append(first_row[-1] + len(keys))
        roots = torch.full((8**base,), -1, dtype=torch.int32, device=codes.device)
        x, y, z = cells_of(coded[0]).unbind(1)
        roots[x + ((y + (z << base)) << base)] = torch.arange(len(coded[0]), device=codes.device).int()
        return cls(base, levels, roots, records, torch.cat(corners), tuple(first_cell), tuple(first_row))

    def to(self, device: torch.device) -> OctreeIndex:
        """The same on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("roots", "records", "corners")}
        return replace(self, **moved)

    @property
    def rows(self) -> int:
        """Rows of the table: corners of cells, in all levels."""
        return self.first_row[-1]

    def rows_kept(self, pruned: OctreeIndex) -> Tensor:
        """Which rows `pruned` still has, a mask (rows,); `pruned` has no cells that this octree has not.

        The rows that stay keep their order: those of this table by the mask are those of the table of `pruned`.

        Raises:
            UsageError: `pruned` has other levels, or cells that this octree has not.
        """
        if (pruned.base, pruned.levels) != (self.base, self.levels):
            raise UsageError(
                f"octree: the pruned one has levels {pruned.base} to {pruned.base + pruned.levels - 1}, "
                f"not {self.base} to {self.base + self.levels - 1}"
            )
        kept = [
            torch.isin(self.corners[a:b], pruned.corners[c:d], assume_unique=True)
            for a, b, c, d in zip(
                self.first_row, self.first_row[1:], pruned.first_row, pruned.first_row[1:], strict=False
            )
        ]
        mask = torch.cat(kept)
        if int(mask.sum()) != pruned.rows:
            raise UsageError("octree: the pruned one has cells that were not there: pruning only takes cells away")
        return mask


def _and_beside(codes: Tensor, level: int) -> Tensor:
    """Cells, and those that touch them, as distinct rising codes."""
    offsets = torch.cartesian_prod(*[torch.arange(-1, 2, device=codes.device)] * 3)
    around = (cells_of(codes)[:, None] + offsets).reshape(-1, 3)
    inside = ((around >= 0) & (around < 2**level)).all(1)
    return torch.unique(morton(around[inside]))


def _distinct(codes: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The distinct codes, rising, and for each of `codes`, all below `most`, which of them it is."""
    if most > 8 * len(codes):  # else counting them is faster than sorting them
        found, place = torch.unique(codes, return_inverse=True)
        return found, place
    there = torch.zeros(most, dtype=torch.bool, device=codes.device)
    there[codes] = True
    return there.nonzero().squeeze(1), (there.cumsum(0, dtype=torch.int32) - 1)[codes]


def _corners(cells: Tensor) -> Tensor:
    """The codes (8 m,) of the corners of cells (m, 3), those of one cell together, x fastest."""
    x, y, z = (
        torch.stack((_spread(low, axis), _spread(low + 1, axis)), dim=1) for axis, low in enumerate(cells.unbind(1))
    )
    return (x[:, None, None, :] | y[:, None, :, None] | z[:, :, None, None]).reshape(-1)
