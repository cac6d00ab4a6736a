"""Triangle meshes as files: PLY, OBJ and GLB, with a colour for each vertex; written, and read back.

The readers are for what is written here and for plain files like it: triangles and polygons, no textures, no scenes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.ply import Ply, read_ply, rows_of, write_ply
from treadle.errors import RunError, UsageError
from treadle.files import read_regular, reason, write_whole

_AGAIN = "copy or export it again"
_GLB, _JSON, _BINARY = 0x46546C67, 0x4E4F534A, 0x004E4942
_FLOAT, _SHORT, _INT = 5126, 5123, 5125


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles between vertices.

    Attributes:
        vertices: (n, 3) float32.
        faces: (m, 3) int32, indices of vertices, counterclockwise seen from outside.
        colors: (n, 3) uint8 sRGB, one for each vertex, or None.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    colors: NDArray[np.uint8] | None = None


def write_mesh(path: str | Path, mesh: Mesh, comments: Sequence[str] = ()) -> int:
    """Write a mesh as what the file's name ends in, one of `ENDINGS`; returns its size in bytes.

    PLY keeps everything exactly. OBJ has its numbers in decimal, colours behind the positions as many programs read
    them. GLB has colours in linear light, unlit, and is seen from both sides.

    Raises:
        UsageError: another ending, a mesh without faces, or `path` cannot be written.
    """
    path = Path(path)
    if not len(mesh.faces):
        raise UsageError(f"{path} is not written: the mesh has no faces")
    return _kind(path)[0](path, mesh, comments)


def read_mesh(path: str | Path) -> Mesh:
    """Read a mesh from a PLY, OBJ or GLB file.

    Polygons of an OBJ are cut into triangles from their first corner; textures and normals are left.

    Raises:
        UsageError: another ending, a file that is missing or damaged, without faces, or with a face that names no
            vertex of its own.
    """
    path = Path(path)
    mesh = _kind(path)[1](path)
    if not len(mesh.faces):
        raise UsageError(f"{path} has no faces")
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise UsageError(f"{path} is damaged: a face names a vertex that is not there; {_AGAIN}")
    if not np.isfinite(mesh.vertices).all():
        raise UsageError(f"{path}: vertex {int(np.argmin(np.isfinite(mesh.vertices).all(1)))} of {len(mesh.vertices)} "
                         "has a coordinate that is not finite")  # fmt: skip
    return mesh


def write_checked(path: Path, mesh: Mesh, comments: Sequence[str] = ()) -> None:
    """Write a mesh and read it back; what was not read as it was written is taken away again.

    Raises:
        UsageError: as `write_mesh`.
        RunError: the file was not read back as it was written.
    """
    write_mesh(path, mesh, comments)
    found = read_mesh(path)
    if len(found.vertices) != len(mesh.vertices) or not np.array_equal(found.faces, mesh.faces):
        path.unlink()
        raise RunError(f"{path} was not read back as it was written")


def _kind(path: Path) -> tuple[Callable[..., int], Callable[[Path], Mesh]]:
    ending = path.suffix.lower()
    if ending not in _KINDS:
        raise UsageError(f"{path}: a mesh is a file that ends in {' or '.join(_KINDS)}")
    return _KINDS[ending]


def _write_ply(path: Path, mesh: Mesh, comments: Sequence[str]) -> int:
    fields: list[Any] = [(name, "f4") for name in "xyz"]
    if mesh.colors is not None:
        fields += [(name, "u1") for name in ("red", "green", "blue")]
    vertex = np.empty(len(mesh.vertices), fields)
    for axis, name in enumerate("xyz"):
        vertex[name] = mesh.vertices[:, axis]
    if mesh.colors is not None:
        for channel, name in enumerate(("red", "green", "blue")):
            vertex[name] = mesh.colors[:, channel]
    face = np.empty(len(mesh.faces), [("vertex_indices", "i4", 3)])
    face["vertex_indices"] = mesh.faces
    return write_ply(path, Ply({"vertex": vertex, "face": face}, comments))


def _read_ply(path: Path) -> Mesh:
    ply = read_ply(path)
    vertex, face = rows_of(path, ply, "vertex"), rows_of(path, ply, "face")
    corners = next((name for name in ("vertex_indices", "vertex_index") if name in (face.dtype.names or ())), None)
    if corners is None or face.dtype[corners].shape != (3,) or not {"x", "y", "z"} <= set(vertex.dtype.names or ()):
        raise UsageError(f"{path} is no PLY of a triangle mesh: expected x, y, z and vertex_indices of three each")
    names = ("red", "green", "blue")
    tinted = set(names) <= set(vertex.dtype.names or ()) and vertex.dtype["red"] == np.uint8
    return Mesh(
        np.stack([vertex[name] for name in "xyz"], 1).astype(np.float32),
        face[corners].astype(np.int32),
        np.stack([vertex[name] for name in names], 1) if tinted else None,
    )


def _write_obj(path: Path, mesh: Mesh, comments: Sequence[str]) -> int:
    lines = [f"# {comment}" for comment in comments]
    if mesh.colors is None:
        lines += [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in mesh.vertices.tolist()]
    else:
        rows = np.concatenate([mesh.vertices, mesh.colors / np.float32(255)], 1).tolist()
        lines += [f"v {x:.9g} {y:.9g} {z:.9g} {r:.4f} {g:.4f} {b:.4f}" for x, y, z, r, g, b in rows]
    lines += [f"f {a} {b} {c}" for a, b, c in (mesh.faces + 1).tolist()]
    return _whole(path, ("\n".join(lines) + "\n").encode())


def _read_obj(path: Path) -> Mesh:
    vertices: list[list[float]] = []
    faces: list[tuple[int, int, int]] = []
    for number, line in enumerate(_content(path).decode("latin-1").splitlines(), 1):
        words = line.split()
        try:
            if words[:1] == ["v"]:
                vertices.append([float(word) for word in words[1:]])
                if len(vertices[-1]) not in (3, 4, 6):
                    raise ValueError
            elif words[:1] == ["f"]:
                corners = [int(word.partition("/")[0]) for word in words[1:]]
                corners = [corner - 1 if corner > 0 else len(vertices) + corner for corner in corners]
                if len(corners) < 3:
                    raise ValueError
                faces += [(corners[0], b, c) for b, c in pairwise(corners[1:])]
        except ValueError:
            raise UsageError(f"{path}, line {number} is no vertex or face of an OBJ file: {line[:40]!r}") from None
    if not vertices:
        raise UsageError(f"{path} is no OBJ file: it has no vertices")
    tinted = all(len(row) == 6 for row in vertices)
    shades = np.array([row[3:] for row in vertices]) if tinted else None
    return Mesh(
        np.array([row[:3] for row in vertices], np.float32),
        np.array(faces, np.int64).reshape(-1, 3).clip(-(2**31), 2**31 - 1).astype(np.int32),
        None if shades is None else (shades.clip(0, 1) * 255 + 0.5).astype(np.uint8),
    )


def _write_glb(path: Path, mesh: Mesh, comments: Sequence[str]) -> int:
    parts: list[NDArray[Any]] = [mesh.faces.astype("<u4"), mesh.vertices.astype("<f4")]
    accessors: list[dict[str, Any]] = [
        {"componentType": _INT, "count": mesh.faces.size, "type": "SCALAR"},
        {"componentType": _FLOAT, "count": len(mesh.vertices), "type": "VEC3",
         "min": mesh.vertices.min(0).tolist(), "max": mesh.vertices.max(0).tolist()},
    ]  # fmt: skip
    attributes = {"POSITION": 1}
    if mesh.colors is not None:
        light = np.full((len(mesh.colors), 4), 65535, "<u2")
        light[:, :3] = np.round(_to_linear(mesh.colors / 255) * 65535)
        parts.append(light)
        accessors.append({"componentType": _SHORT, "count": len(light), "type": "VEC4", "normalized": True})
        attributes["COLOR_0"] = 2
    views, start = [], 0
    for place, (part, accessor) in enumerate(zip(parts, accessors, strict=True)):
        views.append({"buffer": 0, "byteOffset": start, "byteLength": part.nbytes,
                      "target": 34962 if place else 34963})  # fmt: skip
        accessor["bufferView"] = place
        start += part.nbytes
    material = {"doubleSided": True, "extensions": {"KHR_materials_unlit": {}},
                "pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 1], "metallicFactor": 0}}  # fmt: skip
    document = {
        "asset": {"version": "2.0", "generator": "treadle", "extras": {"comments": list(comments)}},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": 0, "material": 0}]}],
        "materials": [material],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": start}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary = b"".join(part.tobytes() for part in parts)  # of 4 bytes or a multiple each, as the format wants it
    chunks = struct.pack("<II", len(text), _JSON) + text + struct.pack("<II", len(binary), _BINARY) + binary
    return _whole(path, struct.pack("<III", _GLB, 2, 12 + len(chunks)) + chunks)


def _read_glb(path: Path) -> Mesh:
    content = _content(path)
    try:
        magic, version, length, size, kind = struct.unpack_from("<IIIII", content)
        if magic != _GLB or version != 2 or kind != _JSON:
            raise UsageError(f"{path} is no GLB file of glTF 2.0")
        if length > len(content):
            raise UsageError(f"{path} is cut off: it says that it has {length} bytes, and has {len(content)}; {_AGAIN}")
        document = json.loads(content[20 : 20 + size])
        binary = content[28 + size :]
        primitive = document["meshes"][0]["primitives"][0]
        numbers = {key: _accessor(document, binary, place) for key, place in primitive["attributes"].items()}
        faces = _accessor(document, binary, primitive["indices"]).reshape(-1, 3).astype(np.int32)
        vertices = numbers["POSITION"].astype(np.float32)
    except (struct.error, KeyError, IndexError, TypeError, ValueError, RecursionError):
        raise UsageError(
            f"{path} is damaged, or no GLB file of one mesh with positions and indices; {_AGAIN}"
        ) from None
    light = numbers.get("COLOR_0")
    shades = None if light is None else light[:, :3] / (65535 if light.dtype == np.uint16 else 1)
    return Mesh(vertices, faces, None if shades is None else (_to_srgb(shades) * 255 + 0.5).astype(np.uint8))


def _accessor(document: Any, binary: bytes, place: int) -> NDArray[Any]:
    accessor = document["accessors"][place]
    view = document["bufferViews"][accessor["bufferView"]]
    if "byteStride" in view or "byteOffset" in accessor:
        raise ValueError
    kind = {_FLOAT: "<f4", _SHORT: "<u2", _INT: "<u4"}[accessor["componentType"]]
    width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
    found = np.frombuffer(binary, kind, accessor["count"] * width, view.get("byteOffset", 0))
    return found.reshape(-1, width) if width > 1 else found


def _to_linear(shades: NDArray[Any]) -> NDArray[Any]:
    return np.where(shades <= 0.04045, shades / 12.92, ((shades + 0.055) / 1.055) ** 2.4)


def _to_srgb(light: NDArray[Any]) -> NDArray[Any]:
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def _content(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}") from None


def _whole(path: Path, content: bytes) -> int:
    try:
        write_whole(path, content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None
    return len(content)


_KINDS: dict[str, tuple[Callable[..., int], Callable[[Path], Mesh]]] = {
    ".ply": (_write_ply, _read_ply),
    ".obj": (_write_obj, _read_obj),
    ".glb": (_write_glb, _read_glb),
}

ENDINGS = tuple(_KINDS)
"""What the file of a mesh may end in."""
