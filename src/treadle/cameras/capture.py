"""What was seen of a scene: photographs with their cameras, some kept for training and some held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.camera import Camera


@dataclass(frozen=True, eq=False)
class Photograph:
    """One view of a scene.

    Attributes:
        camera: what it was seen with; its size is that of `pixels`.
        pixels: (height, width, 3 or 4) uint8; a fourth channel is straight alpha: transparency, over any background.
        mask: (height, width) bool, or None; False where a pixel is to be ignored, in losses and in metrics.
        depth: (height, width) float32, or None: the distance along the camera's z axis in units of the scene; 0 where
            it is not known.
        normals: (height, width, 3) float32, or None: unit vectors in the world's axes; 0 where not known.
        points: (n, 3) float32: column, row (in pixels) and depth of single points that were seen, such as COLMAP's.
    """

    camera: Camera
    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None = None
    depth: NDArray[np.float32] | None = None
    normals: NDArray[np.float32] | None = None
    points: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 3), np.float32))


class Photographs(Protocol):
    """Views of a scene, each read when it is asked for; safe to be asked by several threads."""

    @property
    def cameras(self) -> Sequence[Camera]:
        """Their cameras, at the size at which the pictures are given."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Photograph: ...

    def fingerprint(self) -> str:
        """SHA-256, in hex, over pictures and cameras; the same wherever a folder is copied to."""


@dataclass(frozen=True, eq=False)
class Capture:
    """A scene as it was captured.

    Attributes:
        train: what to train on.
        validation, test: what is held out; both the same where only one set is, empty where nothing is.
        points: (n, 3) float64 points known to lie on surfaces, or None.
        colors: (n, 3) uint8, their colours.
        to_input: (4, 4) float64, from the coordinates used here to those of the file: a similarity.
        notes: what a person should know, a line each: what was missing, left out or undistorted, with counts.
        aabb_scale: what instant-ngp's files say of the scene's size: the side of the cube that it fills, where the
            cameras look at a unit cube; 1 where nothing is said.
    """

    train: Photographs
    validation: Photographs
    test: Photographs
    points: NDArray[np.float64] | None = None
    colors: NDArray[np.uint8] | None = None
    to_input: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    notes: tuple[str, ...] = ()
    aabb_scale: float = 1.0
