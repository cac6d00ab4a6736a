"""A COLMAP reconstruction and its folder of pictures, as a scene."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.camera import Camera
from treadle.cameras.colmap import ColmapImage, Reconstruction, pinhole, world_to_camera
from treadle.cameras.colmap_files import read_reconstruction
from treadle.cameras.finding import find_mask, find_pictures, fitted, listed
from treadle.cameras.photographs import View
from treadle.cameras.scene import OnMissing, Scene
from treadle.errors import UsageError


def colmap_scene(root: Path, model: Path, *, images: str | None = None, missing: OnMissing = "skip") -> Scene:
    """The views of the reconstruction in the folder `model`, with pictures and masks below `root`.

    Args:
        root: the capture's folder.
        model: where COLMAP's files lie.
        images: the folder of pictures below `root`; see `find_pictures`.
        missing: whether views whose pictures are missing are left out, with a note, or an error.

    Raises:
        UsageError: files that cannot be used; no picture at all; points that are none.
    """
    rebuilt = read_reconstruction(model)
    cameras_file, images_file, _ = rebuilt.files
    if not rebuilt.images:
        raise UsageError(f"{images_file} holds no images: COLMAP has registered none; run it again")
    lenses = {camera.id: pinhole(camera, cameras_file) for camera in rebuilt.cameras.values()}
    found = find_pictures(root, [image.name for image in rebuilt.images], images)
    scene = Scene(images_file, [])
    _say_what_is_missing(scene, rebuilt, found.folder, found.missing, missing)
    if found.others:
        scene.notes.append(f"{len(found.others)} pictures in {found.folder.name}/ are not registered in "
                           f"{images_file.name} and left out: {listed(found.others)}")  # fmt: skip
    places = None if rebuilt.points is None else _Places(rebuilt.points.ids, rebuilt.points.positions)
    resized, bent = 0, Counter[str]()
    for image in sorted(rebuilt.images, key=lambda image: image.name):
        if image.name not in found.files:
            continue
        shot = rebuilt.cameras[image.camera]
        intrinsics, distortion = lenses[image.camera]
        pose = world_to_camera(image, images_file)
        try:
            declared = Camera(shot.width, shot.height, *intrinsics, pose, image.name)
        except UsageError as error:
            raise UsageError(f"{cameras_file}: {error}: run COLMAP again") from None
        camera, upright = fitted(declared, found.files[image.name], cameras_file)
        resized += camera.size != declared.size
        bent.update([shot.model] if distortion else [])
        points = None if places is None else places.of(image)
        mask = find_mask(root, image.name)
        scene.views.append(View(camera, found.files[image.name], upright, distortion, mask, points=points))
    if resized:
        scene.notes.append(f"{resized} pictures have another size than their camera, which was scaled to it")
    for name, count in sorted(bent.items()):
        scene.notes.append(f"{count} views were undistorted ({name})")
    if rebuilt.points is not None:
        _take_points(scene, rebuilt, places)
    return scene


def _say_what_is_missing(
    scene: Scene, rebuilt: Reconstruction, folder: Path, names: list[str], missing: OnMissing
) -> None:
    if not names:
        return
    images_file = rebuilt.files[1]
    count = (
        f"{len(names)} of {len(rebuilt.images)} images of {images_file} are not in {folder}: {listed(sorted(names))}"
    )
    if len(names) == len(rebuilt.images):
        raise UsageError(f"{count}: name the folder that holds the reconstruction and, beside it, a folder images")
    if missing == "refuse":
        raise UsageError(f"{count}: put them back, or leave these views out with missing 'skip'")
    scene.notes.append(f"{count}: left out")


def _take_points(scene: Scene, rebuilt: Reconstruction, places: _Places | None) -> None:
    points, file = rebuilt.points, rebuilt.files[2]
    assert points is not None and file is not None and places is not None
    if not len(points.ids):
        raise UsageError(f"{file} holds no points: run COLMAP again, or remove the file to start from random points")
    if places.unknown:
        scene.notes.append(f"{places.unknown} observations are of points that {file.name} does not hold, and left out")
    _, first = np.unique(points.positions, axis=0, return_index=True)
    first.sort()
    if len(first) < len(points.ids):
        scene.notes.append(
            f"{len(points.ids) - len(first)} of {len(points.ids)} points lie where another one does, and were left out"
        )
    scene.points, scene.colors = points.positions[first], points.colors[first]


class _Places:
    """Where the points that an image has observed lie."""

    def __init__(self, ids: NDArray[np.int64], positions: NDArray[np.float64]) -> None:
        self._order = np.argsort(ids, kind="stable")
        self._ids, self._positions = ids[self._order], positions
        self.unknown = 0

    def of(self, image: ColmapImage) -> NDArray[np.float64]:
        wanted = np.unique(image.points[image.points >= 0])
        at = np.searchsorted(self._ids, wanted)
        known = at < len(self._ids)
        known[known] = self._ids[at[known]] == wanted[known]
        self.unknown += int((~known).sum())
        return self._positions[self._order[at[known]]]
