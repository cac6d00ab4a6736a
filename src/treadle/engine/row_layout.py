"""Which row comes from where: the plan that a row edit makes before it touches anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


def lay_out_values(old: Tensor, layout: Layout, new: Sequence[NewRows]) -> Tensor:
    """Return the values of a tensor, or of its average, in their new layout; `old` is not changed."""
    index = layout.values.to(old.device)
    out = _select(old, index.clamp(max=len(old) - 1))
    for chunk in new:
        at = ((index >= chunk.first) & (index < chunk.first + len(chunk.rows))).nonzero().squeeze(1)
        rows = chunk.rows.to(old.device, old.dtype)
        out.index_copy_(0, at, rows.index_select(0, index[at] - chunk.first))
    return out


def lay_out_moments(old: Tensor, layout: Layout, fresh: float) -> Tensor:
    """Return a tensor of optimizer state in its new layout, `fresh` for rows that start anew."""
    index = layout.moments.to(old.device)
    out = _select(old, index.clamp(min=0))
    return out.index_fill_(0, (index == FRESH).nonzero().squeeze(1), fresh)


def _select(old: Tensor, index: Tensor) -> Tensor:
    if len(old) == 0:
        return old.new_empty((len(index), *old.shape[1:]))
    return old.index_select(0, index)
