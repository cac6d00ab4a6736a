"""COLMAP's reconstructions: cameras, images and points as its files hold them, and as our cameras.

The files are COLMAP's binary or text ones (https://colmap.github.io/format.html); both are small enough formats that a
reader of our own, which says in one line what is wrong with which file, costs less than pycolmap (a library of 60 MB
that reads whole folders or nothing).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.distortion import Distortion
from treadle.errors import UsageError

MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
    12: ("SIMPLE_DIVISION", 4),
    13: ("DIVISION", 5),
    14: ("SIMPLE_FISHEYE", 3),
    15: ("FISHEYE", 4),
    16: ("EUCM", 6),
    17: ("EQUIRECTANGULAR", 2),
}
"""COLMAP's camera models: id -> name and number of parameters."""

LARGEST = 1e12
"""Beyond this no coordinate means anything; NaN and infinity are beyond it."""

_SINGLE_FOCAL = {"SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"}
_USABLE = _SINGLE_FOCAL | {"PINHOLE", "OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV"}


@dataclass(frozen=True)
class ColmapCamera:
    """A row of cameras.bin or cameras.txt: `parameters` as the camera model `model` orders them."""

    id: int
    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class ColmapImage:
    """A row of images.bin or images.txt.

    Attributes:
        id, name, camera: its number, its file below the folder of pictures, and the number of its camera.
        quaternion, translation: (4,) w x y z and (3,), from the world to the camera, as stored.
        observed: (m, 2) float64: columns and rows of what was found in it, in pixels.
        points: (m,) int64: the numbers of the points that these belong to, -1 for none.
    """

    id: int
    name: str
    camera: int
    quaternion: NDArray[np.float64]
    translation: NDArray[np.float64]
    observed: NDArray[np.float64]
    points: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ColmapPoints:
    """points3D.bin or .txt: ids (n,) int64, positions (n, 3) float64, colors (n, 3) uint8, errors (n,) in pixels."""

    ids: NDArray[np.int64]
    positions: NDArray[np.float64]
    colors: NDArray[np.uint8]
    errors: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A folder of COLMAP's: cameras by number, images in the order of the file, and points where there is a file."""

    cameras: dict[int, ColmapCamera]
    images: list[ColmapImage]
    points: ColmapPoints | None
    files: tuple[Path, Path, Path | None]


def pinhole(camera: ColmapCamera, file: Path) -> tuple[tuple[float, float, float, float], Distortion | None]:
    """fx, fy, cx and cy of a camera, and its lens, None where that is a pinhole.

    Raises:
        UsageError: for a camera model that is not undistorted, and coefficients that no lens has.
    """
    name, values = camera.model, camera.parameters
    if name not in _USABLE:
        raise UsageError(f"{file}: camera {camera.id} is of the model {name}, which is not undistorted here: run "
                         "colmap image_undistorter, and name the folder that it writes")  # fmt: skip
    if name in _SINGLE_FOCAL:
        values = (values[0], *values)
    intrinsics, bent = (values[0], values[1], values[2], values[3]), values[4:]
    try:
        lens = Distortion("fisheye" if "FISHEYE" in name else "brown", bent)
    except UsageError as error:
        raise UsageError(f"{file}: camera {camera.id} is {error}") from None
    return intrinsics, None if lens.is_none else lens


def world_to_camera(image: ColmapImage, file: Path) -> NDArray[np.float64]:
    """(4, 4): the pose of an image.

    Raises:
        UsageError: where it has none: numbers that are not finite, or beyond all sense, or a quaternion of length 0.
    """
    numbers = [*image.quaternion.tolist(), *image.translation.tolist()]
    possible = all(abs(number) <= LARGEST for number in numbers)
    length = float(np.linalg.norm(image.quaternion)) if possible else 0.0
    if length <= 1e-6:
        raise UsageError(f"{file}: the image {image.name!r} has no pose, its quaternion and translation are {numbers}: "
                         "remove it, or run COLMAP again")  # fmt: skip
    w, x, y, z = image.quaternion / length
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = image.translation
    return pose
