"""Smoothly from camera to camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.camera import Camera

_Floats = NDArray[np.float64]


def through(cameras: Sequence[Camera], frames: int, lens: Camera, *, keep: bool) -> list[Camera]:
    """Along a Catmull-Rom spline through the centres of `cameras`, turning evenly (slerp) from pose to pose.

    Args:
        cameras: at least one. Where their order jumps about, they are visited from nearest to nearest.
        frames: how many cameras to give.
        lens: their size and, unless `keep`, their focal length.
        keep: whether the field of view is that of the cameras, too.
    """
    cameras = [cameras[number] for number in _order(np.array([camera.center for camera in cameras]))]
    centers = np.array([camera.center for camera in cameras])
    turns = [_quaternion(camera.world_to_camera[:3, :3]) for camera in cameras]
    halves = [camera.height / 2 / camera.fy for camera in cameras]
    path = []
    for k, at in enumerate(np.linspace(0, len(cameras) - 1, frames).tolist()):
        i = min(int(at), max(len(cameras) - 2, 0))
        j, t = min(i + 1, len(cameras) - 1), at - i
        before, after = centers[max(i - 1, 0)], centers[min(j + 1, len(cameras) - 1)]
        center = _spline(before, centers[i], centers[j], after, t)
        pose = world_to_camera(_rotation(_slerp(turns[i], turns[j], t)), center)
        focal = lens.height / 2 / ((1 - t) * halves[i] + t * halves[j]) if keep else lens.fy
        path.append(replace(lens, fx=focal, fy=focal, world_to_camera=pose, name=f"cameras_{k:04d}"))
    return path


def _order(centers: _Floats) -> list[int]:
    """The order itself where neighbours in it are near each other; else from nearest to nearest, from the first on."""
    count = len(centers)
    apart = np.linalg.norm(centers[:, None] - centers[None], axis=-1) if count <= 4096 else np.zeros((0, 0))
    if count < 4 or not len(apart):
        return list(range(count))
    steps = np.median(apart[np.arange(count - 1), np.arange(1, count)])
    np.fill_diagonal(apart, np.inf)
    if steps <= 3 * np.median(apart.min(axis=1)):
        return list(range(count))
    order = [0]
    while len(order) < count:
        apart[:, order[-1]] = np.inf
        order.append(int(apart[order[-1]].argmin()))
    return order


def _spline(a: _Floats, b: _Floats, c: _Floats, d: _Floats, t: float) -> _Floats:
    """Catmull and Rom's cubic from b to c, whose slopes there are those of the chords from a to c and from b to d."""
    return b + t / 2 * ((c - a) + t * ((2 * a - 5 * b + 4 * c - d) + t * (3 * (b - c) + d - a)))


def _quaternion(rotation: _Floats) -> _Floats:
    """(w, x, y, z) of a rotation: the eigenvector of Bar-Itzhack's matrix, stable for every angle."""
    m = rotation
    k = np.array(
        [
            [m[0, 0] + m[1, 1] + m[2, 2], 0, 0, 0],
            [m[2, 1] - m[1, 2], m[0, 0] - m[1, 1] - m[2, 2], 0, 0],
            [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], 0],
            [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1]],
        ]
    )
    return np.asarray(np.linalg.eigh(k)[1][:, -1])


def _rotation(q: _Floats) -> _Floats:
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _slerp(a: _Floats, b: _Floats, t: float) -> _Floats:
    cosine = float(a @ b)
    if cosine < 0:
        b, cosine = -b, -cosine
    angle = math.acos(min(cosine, 1.0))
    if angle < 1e-6:
        return a + t * (b - a)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def world_to_camera(rotation: NDArray[Any], center: NDArray[Any]) -> _Floats:
    """(4, 4) pose of a camera with these axes (rows of a rotation) at a place in the world."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, -rotation @ center
    return pose
