"""Small solids with known distances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from treadle.fields.sdf.paint import Paint
from treadle.fields.sdf.reading import Surface

MESHES = Path(__file__).resolve().parents[4] / "shared" / "data" / "meshes"
"""Meshes that are for tests alone."""


def make_box(low=(0.0, 0.0, 0.0), high=(1.0, 2.0, 3.0)) -> Surface:
    """A block of 12 triangles, its faces outwards."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    sides = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [face for a, b, c, d in sides for face in ((a, b, c), (a, c, d))]
    return Surface(np.asarray(low) + corners * (np.asarray(high) - low), np.array(faces))


def make_ball(radius: float = 1.0, rings: int = 24, paint: bool = False) -> Surface:
    """A sphere of 2 * rings * (rings - 1) * 2 triangles; with `paint` red where x is above 0, else blue."""
    columns = 2 * rings
    theta = np.pi * np.arange(1, rings) / rings
    phi = 2 * np.pi * np.arange(columns) / columns
    ring = np.stack([np.outer(np.sin(theta), np.cos(phi)), np.outer(np.sin(theta), np.sin(phi)),
                     np.outer(np.cos(theta), np.ones(columns))], 2).reshape(-1, 3)  # fmt: skip
    vertices = radius * np.concatenate([ring, [[0, 0, 1], [0, 0, -1]]])
    top, bottom, faces = len(ring), len(ring) + 1, []
    for j in range(columns):
        k = (j + 1) % columns
        faces += [(top, j, k), (bottom, (rings - 2) * columns + k, (rings - 2) * columns + j)]
        for i in range(rings - 2):
            a, b, c, d = i * columns + j, i * columns + k, (i + 1) * columns + j, (i + 1) * columns + k
            faces += [(a, c, d), (a, d, b)]
    indices = np.array(faces)
    shades = np.where(vertices[indices].mean(1)[:, :1] > 0, [1.0, 0, 0], [0, 0, 1.0])
    return Surface(vertices, indices, Paint.plain(np.repeat(shades[:, None], 3, 1)) if paint else None)


@pytest.fixture
def box():
    """Makes a block."""
    return make_box


@pytest.fixture
def ball():
    """Makes a sphere."""
    return make_ball


@pytest.fixture
def spot() -> Path:
    path = MESHES / "spot" / "spot.obj"
    if not path.exists():
        pytest.skip(f"{path} is not there: it is for development alone")
    return path
