"""How the faces of a mesh hang together: edges, parts, orientation, genus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Faces = NDArray[np.int64]


@dataclass(frozen=True)
class Topology:
    """What is to be said about a mesh's faces.

    Attributes:
        vertices, edges, faces: how many there are; vertices that no face has do not count.
        parts: how many pieces of faces that share vertices.
        open_edges: edges that not exactly two faces have; 0 is watertight.
        crossed_edges: edges whose two faces go along them in the same direction: one of the two is turned round.
    """

    vertices: int
    edges: int
    faces: int
    parts: int
    open_edges: int
    crossed_edges: int

    @property
    def watertight(self) -> bool:
        """Whether every edge has two faces that are turned the same way."""
        return self.faces > 0 and self.open_edges == 0 and self.crossed_edges == 0

    @property
    def euler(self) -> int:
        """Vertices less edges plus faces: 2 for each part that is a sphere, 0 for each torus."""
        return self.vertices - self.edges + self.faces

    @property
    def genus(self) -> int | None:
        """How many handles all parts have together; None where the mesh is not watertight."""
        return (2 * self.parts - self.euler) // 2 if self.watertight else None

    def __str__(self) -> str:
        if not self.watertight:
            return f"{self.parts} parts, not watertight: {self.open_edges + self.crossed_edges} of {self.edges} edges"
        return f"{self.parts} part{'s' * (self.parts != 1)}, watertight, genus {self.genus}"


def topology(faces: NDArray[Any]) -> Topology:
    """That of (m, 3) indices of vertices."""
    faces = np.asarray(faces, np.int64)
    if not len(faces):
        return Topology(0, 0, 0, 0, 0, 0)
    directed = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    size = int(faces.max()) + 1
    keys = directed.min(1) * size + directed.max(1)
    forward = (directed[:, 0] < directed[:, 1]).astype(np.int64)
    _, number, counts = np.unique(keys, return_inverse=True, return_counts=True)
    forwards = np.bincount(number, forward, len(counts))
    used = np.unique(faces)
    parts = int(parts_of(faces).max()) + 1
    paired = counts == 2
    return Topology(
        len(used), len(counts), len(faces), parts, int((~paired).sum()), int((paired & (forwards != 1)).sum())
    )


def parts_of(faces: NDArray[Any]) -> NDArray[np.int64]:
    """(m,) which part each face belongs to, numbered from 0."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    faces = np.asarray(faces, np.int64)
    used, compact = np.unique(faces, return_inverse=True)
    compact = compact.reshape(faces.shape)
    ends = compact[:, [0, 1, 1, 2]].reshape(-1, 2)
    links = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), (len(used), len(used)))
    _, labels = connected_components(links, directed=False)
    numbers: NDArray[np.int64] = np.unique(labels[compact[:, 0]], return_inverse=True)[1].astype(np.int64)
    return numbers
