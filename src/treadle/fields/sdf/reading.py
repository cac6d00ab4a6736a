"""Meshes as other programs write them: OBJ, PLY, STL and GLB, with colours and textures.

trimesh parses them. It is given the file's bytes and what lies in the file's own folder, nothing else: it can fetch
nothing, and pictures are only of kinds whose readers are plain decoders (`treadle.images.reading`).
"""

from __future__ import annotations

import io
import json
import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError, one_line
from treadle.fields.sdf.paint import Paint
from treadle.files import read_regular, reason
from treadle.images.display import to_display, to_uint8
from treadle.images.reading import FORMATS, read_array

ENDINGS = (".obj", ".ply", ".stl", ".glb")
"""What the file of a mesh may end in."""

MOST_FACES = 20_000_000
"""The most faces that are read: a mesh of so many takes some 4 GB while it is."""

_AGAIN = "copy or export it again"
_PICTURES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles as a file has them.

    Attributes:
        vertices: (n, 3) float64, finite.
        faces: (m, 3) int64, indices of vertices.
        paint: its colours, where it has some.
        notes: what is to be known about how it was read.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    paint: Paint | None = None
    notes: tuple[str, ...] = ()


def read_surface(path: str | Path, texture: str | Path | None = None) -> Surface:
    """Read all triangles of a mesh file, those of a scene's several objects where they stand in it.

    Args:
        path: an OBJ, PLY, STL or GLB file.
        texture: the picture on it, where the file names none; by default one beside it, FILE_texture.png or FILE.png.

    Raises:
        UsageError: another ending; a file that is missing, empty or damaged, or without faces; a coordinate that is not
            finite; a face that names no vertex; trimesh is not installed.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise UsageError(f"{path}: a mesh is a file that ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    try:
        content = read_regular(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}") from None
    if not content:
        raise UsageError(f"{path} is empty (0 bytes): {_AGAIN}")
    with _named(path):
        if ending == ".glb":
            _check_glb(content)
        parts = [_part(path, mesh, place) for mesh, place in _parsed(path, content)]
    parts = [part for part in parts if len(part.faces)]
    if not parts:
        raise UsageError(f"{path} has no faces: a distance field needs a mesh with triangles, not points or lines")
    return _textured(path, _joined(parts), texture)


def _parsed(path: Path, content: bytes) -> Iterator[tuple[Any, NDArray[np.float64]]]:
    """Every mesh in the file, as trimesh has it, with its place in the scene."""
    try:
        import trimesh
    except ImportError:
        raise UsageError(f"reading {path} needs trimesh: pip install 'treadle[fields]'") from None

    scene = trimesh.load_scene(
        io.BytesIO(content), file_type=path.suffix.lower()[1:], resolver=_resolver(path), process=False
    )
    for node in sorted(scene.graph.nodes_geometry):
        place, name = scene.graph[node]
        mesh = scene.geometry[name]
        if isinstance(mesh, trimesh.Trimesh):
            yield mesh, np.asarray(place, np.float64)


def _part(path: Path, mesh: Any, place: NDArray[np.float64]) -> Surface:
    vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    if vertices.ndim != 2 or vertices.shape[1:] != (3,) or faces.ndim != 2 or faces.shape[1:] != (3,):
        raise UsageError(f"{path} is damaged: its vertices and faces are not of three numbers each; {_AGAIN}")
    if len(faces) > MOST_FACES:
        raise UsageError(f"{path} has {len(faces)} faces, more than {MOST_FACES}: make it coarser")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise UsageError(f"{path} is damaged: a face names a vertex that is not there; {_AGAIN}")
    used = np.zeros(len(vertices), bool)
    used[faces] = True
    bad = np.flatnonzero(used & ~np.isfinite(vertices).all(1))
    if len(bad) or not np.isfinite(place).all():
        which = f"vertex {bad[0]} of {len(vertices)}" if len(bad) else "where an object stands"
        raise UsageError(f"{path}: {which} has a coordinate that is not finite; {_AGAIN}")
    moved = np.where(used[:, None], vertices, 0) @ place[:3, :3].T + place[:3, 3]
    paint = _paint(mesh, faces)
    if np.linalg.det(place[:3, :3]) < 0:  # a mirrored object has its faces inside out
        faces, order = faces[:, ::-1], np.tile(np.array([2, 1, 0]), (len(faces), 1))
        paint = None if paint is None else paint.of(np.arange(len(faces)), order)
    return Surface(moved, faces, paint)


def _paint(mesh: Any, faces: NDArray[np.int64]) -> Paint | None:
    """The colours of a mesh of trimesh's; None where it has none."""
    visual = mesh.visual
    if visual.kind == "vertex":
        return Paint.plain(np.asarray(visual.vertex_colors)[faces][:, :, :3] / 255)
    if visual.kind == "face":
        return Paint.plain(np.repeat(np.asarray(visual.face_colors)[:, None, :3], 3, 1) / 255)
    if visual.kind != "texture" or visual.uv is None or len(visual.uv) != len(mesh.vertices):
        return None
    material = visual.material
    picture = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
    if picture is not None and picture.format is None and max(picture.size) <= 2:
        picture = None  # what trimesh puts where there is none
    tint = getattr(material, "baseColorFactor", None) if picture is None or not hasattr(material, "image") else None
    if picture is None and tint is None:
        tint = getattr(material, "diffuse", None)
    shade = np.ones(3) if tint is None else np.asarray(tint, np.float64).reshape(-1)[:3]
    shade = shade / 255 if shade.max() > 1 else shade
    images = [] if picture is None else [_pixels(picture)]
    corners = np.broadcast_to(shade.astype(np.float32), (len(faces), 3, 3))
    places = np.nan_to_num(np.asarray(visual.uv, np.float32)[faces][:, :, :2])
    return Paint(corners.copy(), places, images, np.full(len(faces), len(images) - 1, np.int64))


def _pixels(picture: Any) -> NDArray[np.uint8]:
    if picture.format is not None and picture.format not in FORMATS:
        raise UsageError(f"its texture is a {picture.format} picture: convert it to PNG or JPEG")
    return np.asarray(picture.convert("RGB"))


def _textured(path: Path, surface: Surface, texture: str | Path | None) -> Surface:
    """The surface with a picture that its file does not name."""
    paint = surface.paint
    bare = paint is not None and not paint.images and np.ptp(paint.places) > 0
    if texture is None and bare:
        names = [path.with_name(path.stem + end + ending) for end in ("_texture", "") for ending in _PICTURES]
        texture = next((name for name in names if name.is_file()), None)
    if texture is None:
        return surface
    if paint is None or not np.ptp(paint.places) > 0:
        raise UsageError(f"{path} cannot be covered with {texture}: it does not say where in a texture its faces are")
    picture = to_uint8(to_display(read_array(texture, deep=False)), str(texture))
    count = len(surface.faces)
    covered = Paint(np.ones((count, 3, 3), np.float32), paint.places, [picture], np.zeros(count, np.int64))
    notes = (*surface.notes, f"{path.name} names no texture: {Path(texture).name} is on it")
    return Surface(surface.vertices, surface.faces, covered, notes)


def _joined(parts: list[Surface]) -> Surface:
    """Several meshes as one; parts without colours are white among those that have some."""
    if len(parts) == 1:
        return parts[0]
    first = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    paint = None
    if any(part.paint is not None for part in parts):
        paint = Paint.joined([part.paint or Paint.plain(np.ones((len(part.faces), 3, 3))) for part in parts])
    return Surface(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, first, strict=True)]),
        paint,
    )


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside is said to be wrong with the file; what trimesh logs about it is not printed."""
    log = logging.getLogger("trimesh")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with np.errstate(all="ignore"):
            yield
    except UsageError as error:
        text = str(error)
        raise error if text.startswith(str(path)) or "pip install" in text else UsageError(f"{path}: {text}") from None
    except MemoryError:
        raise UsageError(f"{path} is damaged: it says that it holds more than fits into memory; {_AGAIN}") from None
    except Exception as error:  # damaged files make parsers raise nearly everything
        raise UsageError(f"{path} is damaged ({one_line(error)[:120]}): {_AGAIN}") from None
    finally:
        log.setLevel(level)


def _check_glb(content: bytes) -> None:
    """Refuse what trimesh would be lenient about: a file that is cut off, and pictures of unknown kinds."""
    from PIL import Image, UnidentifiedImageError

    magic, version, length, size, kind = struct.unpack_from("<4sIIII", content)
    if magic != b"glTF" or version != 2 or kind != 0x4E4F534A:
        raise UsageError("it is no GLB file of glTF 2.0")
    if length > len(content):
        raise UsageError(f"it is cut off: it says that it has {length} bytes, and has {len(content)}; {_AGAIN}")
    document = json.loads(content[20 : 20 + size])
    binary = content[28 + size :]
    for image in document.get("images", []):
        if "bufferView" not in image:
            continue
        view = document["bufferViews"][image["bufferView"]]
        start = view.get("byteOffset", 0)
        try:
            Image.open(io.BytesIO(binary[start : start + view["byteLength"]]), formats=FORMATS).close()
        except UnidentifiedImageError:
            raise UsageError("a texture in it is no picture of a known kind: convert it to PNG or JPEG") from None


def _resolver(path: Path) -> Any:
    """What gives trimesh the files that a mesh names: those in its own folder, pictures only of plain kinds."""
    from PIL import Image
    from trimesh.resolvers import Resolver

    class Beside(Resolver):
        def __init__(self) -> None:
            self.folder = path.parent.resolve()

        def get(self, key: str) -> bytes:
            place = (self.folder / str(key).strip().replace("\\", "/")).resolve()
            if not place.is_relative_to(self.folder):
                raise ValueError(f"{key} lies outside of the folder of {path.name}")
            content = read_regular(place)
            if place.suffix.lower() != ".mtl":
                Image.open(io.BytesIO(content), formats=FORMATS).close()
            return content

        def keys(self) -> list[str]:
            return []

        def write(self, name: str, data: Any) -> None:
            raise ValueError("nothing is written")

        def namespaced(self, namespace: str) -> Any:
            return self

    return Beside()
