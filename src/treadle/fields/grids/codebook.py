"""An octree whose corners store which entry of a small dictionary they are (VQAD, Takikawa et al. 2022,
https://arxiv.org/abs/2206.07707): after training some bits a corner are left of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treadle.errors import UsageError
from treadle.fields.grids.baked import BakedCodebookGrid
from treadle.fields.grids.octree import SparseGrid
from treadle.kernels.codebook import chosen


class CodebookGrid(SparseGrid):
    """A corner has logits over the 2^bits entries of its level's dictionary; its features are the likeliest entry.

    The choice is the same in training and after it; the gradient to the logits is that of the softmax-weighted mean of
    the entries (`kernels.codebook`). The softmax sees them times `SHARPNESS`, so that at one learning rate, under Adam,
    they move as fast as they have to. `baked()` drops them. Arguments are those of `SparseGrid`, and `bits`.

    Parameters: `logits` (rows, 2^bits), normal of standard deviation `LOGITS`; `dictionary` (levels, 2^bits, features),
    normal of standard deviation `ENTRIES`.
    """

    SHARPNESS, LOGITS, ENTRIES = 10.0, 1e-3, 1e-2

    def __init__(
        self, cells: Tensor | None = None, levels: int = 4, features: int = 4, base: int = 3, bits: int = 4
    ) -> None:
        super().__init__(cells, levels, features, base)
        if not 1 <= bits <= 8:
            raise UsageError(f"codebook: bits is {bits}: expected 1 to 8")
        self.bits = bits
        self.logits = nn.Parameter(torch.randn(self.index.rows, 2**bits) * self.LOGITS)
        self.dictionary = nn.Parameter(torch.randn(levels, 2**bits, features) * self.ENTRIES)
        self._seen: tuple[tuple[int, ...], Tensor] | None = None

    def rows(self) -> dict[str, nn.Parameter]:
        """The logits."""
        return {"logits": self.logits}

    def forward(self, points: Tensor, lod: int | None = None) -> Tensor:
        """Encode `points` (n, 3) as (n, levels * features); zeros outside of the box."""
        return self._blended(points, self._table(), lod)

    def _table(self) -> Tensor:
        """The features of every row; in evaluation, where a picture asks for them many times, they are kept."""
        parts = self.logits, self.dictionary
        if self.training or torch.is_grad_enabled():
            self._seen = None
            return chosen(*parts, self.index.first_row, self.SHARPNESS)
        now = (*(part.data_ptr() for part in parts), *(part._version for part in parts))
        if self._seen is None or self._seen[0] != now:
            self._seen = now, chosen(*parts, self.index.first_row)
        return self._seen[1]

    @torch.no_grad()
    def baked(self) -> BakedCodebookGrid:
        """The same grid for inference alone, in some bits a corner; its features are equal, bit for bit."""
        return BakedCodebookGrid.of(self.index, self.logits.argmax(1), self.dictionary)

    def extra_repr(self) -> str:
        """For `print(module)`."""
        return f"{super().extra_repr()}, bits={self.bits}"
