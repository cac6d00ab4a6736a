"""Flights through a scene as MP4 or GIF: colours, and depth in colours of its own beside them or in a second file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from treadle.cameras.camera import Camera
from treadle.errors import UsageError
from treadle.export.look import SOLID, Look, View
from treadle.images.depth import depth_ends, shown_depth
from treadle.images.display import to_uint8
from treadle.images.reading import Pixels
from treadle.images.video import write_gif, write_mp4

ENDINGS = (".mp4", ".gif")
DEPTHS = ("beside", "apart", "none")
"""Where the depth goes: into the same frames, into a second file, nowhere."""

_PROBES = 8


def write_video(
    path: str | Path, look: Look, cameras: Sequence[Camera], *, fps: float = 30, depth: str = "beside"
) -> list[Path]:
    """Render what each camera sees as a frame; returns the files written, each whole or not at all.

    Args:
        path: ends in .mp4 or .gif; with `depth` "apart" the depth goes into NAME-depth beside it.
        look: renders what a camera sees; it is asked once for a frame, and before that for the depth of a few.
        cameras: one for each frame, all of one size.
        fps: frames per second.
        depth: one of `DEPTHS`.

    Raises:
        UsageError: another ending, no cameras, a rate out of range, or PyAV is not installed.
        RunError: the disk refuses a file.
    """
    path = Path(path)
    write = {".mp4": write_mp4, ".gif": write_gif}.get(path.suffix.lower())
    if write is None:
        raise UsageError(f"{path}: a video is a file that ends in {' or '.join(ENDINGS)}")
    if depth not in DEPTHS:
        raise UsageError(f"--depth {depth}: expected {', '.join(DEPTHS)}")
    if depth == "none":
        write(path, (_colors(look(camera)) for camera in cameras), fps)
        return [path]
    ends = _ends(look, cameras)
    if depth == "beside":
        write(path, (np.hstack(pair) for pair in _pairs(look, cameras, ends)), fps)
        return [path]
    second: list[Pixels] = []

    def first() -> Iterator[Pixels]:
        for color, below in _pairs(look, cameras, ends):
            second.append(below)
            yield color

    other = path.with_name(f"{path.stem}-depth{path.suffix}")
    write(path, first(), fps)
    write(other, second, fps)
    return [path, other]


def write_flight(path: Path, look: Look, cameras: Sequence[Camera], values: Mapping[str, Any]) -> dict[str, Any]:
    """`write_video` as the options of an exporter say (`width`, `fps`, `depth`); returns what to print about it."""
    if not cameras:
        raise UsageError(f"--video {values['video']} has no cameras")
    if values["width"] is not None:
        height = max(1, round(cameras[0].height * values["width"] / cameras[0].width))
        cameras = [camera.resized(values["width"], height) for camera in cameras]
    files = write_video(path, look, cameras, fps=values["fps"], depth=values["depth"])
    said: dict[str, Any] = {"depth": files[1]} if len(files) > 1 else {}
    return {"frames": f"{len(cameras)} of {cameras[0].width} x {cameras[0].height} pixels", **said}


def _pairs(look: Look, cameras: Sequence[Camera], ends: tuple[float, float]) -> Iterator[tuple[Pixels, Pixels]]:
    for camera in cameras:
        view = look(camera)
        yield _colors(view), shown_depth(view.depth, view.alpha, ends)


def _colors(view: View) -> Pixels:
    return to_uint8(view.image.float().cpu().numpy())


def _ends(look: Look, cameras: Sequence[Camera]) -> tuple[float, float]:
    """Depths that nearly all that a few of the cameras see lies between: one scale for all frames."""
    places = np.linspace(0, len(cameras) - 1, min(_PROBES, len(cameras))).astype(int)
    views = [look(cameras[place]) for place in places]
    seen = np.concatenate([np.zeros(0), *(view.depth[view.alpha >= SOLID].cpu().numpy() for view in views)])
    return depth_ends(seen) if len(seen) else (0.0, 1.0)
