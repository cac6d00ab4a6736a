"""Where the rows of a multiresolution hash grid lie: levels, resolutions, and which of them are hashed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from treadle.errors import UsageError

BLOCK = 64
"""Points that compiled loops work on together, a multiple of 16."""


@dataclass(frozen=True)
class GridLayout:
    """The shape of a multiresolution hash grid over [-1, 1]^d.

    Level l has `resolutions[l] = floor(n_min * b**l)` vertices per axis, `b = (n_max / n_min)**(1 / (levels - 1))`. A
    level whose vertices fit into `2**log2_size` rows is stored densely (vertex c at row c_x + N c_y + N^2 c_z); a finer
    one shares that many rows by hashing. All levels lie behind one another in a single table (`rows`, `features`);
    level l owns the rows `offsets[l]` to `offsets[l] + sizes[l]`.

    Attributes:
        dimensions: axes of the points, 2 or 3.
        levels: resolutions, at least 1. With one level its resolution is `n_min`.
        features: values per row, 1 to 8.
        log2_size: base-two logarithm of the most rows a level may have, 1 to 24.
        n_min, n_max: vertices per axis of the coarsest and finest level, 2 <= n_min <= n_max <= 2**20.
        flat_border: cells 2 / N wide instead of 2 / (N - 1), as Treadle 0.1.0 and kaolin-wisp have them: the outermost
            1 / N of each axis reads the last vertex alone. Only for what was trained so.

    Raises:
        UsageError: a number outside its range.
    """

    dimensions: int
    levels: int = 16
    features: int = 2
    log2_size: int = 15
    n_min: int = 16
    n_max: int = 512
    flat_border: bool = False
    resolutions: tuple[int, ...] = field(init=False, repr=False)
    sizes: tuple[int, ...] = field(init=False, repr=False)
    offsets: tuple[int, ...] = field(init=False, repr=False)
    dense: tuple[bool, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("dimensions", 2, 3),
            ("levels", 1, 64),
            ("features", 1, 8),
            ("log2_size", 1, 24),
            ("n_min", 2, 2**20),
            ("n_max", 2, 2**20),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise UsageError(f"hash grid: {name} must be a whole number from {low} to {high}, got {value!r}")
        if self.n_max < self.n_min:
            raise UsageError(f"hash grid: n_max ({self.n_max}) must not be below n_min ({self.n_min})")
        growth = math.log(self.n_max / self.n_min) / max(self.levels - 1, 1)
        # The small addend keeps the last level at n_max where rounding puts the product a hair below it.
        resolutions = tuple(int(self.n_min * math.exp(growth * level) + 1e-6) for level in range(self.levels))
        most = 2**self.log2_size
        sizes = tuple(min(n**self.dimensions, most) for n in resolutions)
        dense = tuple(n**self.dimensions <= most for n in resolutions)
        offsets = tuple(sum(sizes[:level]) for level in range(self.levels))
        for name, value in (("resolutions", resolutions), ("sizes", sizes), ("offsets", offsets), ("dense", dense)):
            object.__setattr__(self, name, value)

    @property
    def scales(self) -> tuple[float, ...]:
        """Per level, cells per unit of length: vertex c lies at x = c / scale - 1."""
        return tuple((n if self.flat_border else n - 1) / 2 for n in self.resolutions)

    @property
    def rows(self) -> int:
        """Rows of the whole table."""
        return self.offsets[-1] + self.sizes[-1]

    @property
    def width(self) -> int:
        """Values per encoded point: levels times features."""
        return self.levels * self.features
