"""COLMAP's three files, binary or text: told apart from what is truncated, of another kind, or of another model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from treadle.cameras.colmap import LARGEST, Reconstruction
from treadle.cameras.colmap_binary import binary_cameras, binary_images, binary_points
from treadle.cameras.colmap_text import text_cameras, text_images, text_points
from treadle.errors import UsageError

PLACES = ("sparse/0", "sparse", "colmap/sparse/0", ".")
"""Where in a folder COLMAP's files are looked for, in this order."""


def find_reconstruction(folder: Path) -> Path | None:
    """The folder with COLMAP's files in or below `folder`, or None; one file of them is enough to count."""
    names = [f"{name}{ending}" for name in ("cameras", "images") for ending in (".bin", ".txt")]
    return next((folder / place for place in PLACES if any((folder / place / name).is_file() for name in names)), None)


def read_reconstruction(folder: Path) -> Reconstruction:
    """Read cameras, images and, where there are any, points: the binary files where they are there, else text.

    Raises:
        UsageError: one is missing, truncated or no such file; numbers or names that come twice; an image of a camera
            that there is not; points that are not finite.
    """
    ending = ".bin" if any((folder / f"{name}.bin").is_file() for name in ("cameras", "images")) else ".txt"
    binary = ending == ".bin"
    files = [folder / f"{name}{ending}" for name in ("cameras", "images", "points3D")]
    for file in files[:2]:
        if not file.is_file():
            raise UsageError(f"{file} is missing: a reconstruction has cameras{ending}, images{ending} and points3D"
                             f"{ending}; copy all of them")  # fmt: skip
    cameras = (binary_cameras if binary else text_cameras)(files[0])
    images = (binary_images if binary else text_images)(files[1])
    has_points = files[2].is_file()
    points = (binary_points if binary else text_points)(files[2]) if has_points else None
    _refuse_twice(files[0], "the camera number", (camera.id for camera in cameras))
    _refuse_twice(files[1], "the image", (image.name for image in images))
    _refuse_twice(files[1], "the image number", (image.id for image in images))
    known = {camera.id: camera for camera in cameras}
    for image in images:
        if image.camera not in known:
            raise UsageError(f"{files[1]}: the image {image.name!r} was taken with camera {image.camera}, which "
                             f"{files[0].name} does not hold: copy all files from one reconstruction")  # fmt: skip
    if points is not None:
        if len(np.unique(points.ids)) < len(points.ids):
            _refuse_twice(files[2], "the point number", points.ids.tolist())
        bad = int((~(np.abs(points.positions) <= LARGEST)).any(axis=1).sum())
        if bad:
            raise UsageError(f"{files[2]}: {bad} of {len(points.ids)} points lie nowhere (NaN or endless): run "
                             "COLMAP again, or remove the file and start from random points")  # fmt: skip
    return Reconstruction(known, images, points, (files[0], files[1], files[2] if has_points else None))


def _refuse_twice(file: Path, what: str, values: Iterable[object]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        more = f" (as do {len(twice) - 1} more)" if len(twice) > 1 else ""
        raise UsageError(f"{file}: {what} {twice[0]!r} comes more than once{more}: remove one of them")
