"""Exact distances from a mesh, and what is inside of it, by libigl.

The distance is that to the nearest triangle; what is inside is told by the winding number (fast winding numbers of
Barill et al. 2018, https://doi.org/10.1145/3197517.3201337), which small holes do not disturb. Each point's figures
depend on that point alone, and not on how many threads there are. libigl holds Python's lock meanwhile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError

Floats = NDArray[np.float64]


def igl() -> Any:
    """The libigl package. Raises UsageError where it is not installed."""
    try:
        import igl
    except ImportError:
        raise UsageError("distances from a mesh need libigl: pip install 'treadle[fields]'") from None
    return igl


def closest(vertices: Floats, faces: NDArray[np.int64], points: Floats) -> tuple[Floats, NDArray[np.int64], Floats]:
    """For each of `points` (n, 3) the distance to a mesh (n,), the nearest face (n,) and the nearest place (n, 3)."""
    if not len(points):
        return np.zeros(0), np.zeros(0, np.int64), np.zeros((0, 3))
    vertices, faces, points = _plain(vertices, faces, points)
    squares, found, places = igl().point_mesh_squared_distance(points, vertices, faces)
    return np.sqrt(squares), found, places


def winding(vertices: Floats, faces: NDArray[np.int64], points: Floats) -> Floats:
    """The winding number of a mesh around `points` (n, 3): 1 inside, 0 outside, -1 inside of one turned inside out."""
    if not len(points):
        return np.zeros(0)
    numbers: Floats = igl().fast_winding_number(*_plain(vertices, faces, points))
    return numbers


def _plain(vertices: Floats, faces: NDArray[np.int64], points: Any) -> tuple[Floats, NDArray[np.int64], Floats]:
    return (
        np.ascontiguousarray(vertices, np.float64),
        np.ascontiguousarray(faces, np.int64),
        np.ascontiguousarray(points, np.float64),
    )
