"""Rays through the centres of a camera's pixels, and the way back: points of the world in the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.camera import Camera


def rays(camera: Camera, dtype: Any = np.float32) -> tuple[NDArray[Any], NDArray[Any]]:
    """Where the ray of every pixel starts and which way it goes, in the world.

    Returns:
        origins: (height, width, 3) of `dtype`, all the camera's centre.
        directions: (height, width, 3) of `dtype`, of unit length, through (i + .5, j + .5) of column i and row j.
    """
    x = (np.arange(camera.width) + 0.5 - camera.cx) / camera.fx
    y = (np.arange(camera.height) + 0.5 - camera.cy) / camera.fy
    ahead = np.stack([*np.meshgrid(x, y), np.ones((camera.height, camera.width))], axis=-1)
    ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
    directions = ahead @ camera.world_to_camera[:3, :3]
    origins = np.broadcast_to(camera.center, directions.shape)
    return origins.astype(dtype), directions.astype(dtype)


def project(camera: Camera, points: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where points of the world are in the picture.

    Args:
        camera: whose picture.
        points: (..., 3).

    Returns:
        pixels: (..., 2) float64, column and row, from the upper left corner; of no meaning where the depth is not
            positive.
        depths: (...) float64, along the camera's z axis; negative behind it.
    """
    seen = np.asarray(points, np.float64) @ camera.world_to_camera[:3, :3].T + camera.world_to_camera[:3, 3]
    depths = seen[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = seen[..., :2] / depths[..., None] * (camera.fx, camera.fy) + (camera.cx, camera.cy)
    return pixels, depths
