"""The multiresolution hash grid of Instant NGP (Müller et al. 2022, https://arxiv.org/abs/2201.05989), as a module."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from treadle.errors import UsageError
from treadle.fields.grid import Grid
from treadle.kernels.hashgrid import encode
from treadle.kernels.layout import GridLayout

MARK = "to_border"
"""The buffer that says that the outermost vertices lie at -1 and 1. States of version 0.1.0 lack it: see
`GridLayout.flat_border`."""


class HashEncoding(Grid):
    """Encodes points in [-1, 1]^d as `levels * features` values; see `GridLayout` for its arguments.

    The only parameter is `table` (rows, features), float32, uniform in +-1e-4. A state that Treadle 0.1.0 saved is
    taken as it was meant: from then on `layout.flat_border` holds, also in what is saved again.
    """

    def __init__(
        self,
        dimensions: int,
        levels: int = 16,
        features: int = 2,
        log2_size: int = 15,
        n_min: int = 16,
        n_max: int = 512,
    ) -> None:
        super().__init__()
        self.layout = GridLayout(dimensions, levels, features, log2_size, n_min, n_max)
        self.dimensions, self.levels, self.width = dimensions, levels, self.layout.width
        self.table = nn.Parameter(torch.empty(self.layout.rows, features).uniform_(-1e-4, 1e-4))
        self.register_buffer(MARK, torch.ones((), dtype=torch.uint8))

    def forward(self, points: Tensor, lod: int | None = None) -> Tensor:
        """Encode `points` (n, d) as (n, levels * features)."""
        return encode(points.to(self.table.dtype), self.table, self.layout, self.used(lod))

    def extra_repr(self) -> str:
        """The layout, for `print(module)`."""
        return repr(self.layout).removeprefix("GridLayout(").removesuffix(")")

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        flat = prefix + MARK not in state_dict
        if flat != self.layout.flat_border:
            self.layout = replace(self.layout, flat_border=flat)
            self.register_buffer(MARK, None if flat else torch.ones((), dtype=torch.uint8, device=self.table.device))
        super()._load_from_state_dict(state_dict, prefix, *others)


def kept(encoded: Tensor, lod: int, features: int) -> Tensor:
    """Features (n, levels * features) with those of levels finer than `lod` as zero."""
    if not 0 <= lod < encoded.shape[1] // features:
        raise UsageError(f"lod is {lod}: expected 0 to {encoded.shape[1] // features - 1}")
    mask = torch.arange(encoded.shape[1], device=encoded.device) < (lod + 1) * features
    return encoded * mask
