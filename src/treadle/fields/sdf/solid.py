"""A mesh as the boundary of a solid: welded, turned outwards, centred and scaled; or refused, by name.

A distance has a sign only where there is an inside. What can be told from the mesh is mended and noted (seams of
texture coordinates, faces turned round, a mesh turned inside out); what leaves a doubt is noted (holes); what encloses
nothing is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from treadle.data.fingerprint import Fingerprint
from treadle.errors import UsageError
from treadle.fields.sdf.distance import Floats, closest, winding
from treadle.fields.sdf.paint import Paint
from treadle.fields.sdf.reading import Surface, read_surface
from treadle.fields.sdf.topology import Topology, topology

RADIUS = 0.9
"""How far from the origin the farthest vertex is: samples near the surface stay within [-1, 1]^3."""

_WELD = (0.0, 1e-6)
"""Vertices that are nearer, relative to the mesh's size, are one: first those at the same place; if that leaves holes,
those that rounding has moved apart."""

_BESIDE = 1e-3
"""How far beside a face it is asked what is inside, in units of the solid."""


@dataclass(frozen=True, eq=False)
class Solid:
    """A mesh with an inside, in [-1, 1]^3.

    Attributes:
        vertices: (n, 3) float64, the farthest `RADIUS` from the origin.
        faces: (m, 3) int64, counterclockwise seen from outside.
        paint: its colours, where it has some.
        center, scale: a point of the input is at `(point - center) * scale`.
        name: of its file, for messages.
        notes: what was mended, and what to be wary of.
    """

    vertices: Floats
    faces: NDArray[np.int64]
    paint: Paint | None
    center: Floats
    scale: float
    name: str = "the mesh"
    notes: tuple[str, ...] = ()

    @property
    def to_input(self) -> Floats:
        """(4, 4), from its coordinates to those of the input."""
        matrix = np.diag([1 / self.scale, 1 / self.scale, 1 / self.scale, 1.0])
        matrix[:3, 3] = self.center
        return matrix

    @cached_property
    def topology(self) -> Topology:
        """How its faces hang together."""
        return topology(self.faces)

    @cached_property
    def areas(self) -> Floats:
        """(m,) of its faces."""
        found: Floats = np.linalg.norm(_crosses(self.vertices, self.faces), axis=1) / 2
        return found

    @cached_property
    def normals(self) -> Floats:
        """(m, 3) of its faces, outwards, of unit length; 0 for faces without an area."""
        crosses = _crosses(self.vertices, self.faces)
        return crosses / np.maximum(np.linalg.norm(crosses, axis=1, keepdims=True), 1e-300)

    @property
    def diagonal(self) -> float:
        """Of the box around it."""
        return float(np.linalg.norm(np.ptp(self.vertices, axis=0)))

    def inside(self, points: Floats) -> NDArray[np.bool_]:
        """(n,) whether `points` (n, 3) are inside."""
        return winding(self.vertices, self.faces, points) > 0.5

    def distances(self, points: Floats) -> Floats:
        """(n,) signed distances of `points` (n, 3), negative inside."""
        return self.seen_from(points)[0]

    def seen_from(self, points: Floats) -> tuple[Floats, NDArray[np.int64], Floats]:
        """Signed distances (n,) of `points` (n, 3), the nearest faces (n,) and the nearest places on them (n, 3)."""
        distances, faces, places = closest(self.vertices, self.faces, points)
        return np.where(self.inside(points), -distances, distances), faces, places

    def surface(self, draws: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """Points on it, evenly by area: (n, 3), and their faces (n,); from `draws` (n, 3), uniform in [0, 1)."""
        sums = np.cumsum(self.areas)
        faces = np.searchsorted(sums, draws[:, 0] * sums[-1], side="right").clip(0, len(sums) - 1)
        root = np.sqrt(draws[:, 1:2])
        weights = np.concatenate([1 - root, root * (1 - draws[:, 2:]), root * draws[:, 2:]], 1)
        return np.einsum("nk,nkc->nc", weights, self.vertices[self.faces[faces]]), faces

    def colors(self, places: Floats, faces: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, 3) sRGB from 0 to 1 at `places` (n, 3) on its `faces` (n,); white where it has no colours."""
        if self.paint is None:
            return np.ones((len(places), 3), np.float32)
        return self.paint.at(faces, barycentric(self.vertices[self.faces[faces]], places))

    def fingerprint(self) -> str:
        """SHA-256 over what is trained on."""
        digest = Fingerprint().add(self.vertices).add(self.faces)
        if self.paint is not None:
            digest.add(self.paint.corners).add(self.paint.places).add(self.paint.image).add(list(self.paint.images))
        return digest.hexdigest()


def read_solid(path: str | Path, texture: str | Path | None = None) -> Solid:
    """The solid that a mesh file encloses; see `read_surface` and `enclose` for what is refused."""
    return enclose(read_surface(path, texture), str(path))


def enclose(surface: Surface, name: str = "the mesh") -> Solid:
    """Make a solid of triangles.

    Raises:
        UsageError: no faces of any area, a coordinate that is not finite, or nothing that they enclose.
    """
    vertices, faces = np.asarray(surface.vertices, np.float64), np.asarray(surface.faces, np.int64)
    notes = list(surface.notes)
    if not len(faces):
        raise UsageError(f"{name} has no faces: a distance field needs a mesh with triangles, not points or lines")
    if not np.isfinite(vertices[faces]).all():
        raise UsageError(f"{name} has a coordinate that is not finite: mend the mesh")
    corners = vertices[np.unique(faces)]
    low, high = corners.min(0), corners.max(0)
    center = low + (high - low) / 2
    half = float((high / 2 - low / 2).max())
    if half < 1e-290:
        raise UsageError(f"{name} has all its vertices in one place: a distance field needs a solid")
    scale = RADIUS / half / float(np.linalg.norm((corners - center) / half, axis=1).max())
    used = np.zeros(len(vertices), bool)
    used[faces] = True
    placed = np.where(used[:, None], vertices - center, 0) * scale
    welded, kept = _welded(placed, faces)
    if not len(kept):
        raise UsageError(f"{name} has no face with an area: a distance field needs a solid")
    if len(kept) < len(faces):
        notes.append(f"{len(faces) - len(kept)} of its {len(faces)} faces have no area or are there twice: left out")
    paint = None if surface.paint is None else surface.paint.of(kept)
    solid = Solid(placed, welded, paint, center, scale, name, tuple(notes))
    return _turned_outwards(_turned_alike(_compact(solid)))


def barycentric(corners: Floats, places: Floats) -> Floats:
    """(n, 3) weights of the `corners` (n, 3, 3) of triangles at `places` (n, 3) on them."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    p = places - corners[:, 0]
    aa, ab, bb = (a * a).sum(1), (a * b).sum(1), (b * b).sum(1)
    pa, pb = (p * a).sum(1), (p * b).sum(1)
    area = np.maximum(aa * bb - ab * ab, 1e-300)
    v, w = (bb * pa - ab * pb) / area, (aa * pb - ab * pa) / area
    weights = np.stack([1 - v - w, v, w], 1).clip(0, 1)
    return weights / np.maximum(weights.sum(1, keepdims=True), 1e-12)


def _welded(vertices: Floats, faces: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The faces with one number for all vertices at a place, empty and double ones left out; and which they are."""
    first: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
    for distance in _WELD:
        places = vertices + 0.0 if distance == 0 else np.round(vertices / distance)
        _, index, number = np.unique(places, axis=0, return_index=True, return_inverse=True)
        merged = index[number.reshape(-1)][faces]
        kept = np.flatnonzero((merged != np.roll(merged, 1, 1)).all(1))
        _, once = np.unique(_cycled(merged[kept]), axis=0, return_index=True)
        kept = kept[np.sort(once)]
        found = merged[kept], kept
        if topology(found[0]).open_edges == 0:
            return found
        first = first or found
    assert first is not None
    return first


def _cycled(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each face with its smallest vertex first, turned as it is."""
    start = faces.argmin(1)[:, None]
    return np.take_along_axis(faces, (start + np.arange(3)) % 3, 1)


def _compact(solid: Solid) -> Solid:
    used, number = np.unique(solid.faces, return_inverse=True)
    return replace(solid, vertices=solid.vertices[used], faces=number.reshape(-1, 3).astype(np.int64))


def _turned_alike(solid: Solid) -> Solid:
    """The solid with single faces turned round that go another way than most of those around them."""
    if not solid.topology.crossed_edges:
        return solid
    from treadle.fields.sdf.distance import igl

    turned, patches = igl().bfs_orient(np.ascontiguousarray(solid.faces))
    round_ = (_cycled(np.asarray(turned, np.int64)) != _cycled(solid.faces)).any(1)
    patches = np.asarray(patches).reshape(-1)
    # Which of the two ways is right is the majority's decision, patch by patch.
    share = np.bincount(patches, round_) / np.maximum(np.bincount(patches), 1)
    flip = round_ ^ (share > 0.5)[patches]
    if not flip.any():
        return _noted(solid, _doubt(solid))
    mended = _flipped(solid, flip)
    if mended.topology.crossed_edges:
        return _noted(solid, _doubt(solid))
    return _noted(mended, f"{int(flip.sum())} of its {len(flip)} faces went the other way than those around them: "
                  "turned round")  # fmt: skip


def _turned_outwards(solid: Solid) -> Solid:
    """The solid with its faces outwards. Raises UsageError where there is no inside."""
    alright, reverse = _sides(solid)
    if reverse > max(alright, 0.5):
        solid = _noted(_flipped(solid, np.ones(len(solid.faces), bool)), "it was inside out: all faces turned round")
        alright, reverse = _sides(solid)
    if alright < 0.5:
        raise UsageError(
            f"{solid.name} encloses no volume ({100 * alright:.0f}% of its surface has an inside): a distance field "
            "needs a solid, with its faces outwards; close the mesh, or give its faces one orientation"
        )
    shape = solid.topology
    if shape.open_edges:
        solid = _noted(
            solid,
            f"it is not watertight ({shape.open_edges} of its {shape.edges} edges do not have two faces): what is "
            "inside is told by the winding number, and is in doubt near the holes",
        )
    if alright < 0.99:
        solid = _noted(solid, f"{100 * (1 - alright):.0f}% of its surface lies inside of the solid, or is turned "
                       "inwards: the field has no zero there, and its distances go to that surface too")  # fmt: skip
    return solid


def _sides(solid: Solid) -> tuple[float, float]:
    """Which share of the area has inside on its inner side alone, and which on its outer side alone, turned round."""
    middles = solid.vertices[solid.faces].mean(1)
    inner = winding(solid.vertices, solid.faces, middles - _BESIDE * solid.normals)
    outer = winding(solid.vertices, solid.faces, middles + _BESIDE * solid.normals)
    total = solid.areas.sum()
    # A sheet has half a turn on either side.
    alright, reverse = (inner > 0.6) & (outer < 0.5), (outer < -0.6) & (inner > -0.5)
    return float(solid.areas[alright].sum() / total), float(solid.areas[reverse].sum() / total)


def _flipped(solid: Solid, chosen: NDArray[np.bool_]) -> Solid:
    order = np.where(chosen[:, None], np.array([0, 2, 1]), np.arange(3))
    paint = None if solid.paint is None else solid.paint.of(np.arange(len(chosen)), order)
    return replace(solid, faces=np.take_along_axis(solid.faces, order, 1), paint=paint)


def _noted(solid: Solid, note: str) -> Solid:
    return replace(solid, notes=(*solid.notes, note))


def _doubt(solid: Solid) -> str:
    return (f"{solid.topology.crossed_edges} of its {solid.topology.edges} edges have two faces that go different "
            "ways: what is inside is told by the winding number, and is in doubt there")  # fmt: skip


def _crosses(vertices: Floats, faces: NDArray[np.int64]) -> Floats:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a)
