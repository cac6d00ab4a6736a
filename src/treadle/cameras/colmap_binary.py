"""COLMAP's binary files, little-endian: cameras.bin, images.bin and points3D.bin."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.colmap import MODELS, ColmapCamera, ColmapImage, ColmapPoints
from treadle.errors import UsageError

_COUNT = struct.Struct("<Q")
_CAMERA = struct.Struct("<iiQQ")
_IMAGE = struct.Struct("<i7di")
_OBSERVED = np.dtype([("xy", "<f8", 2), ("point", "<i8")])
_POINT = np.dtype([("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("track", "<u8")])


def binary_cameras(file: Path) -> list[ColmapCamera]:
    """Read cameras.bin. Raises UsageError where it cannot be read, or has a camera model that nobody knows."""
    stream = _Stream(file)
    cameras = []
    for _ in range(stream.count()):
        number, model, width, height = stream.take(_CAMERA)
        if model not in MODELS:
            raise UsageError(f"{file}: camera {number} is of the model {model}, which is none of COLMAP's (0 to "
                             f"{max(MODELS)}): is it {file.name}, of a version that is known?")  # fmt: skip
        name, parameters = MODELS[model]
        cameras.append(ColmapCamera(number, name, width, height, stream.take(struct.Struct(f"<{parameters}d"))))
    stream.end()
    return cameras


def binary_images(file: Path) -> list[ColmapImage]:
    """Read images.bin. Raises UsageError where it cannot be read."""
    stream = _Stream(file)
    images = []
    for _ in range(stream.count()):
        number, *pose, camera = stream.take(_IMAGE)
        name = stream.text()
        observed = stream.array(_OBSERVED, stream.count())
        images.append(
            ColmapImage(number, name, camera, np.array(pose[:4]), np.array(pose[4:]), observed["xy"], observed["point"])
        )
    stream.end()
    return images


def binary_points(file: Path) -> ColmapPoints:
    """Read points3D.bin; the tracks, which images.bin holds as well, are skipped. Raises UsageError as the others."""
    stream = _Stream(file)
    rows = []
    for _ in range(stream.count()):
        row = stream.bytes(_POINT.itemsize)
        rows.append(row)
        stream.bytes(8 * _COUNT.unpack_from(row, _POINT.itemsize - _COUNT.size)[0])
    stream.end()
    points = np.frombuffer(b"".join(rows), _POINT)
    return ColmapPoints(
        points["id"].astype(np.int64), points["xyz"].copy(), points["rgb"].copy(), points["error"].copy()
    )


class _Stream:
    """The bytes of a file, taken one after another; what is not there is said to be missing."""

    def __init__(self, file: Path) -> None:
        self._file, self._at = file, 0
        try:
            self._data = memoryview(file.read_bytes())
        except OSError as error:
            raise UsageError(f"{file} cannot be read ({error.strerror or error}): check its permissions") from None

    def bytes(self, count: int) -> memoryview:
        if count > len(self._data) - self._at:
            raise self._wrong("ends too early")
        piece = self._data[self._at : self._at + count]
        self._at += count
        return piece

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self.bytes(layout.size))

    def count(self) -> int:
        """How many things follow, as the file says: it may be wrong."""
        number: int = self.take(_COUNT)[0]
        return number

    def array(self, kind: np.dtype[Any], count: int) -> NDArray[Any]:
        return np.frombuffer(self.bytes(kind.itemsize * count), kind)

    def text(self) -> str:
        """Up to the next NUL."""
        rest = self._data[self._at : self._at + 4096].tobytes()
        end = rest.find(b"\0")
        if end < 0:
            raise self._wrong("has a name without an end")
        self._at += end + 1
        return rest[:end].decode(errors="surrogateescape")

    def end(self) -> None:
        if self._at != len(self._data):
            raise self._wrong(f"goes on for {len(self._data) - self._at} bytes where it should end")

    def _wrong(self, what: str) -> UsageError:
        return UsageError(f"{self._file} {what}: it is damaged, or no {self._file.name} of COLMAP's; copy it again")
