"""Flights through a scene as MP4 or GIF: colours, and depth in colours of its own beside them or in a second file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from treadle.cameras.camera import Camera
from treadle.errors import UsageError
from treadle.images.display import to_uint8
from treadle.images.reading import Pixels
from treadle.images.video import write_gif, write_mp4
from treadle.splats.mesh import SOLID, Look, View

ENDINGS = (".mp4", ".gif")
DEPTHS = ("beside", "apart", "none")
"""Where the depth goes: into the same frames, into a second file, nowhere."""

VIRIDIS = np.array([(68, 1, 84), (71, 45, 123), (59, 82, 139), (44, 114, 142), (33, 145, 140), (40, 174, 128),
                    (94, 201, 98), (173, 220, 48), (253, 231, 37)], np.float32)  # fmt: skip
"""Matplotlib's colour map (CC0) at nine places, from far to near."""

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
    near, far = _range(look, cameras)
    if depth == "beside":
        write(path, (np.hstack(pair) for pair in _pairs(look, cameras, near, far)), fps)
        return [path]
    second: list[Pixels] = []

    def first() -> Iterator[Pixels]:
        for color, below in _pairs(look, cameras, near, far):
            second.append(below)
            yield color

    other = path.with_name(f"{path.stem}-depth{path.suffix}")
    write(path, first(), fps)
    write(other, second, fps)
    return [path, other]


def depth_picture(depth: Tensor, alpha: Tensor, near: float, far: float) -> Pixels:
    """Depth (H, W) in colours (H, W, 3): yellow near, violet far, even in 1 / depth; black where little is seen.

    `near` and `far`, above 0, are the depths at the ends of the scale.
    """
    share = (1 / depth.double().clamp(min=1e-12) - 1 / far) / max(1 / near - 1 / far, 1e-12)
    places = np.linspace(0, 1, len(VIRIDIS))
    values = share.clamp(0, 1).cpu().numpy()
    colors = np.stack([np.interp(values, places, VIRIDIS[:, channel]) for channel in range(3)], -1)
    return np.asarray((colors * (alpha >= SOLID).cpu().numpy()[..., None]).round(), np.uint8)


def _pairs(look: Look, cameras: Sequence[Camera], near: float, far: float) -> Iterator[tuple[Pixels, Pixels]]:
    for camera in cameras:
        view = look(camera)
        yield _colors(view), depth_picture(view.depth, view.alpha, near, far)


def _colors(view: View) -> Pixels:
    return to_uint8(view.image.float().cpu().numpy())


def _range(look: Look, cameras: Sequence[Camera]) -> tuple[float, float]:
    """Depths that nearly all that a few of the cameras see lies between: one scale for all frames."""
    probes = [cameras[place] for place in np.linspace(0, len(cameras) - 1, min(_PROBES, len(cameras))).astype(int)]
    views = [look(camera) for camera in probes]
    seen = torch.cat([torch.zeros(0), *(view.depth[view.alpha >= SOLID].float().cpu() for view in views)])
    if not len(seen):
        return 1.0, 2.0  # nothing to be seen has no depth to be coloured
    low, high = np.quantile(seen.numpy(), [0.01, 0.99])
    return float(max(low, 1e-6)), float(max(high, low * 1.0001, 2e-6))
