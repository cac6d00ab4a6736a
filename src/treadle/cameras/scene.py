"""What the reader of one format hands over: views, points and what is to be said; before anything is split or read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.photographs import View
from treadle.cameras.splitting import Split

OnMissing = Literal["refuse", "skip"]


@dataclass
class Scene:
    """A capture as its files describe it.

    Attributes:
        source: the file or folder to name in messages.
        views: all of them; sorted by name where `split` is None.
        split: where the files say which views are trained on.
        points, colors: (n, 3) float64 and uint8, or None.
        notes: a line each.
        aabb_scale: instant-ngp's, or 1.
    """

    source: Path
    views: list[View]
    split: Split | None = None
    points: NDArray[np.float64] | None = None
    colors: NDArray[np.uint8] | None = None
    notes: list[str] = field(default_factory=list)
    aabb_scale: float = 1.0
