"""Things in space at one step: what a trainer's `scenes()` give, and what logging services with a 3D view are sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.camera import Camera
from treadle.errors import UsageError
from treadle.reports.views import MOST_CAMERAS, LiveView, Shapes, Value, Window, chosen

MOST_POINTS = 100_000
"""Points, or Gaussians, that a scene is sent with: of more, so many, evenly from the first to the last."""
MOST_LINES = 10_000
MOST_FACES = 500_000
MOST_BOXES = 20_000


@dataclass(frozen=True)
class Scene(Shapes):
    """Things in space at one step, in world coordinates; what is None is not there.

    Attributes:
        points: (N, 3) float32; colors: (N, 3) uint8, or (N, 4) with opacities; radii: (N,) float32.
        scales: (N, 3) float32, one standard deviation along each axis of points that are Gaussians; rotations: (N, 4)
            float32, their quaternions x, y, z, w.
        lines: (M, 3) float32, points of polylines, of which polyline i has those from offsets[i] to offsets[i + 1];
            line_colors: (M, 3) uint8, of each of these points.
        vertices: (V, 3) float32; faces: (F, 3) int32; vertex_colors: (V, 3) uint8.
        boxes: (B, 2, 3) float32: lower and upper corners.
        poses: (C, 4, 4) float64, camera to world, x right, y down, z forward; intrinsics: (C, 6) float64: fx, fy, cx,
            cy, width, height in pixels.
    """

    radii: NDArray[np.float32] | None = None
    scales: NDArray[np.float32] | None = None
    rotations: NDArray[np.float32] | None = None
    vertices: NDArray[np.float32] | None = None
    faces: NDArray[np.int32] | None = None
    vertex_colors: NDArray[np.uint8] | None = None
    poses: NDArray[np.float64] | None = None
    intrinsics: NDArray[np.float64] | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return all(getattr(self, each.name) is None or not len(getattr(self, each.name)) for each in fields(self))


ARRAYS: dict[str, tuple[tuple[int | tuple[int, ...], ...], str, str | None]] = {
    "points": ((3,), "float32", None),
    "colors": (((3, 4),), "uint8", "points"),
    "radii": ((), "float32", "points"),
    "scales": ((3,), "float32", "points"),
    "rotations": ((4,), "float32", "points"),
    "lines": ((3,), "float32", None),
    "line_colors": ((3,), "uint8", "lines"),
    "offsets": ((), "int64", None),
    "vertices": ((3,), "float32", None),
    "faces": ((3,), "int32", None),
    "vertex_colors": ((3,), "uint8", "vertices"),
    "boxes": ((2, 3), "float32", None),
    "poses": ((4, 4), "float64", None),
    "intrinsics": ((6,), "float64", "poses"),
}
"""Of each array the sizes behind the first, its dtype, and the array that it says something of, row by row."""
_TOGETHER = (("scales", "rotations"), ("lines", "offsets"), ("vertices", "faces"), ("poses", "intrinsics"))


def checked(scene: Any, name: str = "scene") -> Scene:
    """The scene itself. Raises UsageError naming what is wrong about what is none, or does not fit together."""
    if not isinstance(scene, Scene):
        raise UsageError(f"scene {name!r} is a {type(scene).__name__}: expected a treadle.reports.scene.Scene")
    for part, (sizes, dtype, of) in ARRAYS.items():
        array = getattr(scene, part)
        if array is None:
            continue
        if not isinstance(array, np.ndarray):
            raise UsageError(f"scene {name!r}: {part} is a {type(array).__name__}: expected a NumPy array")
        fits = array.ndim == len(sizes) + 1 and all(
            found == size or (isinstance(size, tuple) and found in size)
            for found, size in zip(array.shape[1:], sizes, strict=True)
        )
        if not fits or array.dtype != dtype:
            raise UsageError(f"scene {name!r}: {part} is {array.dtype} {array.shape}: see treadle.reports.scene.Scene")
        if of is not None and (getattr(scene, of) is None or len(getattr(scene, of)) != len(array)):
            raise UsageError(f"scene {name!r}: {part} has {len(array)} rows, which is not the number of {of}")
    for one, other in _TOGETHER:
        if (getattr(scene, one) is None) != (getattr(scene, other) is None):
            raise UsageError(f"scene {name!r} has only one of {one} and {other}: give both")
    _check_indices(scene, name)
    return scene


def _check_indices(scene: Scene, name: str) -> None:
    if scene.lines is not None and scene.offsets is not None:
        ends = scene.offsets
        if not len(ends) or ends[0] != 0 or ends[-1] != len(scene.lines) or (np.diff(ends) < 0).any():
            raise UsageError(f"scene {name!r}: offsets do not rise from 0 to the {len(scene.lines)} points of lines")
    faces, count = scene.faces, 0 if scene.vertices is None else len(scene.vertices)
    if faces is not None and len(faces) and not 0 <= faces.min() <= faces.max() < count:
        raise UsageError(f"scene {name!r}: faces name vertices that are not among the {count}")


def thinned(scene: Scene) -> tuple[Scene, dict[str, tuple[int, int]]]:
    """A scene of at most `MOST_POINTS` points and so on, and of what was thinned how many are left of how many.

    A mesh with more faces is left out as a whole: holes would be taken for the model's.
    """
    parts: dict[str, Any] = {}
    told: dict[str, tuple[int, int]] = {}

    def some(name: str, most: int) -> NDArray[np.intp] | None:
        array = getattr(scene, name)
        if array is None or len(array) <= most:
            return None
        told[name] = most, len(array)
        return np.linspace(0, len(array) - 1, most).round().astype(np.intp)

    for first, most in (("points", MOST_POINTS), ("boxes", MOST_BOXES), ("poses", MOST_CAMERAS)):
        kept = some(first, most)
        for part, (_, _, of) in ARRAYS.items():
            array = getattr(scene, part)
            if kept is not None and array is not None and first in (part, of):
                parts[part] = array[kept]
    if scene.lines is not None and scene.offsets is not None and len(scene.offsets) - 1 > MOST_LINES:
        count = len(scene.offsets) - 1
        told["lines"] = MOST_LINES, count
        lines = np.linspace(0, count - 1, MOST_LINES).round().astype(np.intp)
        lengths = np.diff(scene.offsets)
        rows = np.isin(np.repeat(np.arange(count), lengths), lines)
        parts["lines"], parts["offsets"] = scene.lines[rows], np.r_[0, lengths[lines].cumsum()]
        if scene.line_colors is not None:
            parts["line_colors"] = scene.line_colors[rows]
    if scene.faces is not None and len(scene.faces) > MOST_FACES:
        told["faces"] = 0, len(scene.faces)
        parts |= {"vertices": None, "faces": None, "vertex_colors": None}
    return replace(scene, **parts), told


def scene_of(view: LiveView, options: dict[str, Value] | None = None, **more: Any) -> Scene:
    """What a view in space lays over its picture under some options (those left out have their default), as a scene.

    `more` are arrays that it has besides.
    """
    window = Window(1, 1, (0, 0, 1, 1), options=chosen(view.options(), options or {}))
    while not view.prepare(window):
        pass
    return Scene(**vars(view.shapes(window)), **more)


def cameras_in(cameras: Sequence[Camera]) -> dict[str, Any]:
    """The `poses` and `intrinsics` of a scene that has these cameras; evenly chosen where they are many."""
    count = len(cameras)
    some = np.linspace(0, count - 1, min(count, MOST_CAMERAS)).round().astype(int)
    cameras = [cameras[index] for index in some]
    return {
        "poses": np.array([camera.camera_to_world for camera in cameras]).reshape(-1, 4, 4),
        "intrinsics": np.array([[*camera.intrinsics, *camera.size] for camera in cameras], float).reshape(-1, 6),
    }
