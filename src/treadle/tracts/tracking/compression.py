"""Compression: fewer points for the same line."""

from __future__ import annotations

import numpy as np

from treadle.kernels.thinning import thin
from treadle.tracts.streamlines import Streamlines


def compressed(lines: Streamlines, tolerance: float, voxel_sizes: np.ndarray) -> Streamlines:
    """The lines without points that lie within `tolerance` mm of what is left; no new segment is longer than 10 mm."""
    keep = thin(lines.points * np.asarray(voxel_sizes), lines.offsets, tolerance)
    offsets = np.concatenate([[0], np.cumsum(keep)])[lines.offsets]
    per_point = {name: values[keep] for name, values in lines.per_point.items()}
    return Streamlines(lines.points[keep], offsets, lines.per_line, per_point)
