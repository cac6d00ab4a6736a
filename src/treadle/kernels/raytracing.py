"""Scenes of simple shapes, ray-traced: pictures, exact depths, normals and distances, the same bytes everywhere.

A scene is a list of shapes, each with a material, within the unit ball. Light is fixed: a soft main light from the
front and the right, a sky, and a studio for mirrors to see. Coordinates are in units of the scene, z points up, and
cameras follow the conventions of `treadle.cameras.camera`.

Example:
    ball = sphere(Material((0.8, 0.2, 0.1)), (0, 0, 0), 0.5)
    scene = build([[ball]])
    pixels = paint(scene, camera.world_to_camera, camera.intrinsics, camera.size)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError
from treadle.kernels import threads

Vector = tuple[float, float, float]
_Floats = NDArray[np.float64]

_KINDS = {"sphere": 0, "capsule": 1, "torus": 2, "box": 3, "cone": 4}
TEXTURES = {"plain": 0, "wood": 1, "thread": 2, "yarn": 3, "weave": 4, "marble": 5, "bands": 6}
"""What a surface may be covered with, and its number in the loops."""

_CELL = 0.009  # of the grids that hold the light: what a pixel covers in a picture of 230 pixels


@dataclass(frozen=True)
class Material:
    """What a surface is made of.

    Attributes:
        color, second: linear red, green and blue in [0, 1]; the texture mixes them.
        texture: a key of TEXTURES.
        scale: how fine the texture is, in periods per unit.
        metal: 0, or how much a metal reflects, in its colour.
        gloss: of what is no metal: 1 mirrors as polished glass does (4% seen straight on), 0 not at all.
        roughness: of the highlight of the main light, above 0 up to 1.
    """

    color: Vector
    second: Vector = (0.0, 0.0, 0.0)
    texture: str = "plain"
    scale: float = 1.0
    metal: float = 0.0
    gloss: float = 0.0
    roughness: float = 0.4


@dataclass(frozen=True)
class Shape:
    """A solid: its kind, where its middle is, its axes (rows: unit vectors in the world) and its sizes.

    `reach` is the radius of a ball around it, `width` that of a cylinder around its z axis.
    """

    kind: str
    material: Material
    center: Vector
    axes: tuple[Vector, Vector, Vector]
    sizes: tuple[float, float, float]
    radius: float
    reach: float
    width: float


def sphere(material: Material, center: Vector, radius: float, axis: Vector = (0, 0, 1)) -> Shape:
    """A ball; `axis` turns its texture."""
    return Shape("sphere", material, center, _axes(axis), (0, 0, 0), radius, radius, radius)


def capsule(material: Material, start: Vector, end: Vector, radius: float) -> Shape:
    """A round rod from `start` to `end`, its two ends half balls."""
    center, axis, half = _between(start, end)
    return Shape("capsule", material, center, _axes(axis), (half, 0, 0), radius, half + radius, radius)


def cone(material: Material, start: Vector, end: Vector, radii: tuple[float, float], rounding: float = 0.004) -> Shape:
    """A cylinder or truncated cone with these radii at its two ends, its edges rounded."""
    center, axis, half = _between(start, end)
    sizes = (radii[0] - rounding, radii[1] - rounding, half - rounding)
    return Shape("cone", material, center, _axes(axis), sizes, rounding, _length((max(radii), half)), max(radii))


def torus(material: Material, center: Vector, axis: Vector, radius: float, thickness: float) -> Shape:
    """A ring around `axis`: `radius` to the middle of its tube, a circle of radius `thickness`, below half of that."""
    return Shape(
        "torus", material, center, _axes(axis), (radius, 0, 0), thickness, radius + thickness, radius + thickness
    )


def box(
    material: Material, center: Vector, halves: Vector, rounding: float = 0.004, axis: Vector = (0, 0, 1),
    side: Vector = (1, 0, 0),
) -> Shape:  # fmt: skip
    """A block that reaches `halves` to both sides, its edges rounded; `axis` is its z axis, `side` near its x axis."""
    x, y, z = (half - rounding for half in halves)
    return Shape("box", material, center, _axes(axis, side), (x, y, z), rounding, _length(halves), _length(halves[:2]))


@dataclass(frozen=True, eq=False)
class Scene:
    """Shapes as the loops read them.

    Attributes:
        shapes: (n, 20) float64: kind, material, centre, rotation into its own frame (9 numbers), three sizes,
            rounding or radius, radius of a ball around it and of a cylinder around its z axis.
        groups: (m, 6): centre and radius of a ball around the shapes from one index up to another.
        materials: (k, 11): two colours, texture, its scale, metal, gloss, roughness.
    """

    shapes: _Floats
    groups: _Floats
    materials: _Floats

    @cached_property
    def light(self) -> tuple[_Floats, _Floats]:
        """What of the light arrives where, found once: whoever looks, the shadows stay.

        Returns:
            grids: (n, 8), for every shape a grid in its frame: its lower corner, cells per unit, corners along x, y and
                z, and the row of its first corner in `light`.
            light: (rows, 2): how much of the main light and of the sky arrives where the shape is nearest to a corner.
        """
        from treadle.kernels import raytracing_loops

        grids, rows = np.empty((len(self.shapes), 8)), 0
        for grid, shape in zip(grids, self.shapes, strict=True):
            kind, (a, b, c, rounding) = int(shape[0]), shape[14:18]
            half = np.array(
                {0: (0, 0, 0), 1: (0, 0, a), 2: (a, a, 0), 3: (a, b, c), 4: (max(a, b), max(a, b), c)}[kind]
            )
            half = half + rounding
            cell = min(_CELL, max(0.6 * half.min(), 0.4 * _CELL))
            counts = np.ceil(2 * half / cell) + 2
            grid[:] = [*(-half - cell / 2), 1 / cell, *counts, rows]
            rows += int(counts.prod())
        light = np.zeros((rows, 2))
        threads.spread(raytracing_loops.bake, threads.parts_for(rows), self.shapes, self.groups, grids, light)
        return grids, light


def build(groups: Sequence[Sequence[Shape]]) -> Scene:
    """The scene of these shapes; what stands close together is best put into one group.

    Raises:
        UsageError: a shape that reaches out of the unit ball, a size that is not positive, or a torus too thick.
    """
    rows, balls, materials = [], [], list(dict.fromkeys(shape.material for group in groups for shape in group))
    for group in groups:
        for shape in group:
            if _farthest(shape) > 1:
                raise UsageError(f"a {shape.kind} at {shape.center} reaches out of the scene")
            thick = shape.kind == "torus" and 2 * shape.radius >= shape.sizes[0]
            if shape.radius <= 0 or min(shape.sizes) < 0 or thick:
                raise UsageError(f"a {shape.kind} at {shape.center} has sizes that no such shape has")
            axes = [number for axis in shape.axes for number in axis]
            number = materials.index(shape.material)
            rows.append(
                [_KINDS[shape.kind], number, *shape.center, *axes, *shape.sizes, shape.radius, shape.reach, shape.width]
            )
        corners = [
            (min(s.center[k] - s.reach for s in group), max(s.center[k] + s.reach for s in group)) for k in range(3)
        ]
        middle = [(low + high) / 2 for low, high in corners]
        reach = max(_length([a - b for a, b in zip(s.center, middle, strict=True)]) + s.reach for s in group)
        balls.append([*middle, reach, len(rows) - len(group), len(rows)])
    numbers = [[*m.color, *m.second, TEXTURES[m.texture], m.scale, m.metal, m.gloss, m.roughness] for m in materials]
    return Scene(np.array(rows, np.float64), np.array(balls, np.float64), np.array(numbers, np.float64))


def _farthest(shape: Shape) -> float:
    """How far from the origin a shape reaches at most: by the ball, and by the cylinder around it."""
    along = abs(sum(a * b for a, b in zip(shape.center, shape.axes[2], strict=True)))
    middle = _length(shape.center)
    half = shape.radius if shape.kind == "torus" else shape.reach
    if shape.kind in ("box", "cone"):
        half = shape.sizes[2] + shape.radius
    across = math.sqrt(max(middle**2 - along**2, 0)) + shape.width
    return min(middle + shape.reach, _length((along + half, across)))


class Surfaces(NamedTuple):
    """What the rays through the centres of pixels meet first.

    Attributes:
        depth: (height, width) float64, along the camera's z axis; 0 where a ray leaves the scene.
        normals: (height, width, 3) float64, unit vectors in the world, towards the camera; 0 there.
        shapes: (height, width) int32, the index of the shape; -1 there.
    """

    depth: _Floats
    normals: _Floats
    shapes: NDArray[np.int32]


def trace(scene: Scene, world_to_camera: _Floats, intrinsics: Sequence[float], size: tuple[int, int]) -> Surfaces:
    """The surfaces that a camera sees, exact to 1e-9. The camera stands outside of all shapes."""
    from treadle.kernels import raytracing_loops

    width, height = size
    found = Surfaces(np.empty((height, width)), np.empty((height, width, 3)), np.empty((height, width), np.int32))
    pose, lens = _lens(world_to_camera, intrinsics)
    threads.spread(raytracing_loops.trace, threads.parts_for(height), scene.shapes, scene.groups, pose, lens, *found)
    return found


def paint(
    scene: Scene, world_to_camera: _Floats, intrinsics: Sequence[float], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """The picture a camera takes: (height, width, 4) uint8, sRGB and straight alpha, 0 where rays leave the scene.

    A pixel is the mean of the light at 16 places in it, always the same; at 4 of them where these agree, and at 8 where
    these lie on one shape.
    """
    from treadle.kernels import raytracing_loops

    width, height = size
    pixels = np.empty((height, width, 4), np.uint8)
    pose, lens = _lens(world_to_camera, intrinsics)
    tables = scene.shapes, scene.groups, scene.materials, *scene.light
    threads.spread(
        raytracing_loops.paint, threads.parts_for(height), *tables, pose, lens, _levels(), _samples(), pixels
    )
    return pixels


def distances(scene: Scene, points: NDArray[Any]) -> _Floats:
    """(n,) float64: how far each of (n, 3) points is from the nearest surface, negative inside of a shape.

    Outside it is the true distance. Inside, where shapes overlap, the surface may be farther away than it says.
    """
    from treadle.kernels import raytracing_loops

    points = np.ascontiguousarray(points, np.float64)
    out = np.empty(len(points))
    threads.spread(raytracing_loops.distances, threads.parts_for(len(points)), scene.shapes, scene.groups, points, out)
    return out


def _lens(world_to_camera: _Floats, intrinsics: Sequence[float]) -> tuple[_Floats, tuple[float, ...]]:
    return np.ascontiguousarray(world_to_camera, np.float64), tuple(float(number) for number in intrinsics)


@lru_cache
def _levels() -> _Floats:
    """The linear values half-way between two bytes of sRGB."""
    encoded = (np.arange(255) + 0.5) / 255
    return np.array([v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in encoded.tolist()])


@lru_cache
def _samples() -> _Floats:
    """(16, 2): one place in each field of 4 x 4, all in different columns and rows; the first 4 and 8 are spread."""
    order = [(1, 0), (3, 1), (0, 2), (2, 3), (2, 0), (0, 1), (3, 2), (1, 3)]
    order += [(column, row) for row in range(4) for column in range(4) if (column, row) not in order]
    return np.array([((4 * x + y + 0.5) / 16, (4 * y + x + 0.5) / 16) for x, y in order])


def _length(vector: Sequence[float]) -> float:
    return math.sqrt(sum(number * number for number in vector))


def _between(start: Vector, end: Vector) -> tuple[Vector, Vector, float]:
    center = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, (start[2] + end[2]) / 2)
    axis = (end[0] - start[0], end[1] - start[1], end[2] - start[2])
    return center, axis, _length(axis) / 2


def _axes(axis: Vector, side: Vector = (1, 0, 0)) -> tuple[Vector, Vector, Vector]:
    """Orthonormal axes, right-handed: z along `axis`, x as near to `side` as can be (or to y, where that is `axis`)."""
    z = _unit(axis)
    along = sum(a * b for a, b in zip(z, side, strict=True))
    if abs(along) > 0.999 * _length(side):
        side = (0, 1, 0)
        along = z[1]
    x = _unit((side[0] - along * z[0], side[1] - along * z[1], side[2] - along * z[2]))
    y = (z[1] * x[2] - z[2] * x[1], z[2] * x[0] - z[0] * x[2], z[0] * x[1] - z[1] * x[0])
    return x, y, z


def _unit(vector: Vector) -> Vector:
    length = _length(vector)
    return vector[0] / length, vector[1] / length, vector[2] / length
