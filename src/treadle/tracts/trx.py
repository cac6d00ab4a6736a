"""TRX files: a ZIP archive of a JSON header and bare arrays (github.com/tee-ar-ex/trx-spec).

Read and written here, and not by trx-python: that maps the file it reads for writing, and needs room for a copy beside.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from treadle.errors import UsageError
from treadle.tracts.space import Space

_TYPES = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)} | {"float16", "float32", "float64"}
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every member: the same lines give the same bytes."""


def read_trx(
    path: Path,
) -> tuple[np.ndarray, Space, np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Read a TRX file.

    Returns:
        Points (p, 3) in RAS+ millimetres, the grid, offsets (n + 1,) int64, what is known of each line and each point.
        Groups of lines, and what is known of groups, are left out.

    Raises:
        ValueError, KeyError, OSError or zipfile.BadZipFile for a file that is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        header = json.loads(archive.read("header.json"))
        lines, points = int(header["NB_STREAMLINES"]), int(header["NB_VERTICES"])
        space = Space(np.reshape(header["VOXEL_TO_RASMM"], (4, 4)), tuple(header["DIMENSIONS"]))
        if lines == 0 or points == 0:
            return np.zeros((0, 3), np.float32), space, np.zeros(1, np.int64), {}, {}
        members: dict[tuple[str, str], tuple[zipfile.ZipInfo, int, np.dtype]] = {}
        for info in archive.infolist():
            place = PurePosixPath(info.filename)
            name, *columns, kind = (place.name if "." in place.name else f"{place.name}.").split(".")
            if kind in _TYPES and len(columns) <= 1:
                count = int(columns[0]) if columns else 1
                members[str(place.parent), name] = (info, count, np.dtype(kind).newbyteorder("<"))

        def array(folder: str, name: str, rows: int) -> np.ndarray:
            info, columns, kind = members[folder, name]
            if info.file_size != rows * columns * kind.itemsize:
                raise ValueError(f"{info.filename} has {info.file_size} bytes, not {rows} x {columns} {kind.name}")
            return np.frombuffer(archive.read(info), kind).reshape(rows, columns)

        for name in ("positions", "offsets"):
            if (".", name) not in members:
                raise ValueError(f"it holds no {name}")
        world = array(".", "positions", points)
        offsets = array(".", "offsets", lines + 1)[:, 0].astype(np.int64)
        per_line = {name: array(folder, name, lines) for folder, name in members if folder == "dps"}
        per_point = {name: array(folder, name, points) for folder, name in members if folder == "dpv"}
    if world.shape[1] != 3:
        raise ValueError(f"its points have {world.shape[1]} coordinates")
    return world, space, offsets, per_line, per_point


def trx_bytes(
    world: np.ndarray,
    space: Space,
    offsets: np.ndarray,
    per_line: Mapping[str, np.ndarray],
    per_point: Mapping[str, np.ndarray],
) -> bytes:
    """The content of a TRX file with points (p, 3) in RAS+ millimetres as float32. Raises UsageError for bad names."""
    header: dict[str, Any] = {
        "VOXEL_TO_RASMM": space.affine.tolist(),
        "DIMENSIONS": list(space.shape),
        "NB_STREAMLINES": len(offsets) - 1,
        "NB_VERTICES": len(world),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("header.json", _EPOCH), json.dumps(header))

        def add(name: str, values: np.ndarray) -> None:
            kind = values.dtype.newbyteorder("<")
            columns = math.prod(values.shape[1:])
            ending = f".{columns}.{kind.name}" if columns != 1 else f".{kind.name}"
            archive.writestr(zipfile.ZipInfo(name + ending, _EPOCH), np.ascontiguousarray(values, kind).data)

        if len(world):
            add("positions", np.asarray(world, np.float32))
            add("offsets", offsets.astype(np.uint32 if len(world) < 1 << 32 else np.uint64))
            for folder, tables in (("dps", per_line), ("dpv", per_point)):
                for name, values in tables.items():
                    if not re.fullmatch(r"[^./\\\0]+", name):
                        raise UsageError(f"TRX cannot name anything {name!r}: no dots, no slashes")
                    add(f"{folder}/{name}", np.asarray(values, np.float32))
    return buffer.getvalue()
