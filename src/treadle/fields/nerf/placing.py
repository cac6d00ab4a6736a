"""Where a scene lies: the cube that is to be [-1, 1]^3, and a capture moved so that it is.

Fields, grids and structures live in [-1, 1]^3, whatever the units of a file are. Everything that leaves the trainer is
moved back by the capture's `to_input`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.bounds import Bounds
from treadle.cameras.camera import Camera
from treadle.cameras.capture import Capture, Photograph, Photographs
from treadle.cameras.rays import project, rays

ROOM = 1.05
"""How much larger the cube is than what is known to be in it."""

Mask = NDArray[np.bool_]

_CELLS = 40
_MOST_VIEWS = 60
_MIDDLE = 0.5  # of the cameras' distance: the half side of the cube where nothing is known but the cameras


@dataclass(frozen=True)
class Box:
    """A cube in the coordinates of a capture.

    Attributes:
        center: its middle.
        half: half its side.
        why: where it comes from, for people.
    """

    center: tuple[float, float, float]
    half: float
    why: str = "given"

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(4, 4), from [-1, 1]^3 to the cube."""
        matrix = np.diag([self.half, self.half, self.half, 1.0])
        matrix[:3, 3] = self.center
        return matrix


def find_box(capture: Capture) -> Box:
    """The cube that a scene fills: where all pictures that see it are opaque, else half as far as the cameras stand."""
    found = silhouette_box(capture.train) if transparent(capture.train) else None
    return found or camera_box(capture.train.cameras)


def transparent(views: Photographs) -> bool:
    """Whether photographs have alpha."""
    return views[0].pixels.shape[2] == 4


def camera_box(cameras: Sequence[Camera]) -> Box:
    """A cube around what cameras look at, its half side half of how far away they are."""
    bounds = Bounds.of(cameras)
    x, y, z = bounds.focus.tolist()
    return Box((x, y, z), bounds.distance * _MIDDLE, "the distance of the cameras")


def silhouette_box(views: Photographs) -> Box | None:
    """The cube around what no view that sees it shows as transparent; None where that is nothing, or has no end."""
    cameras = views.cameras
    focus = Bounds.of(cameras).focus
    half = float(np.linalg.norm(np.stack([camera.center for camera in cameras]) - focus, axis=1).max())
    if half < 1e-9:
        return None
    chosen = np.unique(np.linspace(0, len(views) - 1, min(len(views), _MOST_VIEWS)).astype(int)).tolist()
    low, high = focus - half, focus + half
    for _ in range(2):  # the second time with finer cells, where the first has found anything
        size = (high - low) / _CELLS
        axes = [low[k] + size[k] * (np.arange(_CELLS) + 0.5) for k in range(3)]
        places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        solid, seen = np.ones(len(places), bool), np.zeros(len(places), np.int64)
        for index in chosen:
            inside, opaque = _opaque(views[index], places, float(np.linalg.norm(size)) / 2)
            solid &= opaque | ~inside
            seen += inside
        kept = places[solid & (seen * 2 > len(chosen))]
        if not len(kept):
            return None
        low, high = kept.min(0) - size, kept.max(0) + size
    surfaces = _surfaces(views, chosen)
    if surfaces is not None:  # what no view sees into may be taken for solid: depths know better
        low, high = np.maximum(low, surfaces.min(0)), np.minimum(high, surfaces.max(0))
    middle, reach = (low + high) / 2, float((high - low).max()) / 2
    x, y, z = middle.tolist()
    return Box((x, y, z), reach * ROOM, "where the pictures are opaque")


def _surfaces(views: Photographs, chosen: Sequence[int]) -> NDArray[np.float64] | None:
    """(n, 3) places where the views' depths say that something is; None where a view has none."""
    found = []
    for index in chosen:
        view = views[index]
        if view.depth is None:
            return None
        known = view.depth > 0
        origins, directions = rays(view.camera, np.float64)
        ahead = directions @ view.camera.world_to_camera[2, :3]
        found.append((origins + directions * (view.depth / ahead)[..., None])[known])
    places = np.concatenate(found)
    return places if len(places) else None


def _opaque(view: Photograph, places: NDArray[np.float64], radius: float) -> tuple[Mask, Mask]:
    """Which places (n, 3) a view sees, and within a radius of which it sees anything opaque."""
    pixels, depths = project(view.camera, places)
    height, width = view.pixels.shape[:2]
    inside = (depths > 0) & np.isfinite(pixels).all(1)
    pixels = np.where(inside[:, None], pixels, -1.0)
    inside &= (pixels >= 0).all(1) & (pixels < (width, height)).all(1)
    # Sums over any rectangle of pixels at once: whether anything in a cell's picture is opaque.
    sums = np.zeros((height + 1, width + 1), np.int64)
    sums[1:, 1:] = (view.pixels[..., 3] > 0).astype(np.int64).cumsum(0).cumsum(1)
    reach = np.ceil(radius * max(view.camera.fx, view.camera.fy) / np.maximum(depths, 1e-9)).clip(1, max(width, height))
    column, row = np.floor(pixels[:, 0]), np.floor(pixels[:, 1])
    left, right = (np.clip(column + side, 0, width).astype(int) for side in (-reach, reach + 1))
    top, bottom = (np.clip(row + side, 0, height).astype(int) for side in (-reach, reach + 1))
    return inside, sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left] > 0


def placed(capture: Capture, box: Box) -> Capture:
    """The same capture with `box` at [-1, 1]^3: cameras, depths and points moved, `to_input` the way back."""
    parts = {id(part): PlacedPhotographs(part, box) for part in (capture.train, capture.validation, capture.test)}
    points = None if capture.points is None else (capture.points - box.center) / box.half
    return replace(
        capture,
        train=parts[id(capture.train)],
        validation=parts[id(capture.validation)],
        test=parts[id(capture.test)],
        points=points,
        to_input=capture.to_input @ box.matrix,
    )


class PlacedPhotographs:
    """Photographs in the coordinates in which `box` is [-1, 1]^3."""

    def __init__(self, photographs: Photographs, box: Box) -> None:
        self.photographs, self.box = photographs, box
        self._cameras = tuple(moved(camera, box) for camera in photographs.cameras)

    @property
    def cameras(self) -> Sequence[Camera]:
        """Their cameras."""
        return self._cameras

    def __len__(self) -> int:
        return len(self.photographs)

    def __getitem__(self, index: int) -> Photograph:
        found = self.photographs[index]
        depth = None if found.depth is None else found.depth / np.float32(self.box.half)
        points = found.points * np.array([1, 1, 1 / self.box.half], np.float32)
        return replace(found, camera=moved(found.camera, self.box), depth=depth, points=points)

    def fingerprint(self) -> str:
        """That of the photographs themselves."""
        return self.photographs.fingerprint()


class SomePhotographs:
    """So many of some photographs, spread evenly from the first to the last."""

    def __init__(self, photographs: Photographs, count: int) -> None:
        self.photographs = photographs
        places = np.linspace(0, len(photographs) - 1, min(count, len(photographs)))
        self.numbers = list(dict.fromkeys(places.astype(int).tolist()))

    @property
    def cameras(self) -> Sequence[Camera]:
        """Their cameras."""
        return [self.photographs.cameras[number] for number in self.numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Photograph:
        return self.photographs[self.numbers[index]]

    def fingerprint(self) -> str:
        """That of all of them."""
        return self.photographs.fingerprint()


def moved(camera: Camera, box: Box) -> Camera:
    """A camera in the coordinates in which `box` is [-1, 1]^3."""
    pose = camera.world_to_camera.copy()
    pose[:3, 3] = (pose[:3, :3] @ np.array(box.center) + pose[:3, 3]) / box.half
    return replace(camera, world_to_camera=pose)
