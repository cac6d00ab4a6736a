"""Paths of a camera through a scene: made from the cameras that captured it, or read from nerfstudio's JSON.

A path stays where cameras have been. Where they surround the scene, it goes all around; where they have all looked from
one side, it swings within the range of directions from which they have looked, since nobody has seen the other side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.camera import Camera
from treadle.cameras.interpolation import through, world_to_camera
from treadle.cameras.path_file import read_path
from treadle.errors import UsageError, nearest

_Floats = NDArray[np.float64]

PATHS = ("orbit", "spiral", "dolly", "zoom", "cameras")
"""The paths that are made from a capture's cameras; anything that ends in .json is read."""

_GAP = 2.2  # radians: cameras surround the scene where no gap between neighbours, seen from above, is wider
_NEAR, _LONG = 0.6, 1.8  # how near a dolly goes, of its distance; how long a zoom's lens gets


def camera_path(
    kind: str | Path,
    cameras: Sequence[Camera],
    frames: int = 120,
    *,
    size: tuple[int, int] | None = None,
    fov: float | None = None,
    points: NDArray[Any] | None = None,
    to_input: NDArray[Any] | None = None,
) -> list[Camera]:
    """The cameras of a video, one for each frame.

    All but `cameras` and a file's look at the point to which the optical axes of `cameras` come nearest, are upright by
    the mean of their upward directions, and end where they began:

    - `orbit`: around the scene at the cameras' mean elevation and distance; to and fro where they do not surround it.
    - `spiral`: twice around, from their lowest elevation to the highest and back; where they do not surround the scene,
      a spiral from the middle of their directions outwards and back.
    - `dolly`: straight towards the point to .6 of the distance and back, with the same lens.
    - `zoom`: standing still, the focal length goes to 1.8 times its length and back.
    - `cameras`: smoothly from each of the cameras to the next, in their order, or, where that order jumps about, always
      to the nearest one not yet visited.
    - a JSON file: nerfstudio's camera path, frame by frame.

    Args:
        kind: one of PATHS, or the path of a file that ends in .json.
        cameras: those of the capture, at least one.
        frames: how many, at least 1. A file has its own number.
        size: width and height in pixels; that of the first camera (or the file's) by default.
        fov: vertical field of view in degrees; the cameras' median (or the file's) by default.
        points: (n, 3) points on surfaces, such as a capture's: they say how far away the scene is where all cameras
            look the same way.
        to_input: a capture's `to_input`: a file's poses are in the coordinates of the input.

    Raises:
        UsageError: an unknown kind, a number out of range, a file that cannot be read, or cameras that do not look at
            anything in common.
    """
    name = str(kind)
    if frames < 1:
        raise UsageError(f"a path of {frames} frames: expected at least 1")
    if fov is not None and not 0 < fov < 180:
        raise UsageError(f"a field of view of {fov:g} degrees: expected a number between 0 and 180")
    if name.lower().endswith(".json"):
        return read_path(Path(kind), size=size, fov=fov, to_input=to_input)[0]
    if name not in PATHS:
        raise UsageError(f"there is no camera path {name!r}{nearest(name, PATHS)}; or the path of a JSON file")
    if not cameras:
        raise UsageError(f"the camera path {name!r} needs the cameras of a capture, and there are none")
    lens = _lens(cameras, size, fov)
    if name == "cameras":
        return through(cameras, frames, lens, keep=fov is None)
    around = surroundings(cameras, points)
    turn = np.arange(frames) / frames  # a whole round: the frame after the last would be the first again
    there_and_back = 0.5 - 0.5 * np.cos(2 * np.pi * turn)
    azimuth, elevation = np.full(frames, around.azimuth), np.full(frames, around.elevation)
    distance, length = np.full(frames, around.distance), np.ones(frames)
    if name == "orbit":
        azimuth += 2 * np.pi * turn if around.closed else around.width * np.sin(2 * np.pi * turn)
    elif name == "spiral" and around.closed:
        azimuth += 4 * np.pi * turn
        elevation = around.lowest + (around.highest - around.lowest) * there_and_back
    elif name == "spiral":
        azimuth += around.width * there_and_back * np.cos(6 * np.pi * turn)
        middle, half = (around.highest + around.lowest) / 2, (around.highest - around.lowest) / 2
        elevation = middle + half * there_and_back * np.sin(6 * np.pi * turn)
    elif name == "dolly":
        distance *= 1 - (1 - _NEAR) * there_and_back
    else:
        length = 1 + (_LONG - 1) * there_and_back
    return [
        replace(
            lens,
            fx=lens.fx * float(length[k]),
            fy=lens.fy * float(length[k]),
            world_to_camera=around.pose(float(azimuth[k]), float(elevation[k]), float(distance[k])),
            name=f"{name}_{k:04d}",
        )
        for k in range(frames)
    ]


@dataclass(frozen=True, eq=False)
class Surroundings:
    """From where a scene was seen: directions from its middle, as angles in radians.

    Attributes:
        target: (3,) the point to which the optical axes come nearest.
        axes: (3, 3) rows: two horizontal directions and the upward one, orthonormal and right-handed.
        azimuth: where paths begin: of the first camera, or, where cameras do not surround the scene, the middle.
        width: how far to both sides of it cameras have been; pi where they surround the scene.
        elevation, lowest, highest: over the horizon: mean, 5th and 95th percentile.
        distance: from the target, the mean.
    """

    target: _Floats
    axes: _Floats
    azimuth: float
    width: float
    elevation: float
    lowest: float
    highest: float
    distance: float

    @property
    def closed(self) -> bool:
        """Whether cameras surround the scene."""
        return self.width == math.pi

    def pose(self, azimuth: float, elevation: float, distance: float) -> _Floats:
        """(4, 4) world to camera: from there, upright, towards the target."""
        elevation = min(max(elevation, -1.55), 1.55)  # straight up, no direction is upright
        flat = math.cos(elevation)
        out = np.array([flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)]) @ self.axes
        right = np.cross(self.axes[2], out)
        right /= np.linalg.norm(right)
        return world_to_camera(np.stack([right, np.cross(right, out), -out]), self.target + distance * out)


def surroundings(cameras: Sequence[Camera], points: NDArray[Any] | None = None) -> Surroundings:
    """Find what cameras look at, and the range of directions from which they do.

    Args:
        cameras: at least one.
        points: (n, 3) points on surfaces, if known; they count only where all cameras look the same way.

    Raises:
        UsageError: fewer than one camera, or their axes meet behind most of them: they look away from each other.
    """
    if not cameras:
        raise UsageError("a camera path needs the cameras of a capture, and there are none")
    centers = np.array([camera.center for camera in cameras])
    ahead = np.array([camera.world_to_camera[2, :3] for camera in cameras])
    target = _target(centers, ahead, points)
    if np.median(((target - centers) * ahead).sum(axis=1)) <= 0:
        raise UsageError(
            "the cameras look away from each other, at no scene between them: use the path 'cameras' or a JSON file"
        )
    axes = _upright(-np.array([camera.world_to_camera[1, :3] for camera in cameras]), ahead)
    offsets = (centers - target) @ axes.T
    distances = np.linalg.norm(offsets, axis=1)
    elevations = np.arcsin(np.clip(offsets[:, 2] / np.maximum(distances, 1e-12), -1, 1))
    # Nearly from above any azimuth may come out, so that such cameras say nothing about gaps.
    telling = np.abs(elevations) < 1.4
    angles = np.sort(np.arctan2(offsets[:, 1], offsets[:, 0])[telling if telling.any() else slice(None)])
    gaps = np.diff(angles, append=angles[0] + 2 * np.pi)
    widest = int(gaps.argmax())
    if gaps[widest] <= _GAP:
        azimuth, width = float(np.arctan2(offsets[0, 1], offsets[0, 0])), math.pi
    else:
        width = float((2 * np.pi - gaps[widest]) / 2)
        azimuth = float(angles[(widest + 1) % len(angles)] + width)
    lowest, highest = np.percentile(elevations, [5, 95]).tolist()
    mean = float(elevations.mean())
    return Surroundings(target, axes, azimuth, width, mean, lowest, highest, float(distances.mean()))


def _target(centers: _Floats, ahead: _Floats, points: NDArray[Any] | None) -> _Floats:
    """The point with the smallest sum of squared distances from the optical axes.

    Parallel axes leave open how far away it is. There it is as far as the middle of `points`, or, without these, as far
    from the cameras as the two outermost of these are from each other.
    """
    across = np.eye(3) - ahead[:, :, None] * ahead[:, None, :]
    if points is not None and len(points):
        guess = np.median(points, axis=0)
    else:
        spread = np.linalg.norm(centers - centers.mean(axis=0), axis=1).max()
        guess = (centers + ahead * (2 * spread if spread > 0 else 1.0)).mean(axis=0)
    values, basis = np.linalg.eigh(across.mean(axis=0))
    known = (across @ centers[:, :, None]).mean(axis=0)[:, 0] @ basis
    return np.asarray(basis @ np.where(values > 1e-3, known / np.maximum(values, 1e-3), guess @ basis))


def _upright(ups: _Floats, ahead: _Floats) -> _Floats:
    """Axes whose third is the mean of the cameras' upward directions; where these cancel out, what they turn about."""
    up = ups.mean(axis=0)
    if np.linalg.norm(up) < 1e-3:
        up = np.linalg.svd(ahead)[2][-1]
    up = up / np.linalg.norm(up)
    first = np.cross(np.eye(3)[np.abs(up).argmin()], up)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(up, first), up])


def _lens(cameras: Sequence[Camera], size: tuple[int, int] | None, fov: float | None) -> Camera:
    """A camera with its principal point in the middle: the first one's size and the median lens, or what was asked."""
    width, height = size or cameras[0].size
    if fov is None:
        half = float(np.median([camera.height / 2 / camera.fy for camera in cameras]))
    else:
        half = math.tan(math.radians(fov) / 2)
    focal = height / 2 / half
    return Camera(width, height, focal, focal, width / 2, height / 2, np.eye(4))
