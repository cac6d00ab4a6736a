"""The JSON files of Blender's NeRF scenes, instant-ngp and nerfstudio, as a scene.

Formats: https://docs.nerf.studio/quickstart/data_conventions.html and the tips for data of instant-ngp. Poses in them
take a point of the camera to the world, and the camera looks along -z with y up, as OpenGL has it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.camera import Camera
from treadle.cameras.distortion import Distortion
from treadle.cameras.finding import find_mask, fitted, is_file, listed, shown
from treadle.cameras.photographs import View
from treadle.cameras.ply import read_points_ply
from treadle.cameras.scene import OnMissing, Scene
from treadle.cameras.splitting import Split, split_names
from treadle.errors import UsageError
from treadle.images.reading import picture_size

BLENDER = {
    kind: f"transforms_{name}.json" for kind, name in (("train", "train"), ("validation", "val"), ("test", "test"))
}
"""The files of a Blender scene, any of which may be missing."""

SINGLE = "transforms.json"
"""The file of instant-ngp and nerfstudio."""

_OWN_LISTS = {"train": "train", "validation": "val", "test": "test"}

_ENDINGS = ("", ".png", ".jpg", ".jpeg", ".JPG", ".PNG", ".webp", ".exr")
"""What a file_path may lack, in the order in which it is tried."""

_LARGEST = 1e12
"""Beyond this no number in a file means anything; NaN and infinity are beyond it."""

_PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
_MILLIMETRES = 1e-3
_RIGID = 1e-2
"""How far the axes of a pose may be from length 1 and from right angles; the nearest rotation is taken."""


def blender_scene(root: Path, *, missing: OnMissing = "refuse") -> Scene:
    """The views of transforms_train.json, transforms_val.json and transforms_test.json, those that there are.

    A train file alone says of no view that it is held out: then `split` is None.

    Raises:
        UsageError: a file that cannot be used, and what `_Frames` refuses.
    """
    files = {kind: root / name for kind, name in BLENDER.items() if (root / name).is_file()}
    scene = Scene(next(iter(files.values())), [])
    parts: dict[str, list[int]] = {}
    for kind, file in files.items():
        part, _ = _read(file, _content(file), missing, scene)
        parts[kind] = list(range(len(scene.views), len(scene.views) + len(part)))
        scene.views += part
    trained = {view.picture for view in (scene.views[index] for index in parts.get("train", []))}
    held = parts.get("validation", []) + parts.get("test", [])
    again = sum(scene.views[index].picture in trained for index in held)
    if again:
        scene.notes.append(f"{again} held-out views are trained on, too: their figures say little")
    if len(parts) == 1 and "train" in parts:
        scene.views.sort(key=lambda view: view.camera.name)
    else:
        validation = parts.get("validation", parts.get("test", []))
        scene.split = Split(parts.get("train", []), validation, parts.get("test", validation))
    if scene.points is None and (root / "points3d.ply").is_file():
        scene.points, scene.colors = read_points_ply(root / "points3d.ply")
    return scene


def single_scene(file: Path, *, missing: OnMissing = "refuse") -> Scene:
    """The views of a transforms.json, sorted by name where it does not split them itself. Raises as `blender_scene`."""
    scene = Scene(file, [])
    content = _content(file)
    views, absent = _read(file, content, missing, scene)
    scene.views = sorted(views, key=lambda view: view.camera.name)
    lists = {kind: content[f"{name}_filenames"] for kind, name in _OWN_LISTS.items() if f"{name}_filenames" in content}
    if lists:
        for kind, listing in lists.items():
            if not isinstance(listing, list) or not all(isinstance(name, str) for name in listing):
                raise UsageError(f"{file}: {_OWN_LISTS[kind]}_filenames is no list of names: mend or remove it")
            lists[kind] = [name for name in map(_plain, listing) if name not in absent]
        names = [view.camera.name for view in scene.views]
        scene.split = split_names(names, lists, {kind: f"{file}: {_OWN_LISTS[kind]}_filenames" for kind in lists})
    return scene


def _read(file: Path, content: dict[str, Any], missing: OnMissing, scene: Scene) -> tuple[list[View], list[str]]:
    """The views of one file, and the pictures that are missing; what it says beside them goes to `scene`."""
    views, absent, bent = [], [], 0
    for index, frame in enumerate(content["frames"]):
        entry = _Frame(file, content, frame, index)
        picture = entry.file("file_path", _ENDINGS)
        if picture is None:
            absent.append(entry.name)
            continue
        view = entry.view(picture)
        bent += view.distortion is not None
        views.append(view)
    if absent:
        count = f"{len(absent)} of {len(content['frames'])} pictures of {file} are missing: {listed(absent)}"
        if missing == "refuse" or not views:
            raise UsageError(f"{count}: put them back, or leave these views out with missing 'skip'")
        scene.notes.append(f"{count}: left out")
    seen: set[Path] = set()
    for view in views:
        if view.picture in seen:
            raise UsageError(
                f"{file}: the picture {shown(view.camera.name)} comes more than once: remove one of the frames"
            )
        seen.add(view.picture)
    if bent:
        scene.notes.append(f"{bent} views of {file.name} were undistorted")
    if isinstance(scale := content.get("aabb_scale"), int | float) and scale > 0:
        scene.aabb_scale = float(scale)
    if isinstance(cloud := content.get("ply_file_path"), str) and scene.points is None:
        scene.points, scene.colors = read_points_ply(file.parent / cloud.replace("\\", "/"))
    return views, absent


def _plain(path: str) -> str:
    """A file_path as names have it: with "/" between folders, and no "./" in front."""
    return path.replace("\\", "/").removeprefix("./")


def _content(file: Path) -> dict[str, Any]:
    """The JSON object in `file`, with a list of frames that is not empty."""
    again = "it is damaged or something else; copy it again"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror or error}): check its name and permissions") from None
    except (UnicodeDecodeError, RecursionError):
        raise UsageError(f"{file} is no JSON: {again}") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"{file} is no JSON, from line {error.lineno}, column {error.colno} on: {again}") from None
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise UsageError(f"{file} has no list of frames: {again}")
    if not frames:
        raise UsageError(f"{file} has no views, its list of frames is empty: export the scene again")
    return dict(content)


class _Frame:
    """One entry of `frames`, with the file's own values for what it does not say itself."""

    def __init__(self, file: Path, content: dict[str, Any], frame: dict[str, Any], index: int) -> None:
        self._source, self._frame, self._content = file, frame, content
        self._place = f"{file}: frame {index}"
        path = frame.get("file_path")
        if not isinstance(path, str) or not path:
            raise UsageError(f"{self._place} has no file_path: name its picture")
        self.name = _plain(path)
        self._place += f" ({shown(self.name)})"

    def file(self, key: str, endings: tuple[str, ...] = ("",)) -> Path | None:
        """The file that `key` names, perhaps without its ending, from the JSON file on; None if it is not there."""
        named = self._frame[key]
        if not isinstance(named, str):
            raise UsageError(f"{self._place}: {key} is {named!r}: expected the name of a file")
        base = str(self._source.parent / named.replace("\\", "/"))
        return next((file for ending in endings if is_file(file := Path(base + ending))), None)

    def view(self, picture: Path) -> View:
        """The view of this frame. Raises UsageError, naming the file and the frame."""
        width, height = self.number("w", 0), self.number("h", 0)
        # Where the size is not said the picture's counts; as it is stored, since nothing here asks for another.
        size = (int(width), int(height)) if width and height else picture_size(picture, upright=False)
        name = self.name if picture.suffix and self.name.endswith(picture.suffix) else self.name + picture.suffix
        try:
            declared = Camera(*size, *self._intrinsics(*size), self._pose(), name)
            lens = self._distortion()
        except UsageError as error:
            text = str(error)
            raise UsageError(text if text.startswith(self._place) else f"{self._place}: {text}: mend it") from None
        camera, upright = fitted(declared, picture, self._source)
        mask = self._beside("mask_path") or find_mask(self._source.parent, name)
        depth = self._beside("depth_file_path") or self._beside("depth_path")
        scale = self.number("integer_depth_scale", _MILLIMETRES)
        return View(camera, picture, upright, lens, mask, depth, scale)

    def _beside(self, key: str) -> Path | None:
        if self._frame.get(key) is None:
            return None
        found = self.file(key)
        if found is None:
            raise UsageError(f"{self._place}: {key} names {shown(self._frame[key])}, which is missing: put "
                             "it back, or remove the entry")  # fmt: skip
        return found

    def number(self, key: str, default: float) -> float:
        value = self._frame.get(key, self._content.get(key))
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
            raise UsageError(f"{self._place}: {key} is {str(value)[:40]!r}: expected a number")
        return float(value)

    def _intrinsics(self, width: int, height: int) -> tuple[float, float, float, float]:
        along_x = self.number("fl_x", 0) or _focal(width, self.number("camera_angle_x", 0))
        along_y = self.number("fl_y", 0) or _focal(height, self.number("camera_angle_y", 0))
        if not along_x and not along_y:
            raise UsageError(f"{self._place} has no focal length: add fl_x, in pixels, or camera_angle_x, in radians")
        center = self.number("cx", width / 2), self.number("cy", height / 2)
        return along_x or along_y, along_y or along_x, *center

    def _pose(self) -> NDArray[np.float64]:
        """World to camera, with OpenCV's axes."""
        stored = self._frame.get("transform_matrix")
        try:
            pose = np.array(stored, np.float64)
        except (TypeError, ValueError, OverflowError):
            pose = np.zeros(0)
        if pose.shape not in ((4, 4), (3, 4)) or not np.isfinite(pose).all():
            raise UsageError(f"{self._place}: transform_matrix is no 4 x 4 matrix of finite numbers: mend it, or "
                             "remove the frame")  # fmt: skip
        left, sizes, right = np.linalg.svd(pose[:3, :3])
        rotation = left @ right
        if np.abs(sizes - 1).max() > _RIGID or np.linalg.det(rotation) < 0:
            raise UsageError(f"{self._place}: transform_matrix is no rotation and translation: its axes are mirrored, "
                             f"or scaled by {sizes.min():g} to {sizes.max():g}; export it without")  # fmt: skip
        rotation = rotation * [1, -1, -1]  # its columns are x, y and z of the camera: y up and z backwards before
        camera = np.eye(4)
        camera[:3, :3], camera[:3, 3] = rotation.T, -rotation.T @ pose[:3, 3]
        return camera

    def _distortion(self) -> Distortion | None:
        model = self._frame.get("camera_model", self._content.get("camera_model", "OPENCV"))
        odd = sorted(key for key in {**self._content, **self._frame} if key.startswith(("ftheta", "latlong")))
        if model not in (*_PINHOLES, "OPENCV_FISHEYE") or odd:
            raise UsageError(f"{self._place} is of the camera model {odd[0] if odd else model}, which is not "
                             "undistorted here: undistort the pictures first")  # fmt: skip
        k1, k2, k3, k4 = (self.number(f"k{index}", 0) for index in range(1, 5))
        p1, p2 = self.number("p1", 0), self.number("p2", 0)
        if model == "OPENCV_FISHEYE" or self._frame.get("is_fisheye", self._content.get("is_fisheye")) is True:
            return Distortion("fisheye", (k1, k2, k3, k4))
        if k4:
            raise UsageError(
                f"{self._place}: k4 is {k4:g}, which {model} has no term for: undistort the pictures first"
            )
        lens = Distortion("brown", (k1, k2, p1, p2, k3))
        return None if lens.is_none else lens


def _focal(pixels: int, angle: float) -> float:
    """The focal length, in pixels, at which so many pixels are seen under this angle; 0 for an angle of 0."""
    return 0.5 * pixels / math.tan(0.5 * angle) if 0 < angle < math.pi else 0.0
