"""Photographs that are files: decoded when they are asked for, made small and straight, and kept within a bound."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.camera import Camera
from treadle.cameras.capture import Photograph
from treadle.cameras.distortion import Distortion, straightened
from treadle.cameras.keeping import Keeper
from treadle.cameras.resizing import at_centres, resized, smaller_size
from treadle.errors import UsageError
from treadle.images.pixels import decode
from treadle.images.reading import BadPicture, read_array

MEMORY = 2 * 10**9
"""Bytes of decoded pictures that are kept: about 900 pictures of 1000 x 750."""


@dataclass(frozen=True, eq=False)
class View:
    """What a file says of one view: where its pictures lie and what they were taken with.

    Attributes:
        camera: at the size that the picture has in its file; with a `distortion`, the pinhole beneath that.
        picture: the file. Its pixels are taken as they are stored, as COLMAP does: EXIF's orientation turns nothing...
        upright: ... unless this is true.
        distortion: of the lens.
        mask: a picture, black where the photograph is to be ignored; or None.
        depth: a picture of distances along the camera's axis, or None.
        depth_scale: what whole numbers in `depth` are multiplied by to get units of the scene.
        points: (n, 3) points of the scene that were seen here.
    """

    camera: Camera
    picture: Path
    upright: bool = False
    distortion: Distortion | None = None
    mask: Path | None = None
    depth: Path | None = None
    depth_scale: float = 1.0
    points: NDArray[np.float64] | None = None


class PhotographFiles:
    """Views whose pictures are files, decoded when they are asked for; safe to be asked by several threads.

    What was decoded is kept in `keeper`, the last used, so far as its bound allows. Arrays that come from there are
    shared: do not write into them. Which pixels a view has depends on its files and `factor` alone.

    Args:
        views: what to read.
        factor: how many times smaller, along each side, pictures are made; at least 1.
        keeper: where decoded pictures are kept, which several sets may share; one of its own by default.

    Raises:
        UsageError: for a factor below 1.
    """

    def __init__(self, views: Sequence[View], *, factor: float = 1.0, keeper: Keeper[Photograph] | None = None) -> None:
        if not 1 <= factor < float("inf"):
            raise UsageError(f"factor is {factor:g}: pictures are made smaller, so expected 1 or more")
        self.views, self.factor = tuple(views), float(factor)
        self._keeper = Keeper(MEMORY, size_of) if keeper is None else keeper
        self._cameras = tuple(view.camera.resized(*smaller_size(view.camera.size, factor)) for view in self.views)

    @property
    def cameras(self) -> Sequence[Camera]:
        """Their cameras, at the size at which the pictures are given."""
        return self._cameras

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, index: int) -> Photograph:
        """The view. Raises BadPicture, naming the file, where one of its pictures cannot be used."""
        view, size = self.views[index], self.cameras[index].size
        return self._keeper.get((view, size), partial(read_view, view, size))

    def fingerprint(self) -> str:
        """SHA-256, in hex, over pictures and cameras; the same wherever a folder is copied to."""
        digest = hashlib.sha256(f"{len(self)} photographs, {self.factor!r} times smaller".encode())
        for view in self.views:
            for text in _description(view):
                data = text.encode()
                digest.update(len(data).to_bytes(8, "little") + data)
            digest.update(view.camera.world_to_camera.tobytes())
            digest.update(b"" if view.points is None else np.ascontiguousarray(view.points).tobytes())
        return digest.hexdigest()


def read_view(view: View, size: tuple[int, int]) -> Photograph:
    """Read a view and make it `size` (width, height): first smaller, then straight, so that memory stays small.

    Raises:
        BadPicture: one of its files cannot be used, or is of another size than it was.
    """
    width, height = view.camera.size
    pixels = decode(view.picture, upright=view.upright)
    if pixels.shape[:2] != (height, width):
        what = f"has {pixels.shape[1]} x {pixels.shape[0]} pixels and had {width} x {height} when its folder was read"
        raise BadPicture(view.picture, what, "leave data as it is while it is used")
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    mask = None if view.mask is None else read_mask(view.mask, width, height)
    depth = None if view.depth is None else read_depth(view.depth, view.depth_scale, width, height)
    photograph = resized(Photograph(view.camera, pixels, mask, depth), *size)
    if view.distortion is not None and not view.distortion.is_none:
        photograph = straightened(photograph, view.distortion)
    points = np.zeros((0, 3), np.float32) if view.points is None else seen_points(photograph.camera, view.points)
    mask, depth = photograph.mask, photograph.depth
    return Photograph(
        photograph.camera,
        _in_pages(photograph.pixels),
        None if mask is None else _in_pages(mask),
        None if depth is None else _in_pages(depth),
        None,
        points,
    )


def _in_pages(values: NDArray[Any]) -> NDArray[Any]:
    """A copy in memory pages of its own, which are given back when it is forgotten, and leave no gaps in a heap."""
    pages = mmap.mmap(-1, max(1, values.nbytes))
    copy = np.frombuffer(pages, values.dtype, values.size).reshape(values.shape)
    copy[...] = values
    return copy


def read_mask(path: Path, width: int, height: int) -> NDArray[np.bool_]:
    """(height, width): False where the picture at `path` is black. Raises BadPicture."""
    values = read_array(path, deep=False, upright=False)
    counts = (values if values.shape[2] == 1 else values[:, :, :3]).any(axis=2)
    return _fitting(path, np.asarray(counts), width, height)


def read_depth(path: Path, scale: float, width: int, height: int) -> NDArray[np.float32]:
    """(height, width) in units of the scene, 0 where not known: of whole numbers `scale` times that, of floats as is.

    Raises BadPicture.
    """
    values = read_array(path, upright=False)
    if values.shape[2] != 1:
        raise BadPicture(
            path, f"has {values.shape[2]} channels; depth has one", "save it as gray, of 16 bits or floats"
        )
    depth = values[:, :, 0].astype(np.float32) * np.float32(1 if values.dtype.kind == "f" else scale)
    return _fitting(path, np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0)), width, height)


def _fitting(path: Path, values: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    """The values at another resolution of the same frame, each taken where the pixel's middle is."""
    if values.shape == (height, width):
        return values
    if not same_shape((values.shape[1], values.shape[0]), (width, height)):
        what = f"has {values.shape[1]} x {values.shape[0]} pixels, its photograph {width} x {height}"
        raise BadPicture(path, what, "make both of one size")
    return at_centres(values, width, height)


def same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes are, to a pixel and a half, sizes of one picture."""
    smaller, larger = sorted((one, other))
    return abs(larger[1] * smaller[0] / larger[0] - smaller[1]) <= 1.5


def seen_points(camera: Camera, points: NDArray[np.float64]) -> NDArray[np.float32]:
    """(n, 3): column, row and depth of those of `points` that lie in front of the camera and inside its picture."""
    x, y, depth = camera.world_to_camera[:3, :3] @ points.T + camera.world_to_camera[:3, 3:]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        columns, rows = x / depth * camera.fx + camera.cx, y / depth * camera.fy + camera.cy
    inside = (depth > 0) & (columns >= 0) & (columns < camera.width) & (rows >= 0) & (rows < camera.height)
    return np.stack((columns, rows, depth), axis=1)[inside].astype(np.float32)


def size_of(photograph: Photograph) -> int:
    """The bytes of its arrays."""
    arrays = (photograph.pixels, photograph.mask, photograph.depth, photograph.normals, photograph.points)
    return sum(array.nbytes for array in arrays if array is not None)


def _description(view: View) -> list[str]:
    lens = view.distortion
    bent = "none" if lens is None else f"{lens.kind} {[float(value) for value in lens.coefficients]}"
    pinhole = f"{view.camera.size} {[float(value) for value in view.camera.intrinsics]}"
    files = (_content(file) for file in (view.picture, view.mask, view.depth))
    return [view.camera.name, pinhole, bent, str(view.upright), repr(float(view.depth_scale)), *files]


def _content(path: Path | None) -> str:
    if path is None:
        return "none"
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadPicture(path, f"cannot be read ({error.strerror or error})", "put it back") from None
