"""Cameras for pictures that move: small, and once around the scene."""

from __future__ import annotations

from treadle.cameras.camera import Camera
from treadle.cameras.capture import Capture
from treadle.cameras.paths import camera_path
from treadle.errors import UsageError

LARGEST = 256
"""The longest side of a picture that moves, in pixels."""


def small_camera(camera: Camera, largest: int = LARGEST) -> Camera:
    """The camera with a picture whose longest side is at most `largest` pixels."""
    scale = min(1.0, largest / max(camera.size))
    return camera.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))


def around(capture: Capture, frames: int) -> list[Camera]:
    """Cameras on their way around the scene; none where those of the capture look away from one another."""
    try:
        return camera_path("orbit", capture.train.cameras, frames, points=capture.points) if frames else []
    except UsageError:
        return []
