"""Camera paths that nerfstudio's viewer has written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.camera import Camera
from treadle.cameras.interpolation import world_to_camera
from treadle.errors import UsageError
from treadle.files import read_regular, reason

_Floats = NDArray[np.float64]


def read_path(
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    fov: float | None = None,
    to_input: NDArray[Any] | None = None,
) -> tuple[list[Camera], float]:
    """Read nerfstudio's camera_path.json, as its viewer writes it: the cameras, and frames per second (24 by default).

    Each entry of `camera_path` holds `camera_to_world` (16 numbers by rows, or 4 x 4; OpenGL's axes: x right, y up, z
    backwards) and `fov`, the vertical field of view in degrees. `render_width` and `render_height` give the size.

    Args:
        path: the file.
        size: width and height in pixels, in place of the file's.
        fov: vertical field of view in degrees, in place of the file's.
        to_input: a capture's `to_input`: what brings our coordinates to those of the file.

    Raises:
        UsageError: the file cannot be read, an entry is missing or makes no sense, or a camera that is no pinhole.
    """
    try:
        data = json.loads(read_regular(path))
    except OSError as error:
        raise UsageError(f"cannot read the camera path {path}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON file: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("camera_path"), list) or not data["camera_path"]:
        raise UsageError(
            f"{path}: expected nerfstudio's camera path, an object whose `camera_path` is a list of cameras"
        )
    kind = data.get("camera_type", "perspective")
    if kind != "perspective":
        raise UsageError(f"{path}: camera_type {kind!r} cannot be rendered; expected 'perspective'")
    width, height = size or (int(_number(path, data, key, 1)) for key in ("render_width", "render_height"))
    fps = _number(path, data, "fps", 1e-3) if "fps" in data else 24.0
    similarity = np.eye(4) if to_input is None else np.asarray(to_input, np.float64)
    scale = np.cbrt(np.linalg.det(similarity[:3, :3]))
    cameras = []
    for k, entry in enumerate(data["camera_path"]):
        where = f"camera_path[{k}]"
        if not isinstance(entry, dict):
            raise UsageError(f"{path}: {where} is no object")
        angle = fov if fov is not None else _number(path, entry, "fov", 1e-3, 179.9, where)
        pose = _matrix(path, entry.get("camera_to_world"), where)
        ours = np.linalg.solve(similarity, pose)
        rotation = ours[:3, :3] * scale * [1, -1, -1]
        focal = height / 2 / math.tan(math.radians(angle) / 2)
        try:
            placed = world_to_camera(rotation.T, ours[:3, 3])
            camera = Camera(width, height, focal, focal, width / 2, height / 2, placed, f"path_{k:04d}")
        except UsageError as error:
            raise UsageError(f"{path}: {where}.camera_to_world: {error}") from error
        cameras.append(camera)
    return cameras, fps


def _number(path: Path, entry: dict[str, Any], key: str, least: float, most: float = 1e6, where: str = "") -> float:
    value, name = entry.get(key), f"{where}.{key}" if where else key
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise UsageError(f"{path}: {name} is {value!r}; expected a number from {least:g} to {most:g}")
    return float(value)


def _matrix(path: Path, value: Any, where: str) -> _Floats:
    try:
        matrix = np.array(value, np.float64).reshape(4, 4)
    except (TypeError, ValueError):
        matrix = np.full((4, 4), np.nan)
    if not np.isfinite(matrix).all():
        raise UsageError(f"{path}: {where}.camera_to_world: expected 16 finite numbers")
    return matrix
