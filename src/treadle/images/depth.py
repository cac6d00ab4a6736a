"""Depths as colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from treadle.images.heat import heat
from treadle.images.reading import Pixels


def shown_depth(depth: Tensor, alpha: Tensor, ends: tuple[float, float] | None = None) -> Pixels:
    """Depths (H, W) as colours, near bright and far dark, (H, W, 3) uint8; black where less than half is covered.

    `ends` are the nearest and the farthest depth of the scale, for several pictures on one; by default this one's.
    """
    values, covered = depth.detach().cpu().numpy().astype(np.float64), alpha.detach().cpu().numpy() > 0.5
    if not covered.any():
        return np.zeros((*values.shape, 3), np.uint8)
    near, far = depth_ends(values[covered]) if ends is None else ends
    share = np.clip((far - values) / max(far - near, 1e-9), 0, 1) * 0.85 + 0.15
    shown: Pixels = (heat(share) * covered[..., None] * 255 + 0.5).astype(np.uint8)
    return shown


def depth_ends(depths: NDArray[np.floating]) -> tuple[float, float]:
    """The nearest and the farthest of depths (n,), one at least, that a scale of colours is to show."""
    # The nearest and farthest hundredth may be anything: a single stray splat is not to darken all others.
    near, far = np.percentile(depths, [1, 99])
    return float(near), float(far)
