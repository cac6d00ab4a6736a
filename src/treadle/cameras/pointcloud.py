"""Coloured points from a PLY file, as photogrammetry programs write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_HEADER = 1 << 16
"""Bytes in which a header must end."""


def read_points(path: str | Path) -> tuple[NDArray[np.float64], NDArray[np.uint8] | None]:
    """Read the vertices of a PLY file: positions (n, 3) float64, and colours (n, 3) uint8 where it has them.

    Text, little-endian or big-endian; what else the file holds, such as normals and faces, is left out. Colours that
    are stored as floats count from 0 to 1.

    Raises:
        UsageError: a file that is missing, damaged, no PLY or without points; positions that are not finite.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}): check its name and permissions") from None
    order, count, kind, start = _header(path, data[:_HEADER])
    rows = _table(path, data[start:], order, count, kind)
    positions = np.stack([rows[axis].astype(np.float64) for axis in "xyz"], axis=1)
    bad = int((~np.isfinite(positions)).any(axis=1).sum())
    if bad:
        raise UsageError(f"{path}: {bad} of {count} points are not finite numbers: export it again without them")
    names = next(
        (names for names in (("red", "green", "blue"), ("r", "g", "b")) if set(names) <= set(kind.names or ())), None
    )
    if names is None:
        return positions, None
    colors = np.stack([rows[name] for name in names], axis=1)
    if colors.dtype.kind == "f":
        colors = np.rint(np.nan_to_num(colors) * 255)
    elif colors.dtype.itemsize == 2:
        colors = colors >> 8
    return positions, colors.clip(0, 255).astype(np.uint8)


def _header(path: Path, start: bytes) -> tuple[str, int, np.dtype[Any], int]:
    """The byte order, the number of vertices, their layout, and where they begin."""
    end = start.find(b"end_header")
    if not start.startswith(b"ply") or end < 0 or (after := start.find(b"\n", end)) < 0:
        raise UsageError(f"{path} is no PLY file: export the points as one, or name another")
    order, element, count, fields = None, None, -1, []
    for line in start[:end].decode("ascii", errors="replace").splitlines()[1:]:
        match line.split():
            case ["format", name, *_] if name in _ORDERS:
                order = _ORDERS[name]
            case ["element", name, number]:
                if count < 0 and name != "vertex":
                    raise UsageError(f"{path} begins with {name}, not with vertices: export it with the points first")
                element, count = name, int(number) if count < 0 and number.isdigit() else count
            case ["property", name, field] if element == "vertex" and name in _TYPES:
                fields.append((field, (order or "") + _TYPES[name]))
            case ["property", *_] if element == "vertex":
                raise UsageError(f"{path}: its vertices hold {line!r}, which points have not: export it again")
    names = [name for name, _ in fields]
    if order is None or count < 0 or not {"x", "y", "z"} <= set(names) or len(set(names)) < len(names):
        raise UsageError(f"{path} is a PLY file without vertices x, y and z: export the points again")
    if count == 0:
        raise UsageError(f"{path} holds no points: export it again, or remove its mention to start from random points")
    return order, count, np.dtype(fields), after + 1


def _table(path: Path, body: bytes, order: str, count: int, kind: np.dtype[Any]) -> NDArray[Any]:
    if order:
        if len(body) < count * kind.itemsize:
            raise UsageError(f"{path} ends too early for its {count} points: copy it again")
        return np.frombuffer(body, kind, count)
    names = kind.names or ()
    rows = [line.split() for line in body.splitlines()[:count]]
    try:
        values = np.array([row[: len(names)] for row in rows], np.float64)
        if values.shape != (count, len(names)):
            raise ValueError
    except ValueError:
        raise UsageError(f"{path} ends too early, or is damaged, for its {count} points: copy it again") from None
    table = np.empty(count, [(name, "<" + kind[name].str[1:]) for name in names])
    for column, name in enumerate(names):
        table[name] = values[:, column]
    return table
