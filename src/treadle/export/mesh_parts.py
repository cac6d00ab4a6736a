"""Meshes cut and moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from treadle.export.mesh import Mesh


def largest_part(mesh: Mesh) -> Mesh:
    """The part of a mesh that hangs together and has the most faces."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    a, b, c = mesh.faces.T
    ones = np.ones(2 * len(a), np.int8)
    links = coo_array((ones, (np.concatenate([a, b]), np.concatenate([b, c]))), (len(mesh.vertices),) * 2)
    _, part = connected_components(links, directed=False)
    keep = np.bincount(part[a]).argmax()
    return chosen(mesh, part[a] == keep)


def cropped(mesh: Mesh, box: Sequence[float]) -> Mesh:
    """The faces whose corners are all in a box (x0, y0, z0, x1, y1, z1)."""
    corners = np.asarray(box, np.float64).reshape(2, 3)
    inside = ((mesh.vertices >= corners[0]) & (mesh.vertices <= corners[1])).all(1)
    return chosen(mesh, inside[mesh.faces].all(1))


def moved(mesh: Mesh, similarity: NDArray[np.float64]) -> Mesh:
    """The mesh in other coordinates; (4, 4), from its own to those."""
    places = mesh.vertices.astype(np.float64) @ similarity[:3, :3].T + similarity[:3, 3]
    return Mesh(places.astype(np.float32), mesh.faces, mesh.colors)


def chosen(mesh: Mesh, faces: NDArray[np.bool_]) -> Mesh:
    """Some faces of a mesh (a mask), and the vertices that they use."""
    kept = mesh.faces[faces]
    used = np.zeros(len(mesh.vertices), bool)
    used[kept] = True
    number = np.cumsum(used) - 1
    return Mesh(
        mesh.vertices[used],
        number[kept].astype(np.int32),
        None if mesh.colors is None else mesh.colors[used],
    )
