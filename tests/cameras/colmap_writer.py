"""An independent writer of COLMAP's files, straight from the description of the format, and a small capture."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

IDS = {
    "SIMPLE_PINHOLE": 0, "PINHOLE": 1, "SIMPLE_RADIAL": 2, "RADIAL": 3, "OPENCV": 4, "OPENCV_FISHEYE": 5,
    "FULL_OPENCV": 6, "FOV": 7, "SIMPLE_RADIAL_FISHEYE": 8, "RADIAL_FISHEYE": 9, "THIN_PRISM_FISHEYE": 10,
    "RAD_TAN_THIN_PRISM_FISHEYE": 11, "EUCM": 16,
}  # fmt: skip

# A camera is (id, model, width, height, parameters), an image (id, quaternion, translation, camera, name, [(x, y,
# point)]), a point (id, position, colour, error, [(image, index)]).


def cameras_bin(cameras: list[Any]) -> bytes:
    out = struct.pack("<Q", len(cameras))
    for number, model, width, height, parameters in cameras:
        out += struct.pack("<iiQQ", number, IDS.get(model, model), width, height)
        out += b"".join(struct.pack("<d", value) for value in parameters)
    return out


def images_bin(images: list[Any]) -> bytes:
    out = struct.pack("<Q", len(images))
    for number, quaternion, translation, camera, name, observed in images:
        out += struct.pack("<i4d3di", number, *quaternion, *translation, camera) + name.encode() + b"\0"
        out += struct.pack("<Q", len(observed)) + b"".join(struct.pack("<ddq", *each) for each in observed)
    return out


def points_bin(points: list[Any]) -> bytes:
    out = struct.pack("<Q", len(points))
    for number, position, color, error, track in points:
        out += struct.pack("<Q3d3BdQ", number, *position, *color, error, len(track))
        out += b"".join(struct.pack("<ii", *each) for each in track)
    return out


def cameras_txt(cameras: list[Any]) -> str:
    rows = (f"{number} {model} {width} {height} {joined(values)}" for number, model, width, height, values in cameras)
    return "\n".join(["# Camera list", f"# Number of cameras: {len(cameras)}", *rows]) + "\n"


def images_txt(images: list[Any]) -> str:
    lines = ["# Image list", f"# Number of images: {len(images)}, mean observations per image: 2"]
    for number, quaternion, translation, camera, name, observed in images:
        lines.append(f"{number} {joined(quaternion)} {joined(translation)} {camera} {name}")
        lines.append(" ".join(joined(each) for each in observed))
    return "\n".join(lines) + "\n"


def points_txt(points: list[Any]) -> str:
    lines = ["# 3D point list", f"# Number of points: {len(points)}, mean track length: 2"]
    for number, position, color, error, track in points:
        rest = " ".join(joined(each) for each in track)
        lines.append(f"{number} {joined(position)} {joined(color)} {error!r} {rest}".rstrip())
    return "\n".join(lines) + "\n"


def joined(values: Any) -> str:
    return " ".join(repr(value) for value in values)


def write_model(folder: Path, cameras: list[Any], images: list[Any], points: list[Any] | None, text: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if text:
        (folder / "cameras.txt").write_text(cameras_txt(cameras))
        (folder / "images.txt").write_text(images_txt(images))
        if points is not None:
            (folder / "points3D.txt").write_text(points_txt(points))
    else:
        (folder / "cameras.bin").write_bytes(cameras_bin(cameras))
        (folder / "images.bin").write_bytes(images_bin(images))
        if points is not None:
            (folder / "points3D.bin").write_bytes(points_bin(points))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path: Path, values: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


WIDTH, HEIGHT = 24, 16
CAMERA = (3, "PINHOLE", WIDTH, HEIGHT, (30.0, 31.0, 11.5, 8.25))
TURNED = (math.cos(0.2), 0.0, math.sin(0.2), 0.0)
POINTS = [
    (7, (0.0, 0.0, 4.0), (255, 0, 10), 0.5, [(1, 0), (2, 0)]),
    (9, (0.3, -0.2, 5.0), (1, 2, 3), 0.25, [(1, 1)]),
    (40, (1.0, 1.0, -5.0), (9, 9, 9), 1.0, []),
]
IMAGES = [
    # Neither in the order of their names nor in that of the pictures' folder.
    (5, TURNED, (0.5, 0.0, 0.0), 3, "c.png", [(1.5, 2.5, -1), (3.5, 4.5, 7)]),
    (1, (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 3, "a.png", [(11.5, 8.25, 7), (13.3, 7.01, 9), (1.0, 1.0, 40)]),
    (2, (2.0, 0.0, 0.0, 0.0), (0.1, 0.0, 0.0), 3, "b.png", []),
]


@pytest.fixture
def capture_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a capture of three views, a.png, b.png and c.png; each picture is `noise` of its own."""

    def make(
        cameras: list[Any] | None = None,
        images: list[Any] | None = None,
        points: list[Any] | None = POINTS,
        text: bool = False,
        place: str = "sparse/0",
        pictures: str = "images",
    ) -> Path:
        root = tmp_path / "capture"
        write_model(root / place, cameras or [CAMERA], IMAGES if images is None else images, points, text)
        for seed, name in enumerate("abc"):
            write(root / pictures / f"{name}.png", noise(HEIGHT, WIDTH, 3, seed=seed))
        return root

    return make
