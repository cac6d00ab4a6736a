"""Directions spread evenly over the sphere: what classes stand for."""

from __future__ import annotations

import itertools
import math

import numpy as np

from treadle.errors import UsageError


def is_sphere(classes: int) -> bool:
    """Whether there is a sphere of so many directions: 10 f^2 + 2 for a whole f (12, 42, 92, 162, 252, 362, ...)."""
    return frequency(classes) > 0


def frequency(classes: int) -> int:
    """The f with 10 f^2 + 2 = `classes`; 0 where there is none."""
    found = math.isqrt(max(0, classes - 2) // 10)
    return found if 10 * found**2 + 2 == classes else 0


def sphere(classes: int) -> np.ndarray:
    """The vertices of an icosahedron whose faces are cut into f^2 triangles each, brought to length 1.

    With each direction its opposite is there. dwi_ml takes dipy's symmetric724; 642 (f = 8) is nearest to it, and
    neighbours are 7 to 9 degrees apart there.

    Args:
        classes: 10 f^2 + 2.

    Returns:
        (classes, 3) float64.

    Raises:
        UsageError: another number.
    """
    cuts = frequency(classes)
    if cuts == 0:
        raise UsageError(f"there is no sphere of {classes} directions: expected 10 f^2 + 2, as 162, 362, 642 or 812")
    golden = (1 + math.sqrt(5)) / 2
    corners = np.array([
        point
        for a, b in itertools.product((1, -1), (golden, -golden))
        for point in ((0, a, b), (a, b, 0), (b, 0, a))
    ])  # fmt: skip
    gaps = np.linalg.norm(corners[:, None] - corners, axis=2)
    near = np.isclose(gaps, 2)
    faces = [abc for abc in itertools.combinations(range(12), 3) if all(near[i, j] for i, j in _pairs(abc))]
    weights = np.array([(i, j, cuts - i - j) for i in range(cuts + 1) for j in range(cuts + 1 - i)])
    points = (weights @ corners[np.array(faces)]).reshape(-1, 3) / cuts
    _, first = np.unique(np.round(points, 6) + 0.0, axis=0, return_index=True)
    found = points[np.sort(first)]
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def _pairs(three: tuple[int, ...]) -> list[tuple[int, int]]:
    a, b, c = three
    return [(a, b), (b, c), (a, c)]
