"""Features at the corners of occupied cells, in several levels of an octree (NGLOD, Takikawa et al. 2021,
https://arxiv.org/abs/2101.10994); cells can be pruned while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from treadle.engine.rows import RowEdit
from treadle.errors import UsageError
from treadle.fields.grid import Grid
from treadle.fields.grids.hash import kept
from treadle.kernels.octree import encode
from treadle.kernels.octree_index import OctreeIndex, cells_of, morton

EditRows = Callable[[Mapping[str, Tensor]], RowEdit]
"""What begins a row edit: a trainer's `edit_rows`, or `RowEdit` itself, which knows of no optimizer."""


FINEST_WHOLE = 7
"""The finest level of which all cells may be there: two millions."""


class SparseGrid(Grid):
    """What grids over the cells of an octree share: which cells there are, pruning, saving.

    Levels are `base` to `base + levels - 1`, of 2^l cells per axis; those of the finest are `cells`. Coarser ones are
    there where they hold some of the next finer, and beside these; all of the base level is. So in a box that is mostly
    empty a point far from `cells` has the features of coarser ones, of a size that fits its distance; without that, a
    distance's sign is a guess there. Finer features are zero where there is no cell.

    A subclass has one parameter or several with a row for each corner, and names them in `rows()`.

    Buffers: `codes` (m,) int64, the cells of the finest level as Morton codes, rising. The rest follows from them.

    Args:
        cells: (m, 3) integers from 0 to 2^finest - 1; those that come twice count once. None takes all.
        levels, base: see above.
        features: values per corner and level.
    """

    codes: Tensor

    def __init__(self, cells: Tensor | None, levels: int, features: int, base: int) -> None:
        super().__init__()
        if not 1 <= features <= 8:
            raise UsageError(f"octree: features is {features}: expected 1 to 8")
        self.dimensions, self.levels, self.width = 3, levels, levels * features
        self.base, self.features = base, features
        self.register_buffer("codes", _codes(cells, self.finest))
        self._index = OctreeIndex.of(self.codes, base, levels, graded=True)

    def rows(self) -> dict[str, nn.Parameter]:
        """The parameters that have a row for each corner, by name."""
        raise NotImplementedError(f"{type(self).__name__} is a SparseGrid without rows()")

    @property
    def finest(self) -> int:
        """The finest level: it has 2^finest cells per axis."""
        return self.base + self.levels - 1

    @property
    def index(self) -> OctreeIndex:
        """Which rows belong to which corners."""
        return self._index

    @property
    def cells(self) -> Tensor:
        """The cells of the finest level, (m, 3) int64, in the order of `centres` and of masks for `prune`."""
        return cells_of(self.codes)

    def centres(self) -> Tensor:
        """The centres of `cells`, (m, 3) float32, in [-1, 1]^3. A cell is 2 / 2^finest wide."""
        return (2 * self.cells + 1) / 2.0**self.finest - 1

    def prune(self, keep: Tensor, edit_rows: EditRows) -> int:
        """Keep some of the cells; the others go, with the corners that only they have; coarser levels follow.

        The rows of the parameters, the optimizers' moments and averages of them, and the cells change together or not
        at all. What a point within the cells that stay is encoded as does not change, in their level and in coarser
        ones.

        Args:
            keep: (m,) bool, a mask over `cells`.
            edit_rows: the trainer's `edit_rows`.

        Returns:
            how many rows went.

        Raises:
            UsageError: a mask that does not fit, or that keeps nothing.
        """
        if keep.dtype != torch.bool or keep.shape != self.codes.shape:
            raise UsageError(
                f"prune: expected a mask of {len(self.codes)} cells, got {keep.dtype} of shape {tuple(keep.shape)}"
            )
        keep = keep.to(self.codes.device)
        if bool(keep.all()):
            return 0
        if not bool(keep.any()):
            raise UsageError("prune: the mask keeps no cell, and a field without cells cannot be trained: keep some")
        codes = self.codes[keep]
        index = OctreeIndex.of(codes, self.base, self.levels, graded=True)
        stay = self._index.rows_kept(index)
        with edit_rows(self.rows()) as edit:
            edit.keep(stay)
        gone = self._index.rows - index.rows
        self.codes, self._index = codes, index
        return gone

    def _blended(self, points: Tensor, table: Tensor, lod: int | None) -> Tensor:
        found = encode(points.to(table.dtype), table, self._index)
        return found if lod is None else kept(found, lod, self.features)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Take the cells of the state, however many: parameters take the saved shapes, and the index follows."""
        for name, here in {"codes": self.codes, **self.rows()}.items():
            saved = state.get(prefix + name)
            if isinstance(saved, Tensor) and saved.shape != here.shape and saved.shape[1:] == here.shape[1:]:
                here.data = here.data.new_empty(saved.shape)
        super()._load_from_state_dict(state, prefix, *arguments)
        self._index = OctreeIndex.of(self.codes, self.base, self.levels, graded=True)

    def _apply(self, function: Any, recurse: bool = True) -> SparseGrid:
        """Move or convert; the index goes where the cells go."""
        super()._apply(function, recurse)
        self._index = self._index.to(self.codes.device)
        return self

    def extra_repr(self) -> str:
        """For `print(module)`."""
        return (
            f"levels={self.base} to {self.finest}, features={self.features}, cells={len(self.codes)}, "
            f"rows={self._index.rows}"
        )


class OctreeGrid(SparseGrid):
    """`features` values at the corners of an octree's cells, trilinear within a cell; levels are concatenated.

    The only parameter is `table` (rows, features), float32, uniform in +-1e-4. Arguments are those of `SparseGrid`.
    """

    def __init__(self, cells: Tensor | None = None, levels: int = 4, features: int = 4, base: int = 3) -> None:
        super().__init__(cells, levels, features, base)
        self.table = nn.Parameter(torch.empty(self.index.rows, features).uniform_(-1e-4, 1e-4))

    def rows(self) -> dict[str, nn.Parameter]:
        """The table."""
        return {"table": self.table}

    def forward(self, points: Tensor, lod: int | None = None) -> Tensor:
        """Encode `points` (n, 3) as (n, levels * features); zeros outside of the box."""
        return self._blended(points, self.table, lod)


def cells_at(cells: Tensor, level: int, wanted: int) -> Tensor:
    """Cells (m, 3) of one level as those of another: the coarser ones that hold them, or all the finer ones in them."""
    if wanted <= level:
        return cells >> (level - wanted)
    each = torch.arange(2 ** (wanted - level), device=cells.device)
    inside = torch.cartesian_prod(each, each, each).reshape(-1, 3)
    return ((cells[:, None] << (wanted - level)) + inside).reshape(-1, 3)


def sparse_grids(module: nn.Module) -> list[SparseGrid]:
    """The grids within a module that can be pruned."""
    return [found for found in module.modules() if isinstance(found, SparseGrid)]


def _codes(cells: Tensor | None, finest: int) -> Tensor:
    """Cells as distinct Morton codes, rising."""
    if cells is None:
        if finest > FINEST_WHOLE:
            raise UsageError(
                f"octree: level {finest} has {8**finest} cells: give those that are occupied, or fewer levels"
            )
        return torch.arange(8**finest)
    if cells.dim() != 2 or cells.shape[1] != 3 or cells.is_floating_point() or cells.dtype == torch.bool:
        raise UsageError(f"octree: cells are integers (m, 3), got {cells.dtype} of shape {tuple(cells.shape)}")
    if len(cells) == 0:
        raise UsageError("octree: there are no cells: a field needs one at least")
    low, high = int(cells.min()), int(cells.max())
    if low < 0 or high >= 2**finest:
        raise UsageError(
            f"octree: a cell's coordinate is {low if low < 0 else high}: level {finest} has 0 to {2**finest - 1}"
        )
    return torch.unique(morton(cells))
