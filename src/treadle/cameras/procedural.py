"""A scene of our own, for trainings without data: a spinning wheel with its treadle, yarn, cloth and brass on marble.

It is ray-traced when it is asked for, and everything about it is known: pictures, depths, normals and distances are a
pure function of the arguments, the same bytes on every machine. The scene lies within the unit ball, z points up.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.camera import Camera
from treadle.cameras.capture import Capture, Photograph
from treadle.cameras.rays import rays
from treadle.errors import UsageError
from treadle.kernels import raytracing
from treadle.kernels.raytracing import Material, Scene, Shape, Surfaces, Vector, box, capsule, cone, sphere, torus

DISTANCE = 3.0
"""How far the cameras stand from the middle of the scene."""

_FOCAL = 1.47  # in widths of the picture: the scene just fills it
_LOW, _HIGH = 0.12, 0.93  # heights of the training views over the middle, of 1: sines of their elevations

_OAK = Material((0.50, 0.235, 0.085), (0.36, 0.150, 0.048), "wood", 1.0, gloss=0.5, roughness=0.3)
_WALNUT = Material((0.16, 0.065, 0.030), (0.09, 0.036, 0.018), "wood", 1.3, gloss=0.7, roughness=0.25)
_MARBLE = Material((0.030, 0.040, 0.046), (0.24, 0.25, 0.24), "marble", 3.0, gloss=1.0, roughness=0.12)
_BRASS = Material((0.93, 0.66, 0.28), metal=0.95, roughness=0.2)
_STRING = Material((0.80, 0.72, 0.58), roughness=0.8)
_RUG = Material((0.58, 0.48, 0.34), (0.34, 0.03, 0.04), "weave", 22.0, roughness=0.9)
_GLAZE = Material((0.85, 0.83, 0.78), (0.02, 0.10, 0.34), "bands", 11.0, gloss=1.0, roughness=0.1)
_RED = Material((0.50, 0.012, 0.018), gloss=1.0, roughness=0.1)


def _wool(color: Vector, second: Vector, texture: str, scale: float) -> Material:
    return Material(color, second, texture, scale, roughness=0.9)


_TEAL = _wool((0.012, 0.24, 0.26), (0.03, 0.34, 0.33), "yarn", 15.0)
_CORAL = _wool((0.66, 0.10, 0.05), (0.76, 0.17, 0.08), "yarn", 12.0)
_MUSTARD = _wool((0.78, 0.43, 0.05), (0.86, 0.54, 0.11), "thread", 60.0)
_INDIGO = _wool((0.045, 0.075, 0.32), (0.08, 0.14, 0.45), "thread", 42.0)
_ROSE = _wool((0.72, 0.16, 0.26), (0.80, 0.24, 0.34), "thread", 60.0)
_FLEECE = _wool((0.62, 0.54, 0.42), (0.70, 0.62, 0.50), "thread", 30.0)


@lru_cache(1)
def scene() -> Scene:
    """The shapes and materials of the scene."""
    groups = [*_wheel(), *_stand(), *_flyer(), *_things(), *_ground()]
    return raytracing.build([[_lifted(shape) for shape in group] for group in groups])


def _lifted(shape: Shape) -> Shape:
    """Its place in the scene: below, things stand on a ground at -.5, and cameras look at the middle between all."""
    x, y, z = shape.center
    return replace(shape, center=(x, y, z + 0.12))


def _ground() -> list[list[Shape]]:
    return [
        [
            cone(_RUG, (0, 0, -0.51), (0, 0, -0.488), (0.50, 0.50), 0.005),
            cone(_MARBLE, (0, 0, -0.58), (0, 0, -0.5), (0.80, 0.80), 0.012),
            cone(_BRASS, (0, 0, -0.56), (0, 0, -0.535), (0.806, 0.806), 0.006),
        ]
    ]


_AXLE = (-0.2, 0.0, 0.22)
_RIM = 0.36


def _wheel() -> list[list[Shape]]:
    x, _, z = _AXLE
    spokes = []
    for number in range(10):
        c, s = _turned(number / 10 + 0.05)
        spokes.append(capsule(_OAK, (x + 0.05 * c, 0, z + 0.05 * s), (x + _RIM * c, 0, z + _RIM * s), 0.012))
    return [
        [
            torus(_OAK, _AXLE, (0, 1, 0), _RIM, 0.034),
            cone(_WALNUT, (x, -0.048, z), (x, 0.048, z), (0.06, 0.06), 0.012),
            capsule(_BRASS, (x, -0.125, z), (x, 0.125, z), 0.016),
            *spokes,
        ]
    ]


def _stand() -> list[list[Shape]]:
    x, _, z = _AXLE
    c, s = _turned(10 / 360)
    table = box(_OAK, (0.03, 0, -0.235), (0.47, 0.095, 0.024), 0.01, (-s, 0, c), (c, 0, s))
    legs = [
        cone(_WALNUT, (top * 1.0, side * 0.06, height), (foot, side * spread, -0.49), (0.024, 0.015), 0.004)
        for side in (-1, 1)
        for top, height, foot, spread in ((-0.33, -0.29, -0.42, 0.2), (0.36, -0.18, 0.43, 0.16))
    ]
    uprights = [capsule(_WALNUT, (x + 0.05, side * 0.078, -0.26), (x, side * 0.078, z), 0.02) for side in (-1, 1)]
    treadle = [
        box(_OAK, (-0.03, 0, -0.437), (0.23, 0.08, 0.012), 0.006, (0.07, 0, 1), (1, 0, -0.07)),
        capsule(_BRASS, (0.17, -0.19, -0.452), (0.17, 0.19, -0.452), 0.011),
        capsule(_BRASS, (x, 0.125, z), (x + 0.05, 0.125, z - 0.045), 0.011),
        capsule(_WALNUT, (x + 0.05, 0.135, z - 0.045), (-0.2, 0.075, -0.425), 0.009),
    ]
    return [[table, *legs], [*uprights, *treadle]]


def _flyer() -> list[list[Shape]]:
    x, z, whorl = 0.36, 0.05, 0.048
    posts = [
        part
        for y in (-0.145, 0.04)
        for part in (
            cone(_WALNUT, (x, y * 0.6, -0.17), (x, y, z + 0.04), (0.018, 0.014)),
            sphere(_BRASS, (x, y, z + 0.055), 0.022),
        )
    ]
    bobbin = [
        capsule(_BRASS, (x, -0.17, z), (x, 0.065, z), 0.009),
        cone(_WALNUT, (x, -0.012, z), (x, 0.012, z), (whorl, whorl)),
        cone(_ROSE, (x, -0.11, z), (x, -0.03, z), (0.052, 0.052), 0.01),
        cone(_OAK, (x, -0.124, z), (x, -0.108, z), (0.062, 0.062)),
        cone(_OAK, (x, -0.034, z), (x, -0.018, z), (0.062, 0.062)),
    ]
    distaff = [
        capsule(_WALNUT, (0.45, 0.06, -0.16), (0.45, 0.06, 0.52), 0.011),
        cone(_FLEECE, (0.45, 0.06, 0.2), (0.45, 0.06, 0.46), (0.085, 0.045), 0.04),
        sphere(_BRASS, (0.45, 0.06, 0.53), 0.02),
    ]
    return [[*posts, *bobbin], _band(_AXLE[0], _AXLE[2], _RIM + 0.03, x, z, whorl), distaff]


def _band(x: float, z: float, radius: float, x2: float, z2: float, radius2: float) -> list[Shape]:
    """The two straight parts of a string around two wheels: their outer tangents."""
    dx, dz = x2 - x, z2 - z
    apart = math.sqrt(dx * dx + dz * dz)
    dx, dz = dx / apart, dz / apart
    cosine = (radius - radius2) / apart
    parts = []
    for side in (-1, 1):
        sine = side * math.sqrt(1 - cosine * cosine)
        nx, nz = cosine * dx - sine * dz, cosine * dz + sine * dx
        start, end = (x + radius * nx, 0.0, z + radius * nz), (x2 + radius2 * nx, 0.0, z2 + radius2 * nz)
        parts.append(capsule(_STRING, start, end, 0.0075))
    return parts


def _things() -> list[list[Shape]]:
    """What lies around the wheel."""
    spool = [
        cone(_OAK, (-0.42, -0.42, -0.5), (-0.42, -0.42, -0.475), (0.105, 0.105), 0.006),
        cone(_MUSTARD, (-0.42, -0.42, -0.48), (-0.42, -0.42, -0.31), (0.08, 0.08), 0.012),
        cone(_OAK, (-0.42, -0.42, -0.315), (-0.42, -0.42, -0.29), (0.105, 0.105), 0.006),
        cone(_WALNUT, (-0.42, -0.42, -0.295), (-0.42, -0.42, -0.27), (0.03, 0.03), 0.006),
    ]
    yarn = [
        sphere(_TEAL, (0.34, -0.49, -0.34), 0.16, (0.3, 0.2, 0.9)),
        sphere(_CORAL, (0.61, -0.22, -0.395), 0.105, (-0.5, 0.6, 0.3)),
    ]
    cop = [
        cone(_INDIGO, (0.02, 0.57, -0.485), (0.02, 0.57, -0.21), (0.125, 0.055), 0.02),
        cone(_OAK, (0.02, 0.57, -0.5), (0.02, 0.57, -0.17), (0.05, 0.022), 0.005),
    ]
    ring = [
        torus(_BRASS, (-0.07, -0.6, -0.478), (0, 0, 1), 0.075, 0.022),
        sphere(_RED, (-0.07, -0.6, -0.41), 0.08),
    ]
    bowl = [sphere(_GLAZE, (0.5, 0.36, -0.39), 0.11, (0.35, -0.2, 0.9))]
    c, s = _turned(0.11)
    cloth = [
        box(Material(color, roughness=0.9), (-0.44, 0.38, z), (half, 0.1, 0.026), 0.024, side=(c, -s, 0))
        for z, half, color in (
            (-0.474, 0.15, (0.10, 0.30, 0.30)),
            (-0.423, 0.145, (0.80, 0.68, 0.48)),
            (-0.372, 0.14, (0.60, 0.11, 0.10)),
        )
    ]
    return [spool, yarn, cop, ring, bowl, cloth]


def _turned(turns: float) -> tuple[float, float]:
    """Cosine and sine, rounded: libraries differ in the last bit, and the scene is the same with all of them."""
    return round(math.cos(2 * math.pi * turns), 12), round(math.sin(2 * math.pi * turns), 12)


def procedural_capture(size: int = 200, train: int = 80, test: int = 20, seed: int = 0, points: int = 0) -> Capture:
    """The scene seen from all around, from just over the ground up to nearly above.

    Args:
        size: width and height of the pictures, at least 8.
        train: how many views are there for training: a golden spiral on the sphere of radius DISTANCE, from below up.
        test: how many are held out, between them; they are `validation` and `test`.
        seed: by how much both spirals are turned; the scene stays.
        points: how many points on visible surfaces to give, with the colours seen there; 0 for none.

    Returns:
        A capture with RGBA pictures, exact depths and normals, each rendered when it is first asked for.

    Raises:
        UsageError: a number outside its range.
    """
    for name, value, least in (("size", size, 8), ("train", train, 1), ("test", test, 0), ("points", points, 0)):
        if value < least:
            raise UsageError(f"the procedural scene has {name} {value}: expected at least {least}")
    turn = ((seed * 2654435761 + 12345) % 2**32) / 2**32 if seed else 0.0
    views = ProceduralPhotographs(_spiral("train", size, train, turn, _LOW, _HIGH))
    margin = (_HIGH - _LOW) * 0.04
    held_out = ProceduralPhotographs(_spiral("test", size, test, turn + 0.37, _LOW + margin, _HIGH - margin))
    positions, colors = views.surface_points(points, seed) if points else (None, None)
    return Capture(views, held_out, held_out, positions, colors)


def _spiral(name: str, size: int, count: int, turn: float, low: float, high: float) -> list[Camera]:
    cameras = []
    for number in range(count):
        height = low + (high - low) * (number + 0.5) / count
        c, s = _turned(turn + number * 0.6180339887498949)
        across = math.sqrt(1 - height * height)
        cameras.append(camera_at((across * c, across * s, height), size, f"{name}_{number:03d}"))
    return cameras


def camera_at(direction: Vector, size: int, name: str = "") -> Camera:
    """An upright camera with a square picture, looking at the scene from a direction (not straight above or below)."""
    length = math.sqrt(sum(number * number for number in direction))
    x, y, z = (number / length for number in direction)
    across = math.sqrt(x * x + y * y)
    right = (-y / across, x / across, 0.0)
    down = (z * x / across, z * y / across, -across)
    # Written out: what a library sums up in another order would differ in the last bit.
    pose = np.array([[*right, 0.0], [*down, 0.0], [-x, -y, -z, DISTANCE], [0, 0, 0, 1]], np.float64)
    return Camera(size, size, _FOCAL * size, _FOCAL * size, size / 2, size / 2, pose, name)


def surfaces(camera: Camera) -> Surfaces:
    """Exact depth (0 where there is nothing) and normals of the scene, as any camera sees it from outside."""
    return raytracing.trace(scene(), camera.world_to_camera, camera.intrinsics, camera.size)


def distance(points: NDArray[Any]) -> NDArray[np.float64]:
    """(n,) float64: how far each of (n, 3) points is from the nearest surface of the scene; negative inside of it."""
    return raytracing.distances(scene(), points)


class ProceduralPhotographs:
    """Views of the scene, each rendered once, when it is asked for; by one thread at a time."""

    data_kind = "treadle.procedural"

    def __init__(self, cameras: Sequence[Camera]) -> None:
        self.cameras: Sequence[Camera] = tuple(cameras)
        self._taken: dict[int, Photograph] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.cameras)

    def __getitem__(self, index: int) -> Photograph:
        index = range(len(self.cameras))[index]
        with self._lock:
            if index not in self._taken:
                self._taken[index] = photograph(self.cameras[index])
            return self._taken[index]

    def fingerprint(self) -> str:
        """SHA-256 over the scene and the cameras, which determine the pictures."""
        digest = hashlib.sha256(b"procedural 1")
        for table in (scene().shapes, scene().materials):
            digest.update(table.tobytes())
        for camera in self.cameras:
            digest.update(np.array([*camera.size, *camera.intrinsics, *camera.world_to_camera.ravel()]).tobytes())
        return digest.hexdigest()

    def surface_points(self, count: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """(count, 3) points on surfaces that these views see, and their colours (count, 3)."""
        random = np.random.Generator(np.random.PCG64(seed))
        views = random.integers(0, len(self), count)
        points, colors = np.empty((count, 3)), np.empty((count, 3), np.uint8)
        for view in np.unique(views).tolist():
            seen, rows = self[view], np.flatnonzero(views == view)
            assert seen.depth is not None
            known = np.flatnonzero((seen.depth > 0) & (seen.pixels[..., 3] == 255))
            chosen = known[random.integers(0, len(known), len(rows))]
            origins, directions = (table.reshape(-1, 3)[chosen] for table in rays(seen.camera, np.float64))
            ahead = directions @ seen.camera.world_to_camera[2, :3]
            points[rows] = origins + directions * (seen.depth.reshape(-1)[chosen] / ahead)[:, None]
            colors[rows] = seen.pixels.reshape(-1, 4)[chosen, :3]
        return points, colors


def photograph(camera: Camera) -> Photograph:
    """What a camera sees of the scene: RGBA with straight alpha, and exact depth and normals at pixels' centres."""
    pixels = raytracing.paint(scene(), camera.world_to_camera, camera.intrinsics, camera.size)
    seen = surfaces(camera)
    return Photograph(camera, pixels, None, seen.depth.astype(np.float32), seen.normals.astype(np.float32))
