"""Similarities between coordinate systems: a rotation times a factor, and a translation, as (4, 4) matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError

Matrix = NDArray[np.float64]

UPS = {"x": (1, 0, 0), "y": (0, 1, 0), "z": (0, 0, 1), "-x": (-1, 0, 0), "-y": (0, -1, 0), "-z": (0, 0, -1)}
"""The axes that can point up, by name."""


def upright(up: str) -> Matrix:
    """The similarity that turns the axis named `up`, one of `UPS`, to where y is, by the shortest way.

    Raises:
        UsageError: another name.
    """
    if up not in UPS:
        raise UsageError(f"--up {up}: expected {', '.join(UPS)}")
    old, new = np.array(UPS[up], np.float64), np.array([0.0, 1.0, 0.0])
    matrix = np.eye(4)
    if up == "-y":
        matrix[:3, :3] = np.diag([1.0, -1.0, -1.0])
    else:
        v = np.cross(old, new)
        cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
        matrix[:3, :3] += cross + cross @ cross / (1 + old @ new)
    return matrix


def scaling(factor: float) -> Matrix:
    """The similarity that scales by `factor`; raises UsageError unless that is finite and above 0."""
    if not math.isfinite(factor) or factor <= 0:
        raise UsageError(f"--scale {factor:g}: expected a number above 0")
    return np.diag([factor, factor, factor, 1.0])


def box_around(box: Sequence[float], similarity: Matrix) -> Matrix:
    """The box along the axes of one system, (2, 3), that holds `box` (x0, y0, z0, x1, y1, z1) of the other.

    `similarity` leads from the one to the other, such as from the coordinates of training to those of a file.
    """
    corners = np.array(list(product(*zip(box[:3], box[3:], strict=True))))
    places = np.linalg.solve(similarity[:3, :3], (corners - similarity[:3, 3]).T).T
    return np.stack([places.min(0), places.max(0)])
