"""Which row comes from where: the plan that a row edit makes before it touches anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

FRESH = -1


@dataclass(frozen=True)
class Layout:
    """The rows a tensor will have.

    `values`: for each row the row of the tensor before the edit, or, from the old number of rows on, the number of a
    new row. `moments`: for each row the old row whose optimizer state it takes over, or FRESH. Both int64, shape
    (rows,). Tensors that are edited alike share one layout.
    """

    values: Tensor
    moments: Tensor

    @classmethod
    def unchanged(cls, rows: int, device: torch.device) -> Layout:
        """Every row where it is."""
        index = torch.arange(rows, device=device)
        return cls(index, index)

    def keep(self, index: Tensor) -> Layout:
        """Only these rows, in this order."""
        return Layout(self.values[index], self.moments[index])

    def append(self, numbers: Tensor, source: Tensor | None) -> Layout:
        """New rows at the end, with the moments of the rows `source`, or fresh ones."""
        moments = torch.full_like(numbers, FRESH) if source is None else self.moments[source]
        return Layout(torch.cat([self.values, numbers]), torch.cat([self.moments, moments]))

    def replace(self, index: Tensor, numbers: Tensor, *, afresh: bool) -> Layout:
        """New rows in place of others."""
        moments = self.moments.index_fill(0, index, FRESH) if afresh else self.moments
        return Layout(self.values.index_copy(0, index, numbers), moments)


@dataclass(frozen=True)
class NewRows:
    """Rows that did not exist before; their numbers run from `first`."""

    first: int
    rows: Tensor


class Moves:
    """What a layout means for tensors of `rows` rows: found once, for all tensors that share it.

    Args:
        layout: which row comes from where.
        rows: of the tensors before the edit.
    """

    def __init__(self, layout: Layout, rows: int) -> None:
        self._layout, self._rows = layout, rows
        self._placed: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    @cached_property
    def _old_values(self) -> Tensor:
        return self._narrow(self._layout.values.clamp(max=self._rows - 1))

    @cached_property
    def _old_moments(self) -> Tensor:
        return self._narrow(self._layout.moments.clamp(min=0))

    @cached_property
    def _fresh_moments(self) -> Tensor:
        return (self._layout.moments == FRESH).nonzero().squeeze(1)

    def _narrow(self, index: Tensor) -> Tensor:
        """Rows of before at half the memory, where that can count them."""
        return index.int() if self._rows < 2**31 else index

    def _places(self, chunk: NewRows) -> tuple[Tensor, Tensor]:
        """Where new rows go, and which of `chunk` it is that goes there."""
        key = chunk.first, len(chunk.rows)
        if key not in self._placed:
            index = self._layout.values
            at = ((index >= chunk.first) & (index < chunk.first + len(chunk.rows))).nonzero().squeeze(1)
            self._placed[key] = at, index[at] - chunk.first
        return self._placed[key]

    def values(self, old: Tensor, new: Sequence[NewRows]) -> Tensor:
        """The values of a tensor, or of its average, in their new layout; `old` is not changed."""
        out = _select(old, self._old_values)
        for chunk in new:
            at, which = (index.to(old.device) for index in self._places(chunk))
            rows = chunk.rows.to(old.device, old.dtype)
            out.index_copy_(0, at, rows if len(which) == len(rows) and _counts_up(which) else rows[which])
        return out

    def moments(self, old: Tensor, fresh: float) -> Tensor:
        """A tensor of optimizer state in its new layout, `fresh` for rows that start anew; `old` is not changed."""
        out = _select(old, self._old_moments)
        return out.index_fill_(0, self._fresh_moments.to(old.device), fresh)


def _counts_up(index: Tensor) -> bool:
    """Whether `index` is 0, 1, 2 and so on: all rows, as they are."""
    return torch.equal(index, torch.arange(len(index), device=index.device))


def _select(old: Tensor, index: Tensor) -> Tensor:
    if len(old) == 0:
        return old.new_empty((len(index), *old.shape[1:]))
    return old.index_select(0, index.to(old.device))
